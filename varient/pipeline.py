"""VAR under a plan, with its networks in memory: labels -> latents -> images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from varient.config import CachePolicy, ExperimentConfig, Precision
from varient.models.build import build_tokenizer, build_transformer, load_tokenizer, load_transformer
from varient.models.transformer import VAR, initialize
from varient.models.vqvae import VQVAE, to_uint8
from varient.plan import DepthPlan
from varient.sampling import DrawTokens, Guidance, generate, image_uniforms
from varient.systems import CountedCache

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Dtypes that the transformer's weights may be held in."""


def default_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


@dataclass(frozen=True)
class Pipeline:
    """What turns labels into images."""

    model: VAR
    tokenizer: VQVAE
    plan: DepthPlan
    guidance: Guidance
    decoded_at_once: int

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Transformer and tokenizer."""
        return self.model, self.tokenizer

    def under(self, plan: DepthPlan) -> Pipeline:
        """The same networks under another plan; nothing is copied."""
        return replace(self, plan=plan)

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None,
                on_cache: Callable[[CountedCache], None] | None = None) -> Tensor:
        """f_hat (B, C, H, W), float32."""
        readout = DrawTokens(self.tokenizer.quantize, image_uniforms(seed, indices, self.model.pyramid.length))
        return generate(self.model, self.tokenizer.quantize, torch.as_tensor(labels), self.plan, self.guidance, readout,
                        cache_policy=cache_policy or "lean", on_cache=on_cache).f_hat_BCHW

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S) of f_hat."""
        return decode_f_hat(self.tokenizer, latents, self.decoded_at_once, self.model.pos_1LC.dtype)


@torch.no_grad()
def decode_f_hat(tokenizer: VQVAE, f_hat_BCHW: Tensor, at_once: int, dtype: torch.dtype) -> Tensor:
    """uint8 images (B, 3, S, S) of latents, a few at a time: a whole batch would set the peak of memory.

    With a 16-bit ``dtype`` the decoder runs under autocast, as in every public sampler of VAR.
    """
    with torch.autocast(f_hat_BCHW.device.type, dtype, enabled=dtype != torch.float32):
        return torch.cat([to_uint8(tokenizer.decode_latent(part).float()) for part in f_hat_BCHW.split(at_once)])


def load_pipeline(config: ExperimentConfig, tokenizer: Path, weights: Path, plan: DepthPlan,
                  precision: Precision = "fp32") -> Pipeline:
    """Load tokenizer and transformer, on the GPU where there is one; ``precision`` is that of the transformer."""
    return _pipeline(config, load_tokenizer(config, tokenizer), load_transformer(config, weights), plan, precision)


def random_pipeline(config: ExperimentConfig, plan: DepthPlan, precision: Precision = "fp32") -> Pipeline:
    """The experiment's networks with random weights: what they cost does not depend on the values."""
    model = build_transformer(config)
    initialize(model, gamma=1.0)
    return _pipeline(config, build_tokenizer(config), model, plan, precision)


def _pipeline(config: ExperimentConfig, tokenizer: VQVAE, model: VAR, plan: DepthPlan,
              precision: Precision) -> Pipeline:
    sampling = config.sampling
    return Pipeline(ready(model, precision), ready(tokenizer), plan,
                    Guidance(sampling.cfg, sampling.top_k, sampling.top_p), sampling.decoded_at_once)


def ready(network: nn.Module, precision: Precision = "fp32") -> nn.Module:
    """A network frozen, in the given precision, on the GPU where there is one."""
    return network.eval().requires_grad_(False).to(default_device(), DTYPES[precision])
