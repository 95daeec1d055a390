"""VAR with a depth plan and its networks in memory: labels -> latents -> images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from varient.config import CachePolicy, ExperimentConfig, Precision
from varient.devices import VARIABLE, leave_gpus, wanted_device
from varient.models.acceleration import Acceleration
from varient.models.build import build_tokenizer, build_transformer, load_tokenizer, load_transformer
from varient.models.float32 import keep_float32
from varient.models.graphs import Replays
from varient.models.transformer import VAR, initialize
from varient.models.vqvae import VQVAE, to_uint8
from varient.plan import DepthPlan
from varient.sampling import Generated, Guidance, SampledReadout, image_uniforms, run_scales, sample_latents
from varient.systems.protocol import CountedCache

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Dtypes of the transformer's weights."""

_NO_GPU = (f"torch {torch.__version__} is built for CUDA {torch.version.cuda} and needs a driver that supports it"
           if torch.version.cuda else f"torch {torch.__version__} is built without CUDA")


def default_device(precision: Precision = "fp32") -> torch.device:
    """The device in VARIENT_DEVICE; if it is not set, the first GPU that torch sees, or else the CPU.

    Args:
        precision: precision of the computation.  16-bit precision is slow on a CPU, so it must be requested explicitly
            with VARIENT_DEVICE=cpu.

    Raises:
        ValueError: a GPU is requested and torch sees none, or 16-bit precision without a GPU was not requested.
    """
    wanted, sees_gpu = wanted_device(), torch.cuda.is_available()
    if wanted == "cuda" and not sees_gpu:
        raise ValueError(f"{VARIABLE} = cuda, but torch sees no GPU here ({_NO_GPU})")
    if wanted == "auto" and not sees_gpu and precision != "fp32":
        raise ValueError(f"{precision} needs a GPU, and torch sees none here ({_NO_GPU}); set {VARIABLE}=cpu to run it "
                         "on the CPU anyway")
    if wanted == "cpu" or not sees_gpu:
        leave_gpus()  # other processes may be waiting for them
        return torch.device("cpu")
    keep_float32()
    return torch.device("cuda", 0)


def named_device(device: torch.device) -> str:
    """A device for messages."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "the CPU"


@dataclass(frozen=True)
class Pipeline:
    """Sampler of VAR: tokenizer, transformer, depth plan and guidance (`varient.systems.protocol.Sampler`).

    Attributes:
        replays: where generations are kept as CUDA graphs; None: kernels are launched one by one.
        acceleration: names of the switches that the networks were prepared with.
    """

    model: VAR
    tokenizer: VQVAE
    plan: DepthPlan
    guidance: Guidance
    decoded_at_once: int
    replays: Replays | None = None
    acceleration: tuple[str, ...] = ()

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """Transformer and tokenizer."""
        return self.model, self.tokenizer

    @property
    def told_scales(self) -> Sequence[int]:
        """The scales of the plan (`varient.systems.protocol.ScaleSampler`)."""
        return () if self.replays is not None else range(1, self.plan.num_scales + 1)

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None,
                on_cache: Callable[[CountedCache], None] | None = None,
                on_scale: Callable[[int], None] | None = None) -> Tensor:
        """f_hat (B, C, H, W), float32.

        A generation that is watched is never replayed: in a replay no Python runs.
        """
        policy = cache_policy or "lean"

        def run(label_B: Tensor, uniform_BL: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            generated, sums = self._generated(label_B, uniform_BL, policy, on_cache, on_scale)
            return generated.f_hat_BCHW, sums

        return sample_latents(run, self.model, torch.as_tensor(labels),
                              image_uniforms(seed, indices, self.model.pyramid.length),
                              None if on_cache or on_scale else self.replays, (self.plan, self.guidance, policy))

    def tokens(self, labels: Sequence[int], indices: Sequence[int], seed: int) -> Tensor:
        """The tokens (B, L), int64, of the same images."""
        def run(label_B: Tensor, uniform_BL: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            generated, sums = self._generated(label_B, uniform_BL, "lean")
            return generated.idx_BL, sums

        return sample_latents(run, self.model, torch.as_tensor(labels),
                              image_uniforms(seed, indices, self.model.pyramid.length))

    def _generated(self, label_B: Tensor, uniform_BL: Tensor, policy: CachePolicy,
                   on_cache: Callable[[CountedCache], None] | None = None,
                   on_scale: Callable[[int], None] | None = None) -> tuple[Generated, Sequence[Tensor]]:
        quantizer = self.tokenizer.quantize
        return run_scales(self.model, quantizer, label_B, self.plan, self.guidance,
                          SampledReadout(quantizer, uniform_BL, on_scale), cache_policy=policy, on_cache=on_cache)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents f_hat (B, C, H, W) to uint8 images (B, 3, S, S)."""
        return decode_f_hat(self.tokenizer, latents, self.decoded_at_once, self.model.pos_1LC.dtype)


@torch.no_grad()
def decode_f_hat(tokenizer: VQVAE, f_hat_BCHW: Tensor, at_once: int, dtype: torch.dtype) -> Tensor:
    """Decode latents (B, C, H, W) to uint8 images (B, 3, S, S), ``at_once`` at a time to limit peak memory.

    With a 16-bit ``dtype`` the decoder runs under autocast, as in all public samplers of VAR, unless its own weights
    have 16 bits (VARIENT_DECODER_HALF).
    """
    own = tokenizer.post_quant_conv.weight.dtype
    with torch.autocast(f_hat_BCHW.device.type, dtype, enabled=dtype != own):
        return torch.cat([to_uint8(tokenizer.decode_latent(part.to(own)).float())
                          for part in f_hat_BCHW.split(at_once)])


def load_pipeline(config: ExperimentConfig, tokenizer: Path, weights: Path, plan: DepthPlan,
                  precision: Precision = "fp32") -> Pipeline:
    """Load tokenizer and transformer, on the device of this process; ``precision`` is the transformer's."""
    return _pipeline(config, load_tokenizer(config, tokenizer), load_transformer(config, weights), plan, precision)


def random_pipeline(config: ExperimentConfig, plan: DepthPlan, precision: Precision = "fp32") -> Pipeline:
    """The experiment's networks with random weights, for measurements that do not depend on the values."""
    with default_device(precision):  # a CPU takes half a minute to draw two billion weights
        model = build_transformer(config)
        initialize(model, gamma=1.0)
        tokenizer = build_tokenizer(config)
    return _pipeline(config, tokenizer, model, plan, precision)


def _pipeline(config: ExperimentConfig, tokenizer: VQVAE, model: VAR, plan: DepthPlan,
              precision: Precision) -> Pipeline:
    sampling, acceleration = config.sampling, Acceleration.wanted()
    model, tokenizer = ready(model, precision), ready(tokenizer)
    acceleration.apply((model,), tokenizer)
    return Pipeline(model, tokenizer, plan, Guidance(sampling.cfg, sampling.top_k, sampling.top_p),
                    sampling.decoded_at_once, acceleration.replays(model.pos_1LC.device), acceleration.names)


def ready(network: nn.Module, precision: Precision = "fp32") -> nn.Module:
    """A network frozen, in the given precision, on the device of this process (`default_device`)."""
    return network.eval().requires_grad_(False).to(default_device(precision), DTYPES[precision])
