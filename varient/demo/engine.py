"""One network in memory, and the images that it draws under any plan.

A plan is an argument of a generation and no part of the network, so that another plan neither loads nor copies a
weight.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from varient.config import CachePolicy, ExperimentConfig
from varient.models.kv_cache import KVCache
from varient.plan import DepthPlan
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms
from varient.systems.ids import VarId
from varient.systems.names import SupernetId
from varient.systems.pipeline import Pipeline, decode_f_hat, load_pipeline


@dataclass(frozen=True)
class Drawn:
    """A batch of images under one plan.

    Attributes:
        images_B3SS: uint8.
        tokens_BL: int64, from which `Engine.grow` takes the picture after each scale.
        kv_live_bytes: live entries of the KV cache after each scale, counted by the cache.
        kv_peak_bytes: largest number of them at any time.
        seconds: from the classes to the images, the image decoder included.
    """

    images_B3SS: np.ndarray
    tokens_BL: Tensor
    kv_live_bytes: tuple[int, ...]
    kv_peak_bytes: int
    seconds: float


class Engine:
    """Draws images with one network under any of its plans.

    Attributes:
        config: the experiment of the network.
        name: of the file of its weights.
    """

    def __init__(self, config: ExperimentConfig, pipeline: Pipeline, name: str) -> None:
        self.config, self.name = config, name
        self._pipeline = pipeline

    @classmethod
    def load(cls, config: ExperimentConfig, tokenizer: Path, weights: Path) -> Engine:
        """Load tokenizer and transformer, on the device of this process.

        Raises:
            CheckpointError: weights that are missing or of another shape.
        """
        pipeline = load_pipeline(config, tokenizer, weights, config.plan(), config.sampling.precision)
        return cls(config, pipeline, weights.stem)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Transformer and tokenizer."""
        return self._pipeline.networks

    @property
    def trained_depth(self) -> int | None:
        """d of the one subnet that the network was trained with; None for the base or a supernet of all depths."""
        supernet = SupernetId.parse(self.name)
        return supernet.depth if supernet else None

    def plan(self, system: VarId) -> DepthPlan:
        """The layers that run at each scale under an id, whatever weights it names.

        Raises:
            ValueError: depth, bridge or window do not fit the network.
        """
        config = self.config
        plan = system.plan(config.transformer.depth, config.pyramid.num_scales, config.supernet.bridge,
                           config.subnet_layers, config.supernet.depths)
        heads = config.transformer.num_heads
        plan.kv.check_heads(heads, config.transformer.embed_dim // heads)
        return plan

    def draw(self, system: VarId, labels: Sequence[int], indices: Sequence[int], seed: int, *,
             guidance: Guidance | None = None, policy: CachePolicy = "lean") -> Drawn:
        """Images of the given classes; each depends on its (seed, index), its class, plan and guidance alone.

        Args:
            guidance: None: the experiment's.

        Raises:
            ValueError: as `plan`; a class that the network does not have; a cache that cannot keep what the plan wants.
            NotFiniteError: the network computes NaN or infinity.
        """
        model, tokenizer = self._pipeline.model, self._pipeline.tokenizer
        caches: list[KVCache] = []
        live: list[int] = []
        begin = time.perf_counter()
        generated = generate(
            model, tokenizer.quantize, torch.as_tensor(labels), self.plan(system), guidance or self._pipeline.guidance,
            SampledReadout(tokenizer.quantize, image_uniforms(seed, indices, model.pyramid.length)),
            cache_policy=policy, on_cache=caches.append,
            on_logits=lambda _k, _logits: live.append(caches[0].live_bytes))
        images = self._decode(generated.f_hat_BCHW)  # on the host, so the device is done
        seconds = time.perf_counter() - begin
        return Drawn(images, generated.idx_BL, tuple(live), caches[0].peak_bytes, seconds)

    def grow(self, tokens_BL: Tensor) -> np.ndarray:
        """The pictures of the scales r_1..r_k alone for each k, uint8 (K, B, 3, S, S); the last are the images."""
        steps = self._pipeline.tokenizer.quantize.f_hats(tokens_BL)
        return np.stack([self._decode(f_hat_BCHW) for f_hat_BCHW in steps])

    def parameters(self, system: VarId) -> tuple[int, ...]:
        """Number of parameters of the transformer that run at each scale; embeddings and head run at all."""
        model = self._pipeline.model
        of_block = [sum(parameter.numel() for parameter in block.parameters()) for block in model.blocks]
        rest = sum(parameter.numel() for parameter in model.parameters()) - sum(of_block)
        return tuple(rest + sum(of_block[layer] for layer in layers) for layers in self.plan(system).layers_per_scale)

    def _decode(self, f_hat_BCHW: Tensor) -> np.ndarray:
        pipeline = self._pipeline
        images_B3SS = decode_f_hat(pipeline.tokenizer, f_hat_BCHW, pipeline.decoded_at_once,
                                   pipeline.model.pos_1LC.dtype)
        return images_B3SS.cpu().numpy()
