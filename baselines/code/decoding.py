"""Collaborative decoding with CoDe's two networks, and its sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from varient.config import CachePolicy, Precision
from varient.models.acceleration import Acceleration
from varient.models.build import build_tokenizer, build_transformer
from varient.models.checkpoint import load_weights
from varient.models.graphs import Replays
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR, initialize
from varient.models.vqvae import VQVAE
from varient.plan import DepthPlan
from varient.sampling import (
    Generated,
    Guidance,
    Readout,
    SampledReadout,
    check_finite,
    check_labels,
    image_uniforms,
    run_scales,
    sample_latents,
)
from varient.systems.pipeline import decode_f_hat, default_device, ready
from varient.systems.protocol import CountedCache

if TYPE_CHECKING:
    from varient.baselines.code import CodeSystem


@dataclass(frozen=True)
class Collaboration:
    """Result of a collaborative decoding.

    Attributes:
        drafted: tokens and latent of the scales 1..N, with the drafter's cache counts.
        refined: tokens and latent of all scales, with the refiner's.
    """

    drafted: Generated
    refined: Generated

    @property
    def kv_peak_bytes(self) -> int:
        """Peak bytes of the KV caches; the drafter's cache is freed before the refiner starts."""
        return max(self.drafted.cache.peak_bytes, self.refined.cache.peak_bytes)


def collaborate(drafter: VAR, refiner: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, drafted_scales: int,
                readout: Readout, *, guidance: Guidance, cache_policy: CachePolicy = "lean",
                on_logits: Callable[[int, Tensor], None] | None = None,
                on_cache: Callable[[CountedCache], None] | None = None) -> Collaboration:
    """Generate a batch with N drafted scales; the refiner's first pass processes N + 1 scales.

    Unlike in the authors' code, the refiner does not sample and discard tokens of the drafted scales.  That would only
    keep a shared random stream in step, while here each token has its own uniform number.

    Args:
        label_B: classes, int64, on the CPU.
        drafted_scales: N, 1..K-1.
        readout: samples the tokens of both networks.
        on_cache: is handed the drafter's cache and then the refiner's.

    Raises:
        ValueError: N outside 1..K-1, networks for different scales, or a label outside the classes.
        NotFiniteError: logits that are not finite.
    """
    check_labels(label_B, drafter)
    found, sums = run_collaboration(drafter, refiner, quantizer, label_B.to(drafter.pos_1LC.device), drafted_scales,
                                    readout, guidance=guidance, cache_policy=cache_policy, on_logits=on_logits,
                                    on_cache=on_cache)
    check_finite(sums, drafter)
    return found


def run_collaboration(drafter: VAR, refiner: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, drafted_scales: int,
                      readout: Readout, *, guidance: Guidance, cache_policy: CachePolicy = "lean",
                      on_logits: Callable[[int, Tensor], None] | None = None,
                      on_cache: Callable[[CountedCache], None] | None = None
                      ) -> tuple[Collaboration, Sequence[Tensor]]:
    """The part of `collaborate` in which the host neither waits for the device nor reads a value, as `run_scales`.

    Args:
        label_B: on the device of the networks, not checked; otherwise as `collaborate`.

    Raises:
        ValueError: as `collaborate`, labels left out.
    """
    num_scales = drafter.pyramid.num_scales
    if refiner.pyramid != drafter.pyramid:
        raise ValueError("drafter and refiner are for different scales")
    if not 1 <= drafted_scales < num_scales:
        raise ValueError(f"the drafter takes 1..{num_scales - 1} scales, not {drafted_scales}")
    drafted, sums = run_scales(drafter, quantizer, label_B, DepthPlan.full(drafter.spec.depth, drafted_scales),
                               guidance, readout, cache_policy=cache_policy, on_logits=on_logits, on_cache=on_cache)
    refined, more = run_scales(refiner, quantizer, label_B, DepthPlan.full(refiner.spec.depth, num_scales), guidance,
                               readout, cache_policy=cache_policy, drafted_BL=drafted.idx_BL, on_logits=on_logits,
                               on_cache=on_cache)
    return Collaboration(drafted, refined), [*sums, *more]


@dataclass(frozen=True)
class CodeSampler:
    """Drafter, refiner and the tokenizer they share; attributes as those of `varient.systems.pipeline.Pipeline`."""

    drafter: VAR
    refiner: VAR
    tokenizer: VQVAE
    drafted_scales: int
    guidance: Guidance
    decoded_at_once: int
    replays: Replays | None = None
    acceleration: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Both transformers and the tokenizer."""
        return self.drafter, self.refiner, self.tokenizer

    @property
    def told_scales(self) -> Sequence[int]:
        """The drafter's scales and then the refiner's."""
        return () if self.replays is not None else self.drafter.pyramid.scales

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None,
                on_cache: Callable[[CountedCache], None] | None = None,
                on_scale: Callable[[int], None] | None = None) -> Tensor:
        """f_hat (B, C, H, W), float32."""
        policy, quantizer = cache_policy or "lean", self.tokenizer.quantize

        def run(label_B: Tensor, uniform_BL: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            found, sums = run_collaboration(self.drafter, self.refiner, quantizer, label_B, self.drafted_scales,
                                            SampledReadout(quantizer, uniform_BL, on_scale), guidance=self.guidance,
                                            cache_policy=policy, on_cache=on_cache)
            return found.refined.f_hat_BCHW, sums

        return sample_latents(run, self.drafter, torch.as_tensor(labels),
                              image_uniforms(seed, indices, self.drafter.pyramid.length),
                              None if on_cache or on_scale else self.replays,
                              (self.drafted_scales, self.guidance, policy))

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S) of f_hat."""
        return decode_f_hat(self.tokenizer, latents, self.decoded_at_once, self.drafter.pos_1LC.dtype)


def load_sampler(system: CodeSystem, run_dir: Path | None, precision: Precision) -> CodeSampler:
    """The networks of a system; random ones where there is no run folder."""
    config, settings = system.config, system.settings
    with default_device(precision) if run_dir is None else nullcontext():
        models = [build_tokenizer(config), build_transformer(config), build_transformer(config, settings.refiner)]
    for name, model in zip(system.weights, models, strict=True):
        if run_dir is not None:
            load_weights(run_dir / f"{name}.safetensors", model)
        elif isinstance(model, VAR):
            initialize(model, gamma=1.0)
    tokenizer, drafter, refiner = ready(models[0]), *(ready(model, precision) for model in models[1:])
    acceleration = Acceleration.wanted()
    acceleration.apply((drafter, refiner), tokenizer)
    return CodeSampler(drafter, refiner, tokenizer, system.drafted,
                       Guidance(settings.cfg, settings.top_k, settings.top_p, settings.temperatures),
                       config.sampling.decoded_at_once, acceleration.replays(drafter.pos_1LC.device),
                       acceleration.names)
