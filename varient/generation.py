"""From labels to sample archives, one shard of a system at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from varient.archive import Archive, write_archive
from varient.config import ExperimentConfig, Precision
from varient.files import sha256_of
from varient.models.build import build_tokenizer, build_transformer, load_tokenizer, load_transformer
from varient.models.transformer import VAR, initialize
from varient.models.vqvae import VQVAE, to_uint8
from varient.plan import DepthPlan
from varient.sampling import DrawTokens, Guidance, generate, image_uniforms
from varient.systems import System, resolve_system

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Dtypes that the transformer's weights may be held in."""


@dataclass(frozen=True)
class Pipeline:
    """The networks that turn labels into images."""

    model: VAR
    tokenizer: VQVAE
    guidance: Guidance
    decoded_at_once: int

    @torch.no_grad()
    def decode(self, f_hat_BCHW: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S) of latents, a few at a time: a whole batch would set the peak of memory.

        With 16-bit weights the decoder runs under autocast, as in every public sampler of VAR.
        """
        dtype = self.model.pos_1LC.dtype
        parts = f_hat_BCHW.split(self.decoded_at_once)
        with torch.autocast(f_hat_BCHW.device.type, dtype, enabled=dtype != torch.float32):
            return torch.cat([to_uint8(self.tokenizer.decode_latent(part).float()) for part in parts])

    def images(self, labels: Sequence[int], indices: Sequence[int], seed: int, plan: DepthPlan) -> np.ndarray:
        """uint8 images (B, 3, S, S) of the given classes; each depends on its (seed, index) and label alone."""
        quantizer = self.tokenizer.quantize
        readout = DrawTokens(quantizer, image_uniforms(seed, indices, self.model.pyramid.length))
        generated = generate(self.model, quantizer, torch.as_tensor(labels), plan, self.guidance, readout)
        return self.decode(generated.f_hat_BCHW).cpu().numpy()


def load_pipeline(config: ExperimentConfig, tokenizer: Path, weights: Path, precision: Precision = "fp32") -> Pipeline:
    """Load tokenizer and transformer, on the GPU where there is one; ``precision`` is that of the transformer."""
    return _pipeline(config, load_tokenizer(config, tokenizer), load_transformer(config, weights), precision)


def random_pipeline(config: ExperimentConfig, seed: int, precision: Precision = "fp32") -> Pipeline:
    """The experiment's networks with seeded random weights: what they cost does not depend on the values."""
    torch.manual_seed(seed)
    model = build_transformer(config)
    initialize(model, gamma=1.0)
    return _pipeline(config, build_tokenizer(config), model, precision)


def _pipeline(config: ExperimentConfig, tokenizer: VQVAE, model: VAR, precision: Precision) -> Pipeline:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sampling = config.sampling
    return Pipeline(model.eval().requires_grad_(False).to(device, DTYPES[precision]),
                    tokenizer.eval().requires_grad_(False).to(device),
                    Guidance(sampling.cfg, sampling.top_k, sampling.top_p), sampling.decoded_at_once)


def label_of(index: int, num_classes: int) -> int:
    """The class of image ``index``: classes take turns, so counts are equal."""
    return index % num_classes


def shard_indices(shard: int, *, shards: int, num_images: int) -> range:
    """Indices of shard 0..shards-1: contiguous, together 0..num_images-1.

    Raises:
        ValueError: a shard outside 0..shards-1.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"shard {shard} is outside 0..{shards - 1}")
    return range(shard * num_images // shards, (shard + 1) * num_images // shards)


def generate_shard(config: ExperimentConfig, system: str, shard: int, run_dir: Path, output: Path) -> None:
    """Generate one shard of a system's images and write it to ``output``."""
    resolved = resolve_system(system, config)
    indices = shard_indices(shard, shards=config.sampling.shards, num_images=config.sampling.num_images)
    tokenizer_path, weights_path = run_dir / "tokenizer.safetensors", resolved.weights_path(run_dir)
    pipeline = load_pipeline(config, tokenizer_path, weights_path, config.sampling.precision)
    labels = [label_of(i, config.data.num_classes) for i in indices]
    size = config.sampling.batch_size
    batches = [pipeline.images(labels[at:at + size], indices[at:at + size], config.seed, resolved.plan)
               for at in tqdm(range(0, len(indices), size), desc=f"{system} shard {shard}", mininterval=2)]
    origin = _origin(config, resolved, {path.stem: sha256_of(path) for path in (tokenizer_path, weights_path)})
    write_archive(output, Archive(np.concatenate(batches), np.array(labels), np.array(indices), origin))


def _origin(config: ExperimentConfig, system: System, weights: dict[str, str]) -> dict:
    return {"system": system.name, "experiment": config.name, "seed": config.seed,
            "layers_per_scale": system.plan.layers_per_scale, "sampling": config.sampling.model_dump(),
            "settings": config.digest("sampling"), "weights_sha256": weights, "torch": version("torch")}
