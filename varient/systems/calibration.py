"""What is measured once on images of the base network and decides how a system's cache works: windows by layer
(`varient.systems.key_change`) and kinds of heads (`varient.systems.head_kinds`).

So an image is a function of its seed, and the size of the cache is known beforehand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from varient.config import ExperimentConfig
from varient.files import sha256_kept
from varient.models.build import load_tokenizer, load_transformer
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms
from varient.systems.names import BaseId
from varient.systems.pipeline import ready

IMAGES = 50
"""Images of a calibration; their seeds and classes are those of the first samples."""
_BASE = str(BaseId())

Measure = Callable[[VAR, MultiScaleQuantizer, Tensor, Tensor], Tensor]
"""(network, quantizer, label_B, idx_BL) -> what is measured on each image, float32 (B, ...)."""


class Calibration(nn.Module):
    """The content of the file: one tensor, the mean over the images."""

    def __init__(self, name: str, mean: Tensor) -> None:
        super().__init__()
        self.register_buffer(name, mean)


def calibrate(config: ExperimentConfig, run_dir: Path, output: Path, name: str, measure: Measure) -> None:
    """Measure images that the base network of a run generates, in float32, on the device of this process.

    Args:
        output: a file with the mean over the images.
        name: of its tensor.

    Raises:
        CheckpointError: weights that are missing or do not fit.
        OutputError: a file that could not be written.
    """
    sampling, weights = config.sampling, run_dir / f"{_BASE}.safetensors"
    quantizer = ready(load_tokenizer(config, run_dir / "tokenizer.safetensors")).quantize
    model = ready(load_transformer(config, weights))
    guidance, plan = Guidance(sampling.cfg, sampling.top_k, sampling.top_p), all_layers(model)
    found = []
    for indices in torch.arange(IMAGES).split(sampling.batch_size):
        label_B = indices % config.data.num_classes
        readout = SampledReadout(quantizer, image_uniforms(config.seed, indices.tolist(), model.pyramid.length))
        idx_BL = generate(model, quantizer, label_B, plan, guidance, readout).idx_BL
        found.append(measure(model, quantizer, label_B, idx_BL))
    save_weights(output, Calibration(name, torch.cat(found).mean(dim=0).cpu()),
                 {"network": _BASE, "weights_sha256": sha256_kept(weights), "images": IMAGES, "seed": config.seed})


def calibrated(run_dir: Path, path: Path, name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor, float32 of this shape, of a file of `calibrate`.

    Raises:
        CheckpointError: a file that is missing, damaged, of another shape, or of other weights than the run's.
    """
    weights, found = run_dir / f"{_BASE}.safetensors", Calibration(name, torch.zeros(shape))
    if load_weights(path, found).get("weights_sha256") != sha256_kept(weights):
        raise CheckpointError(f"{path}: the calibration of other weights than {weights}; make the file again")
    return found.get_buffer(name)


def all_layers(model: VAR) -> DepthPlan:
    """The plan under which images are generated and measured."""
    return DepthPlan.full(model.spec.depth, model.pyramid.num_scales)
