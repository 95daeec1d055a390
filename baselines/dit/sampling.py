"""From labels to images: guided DDPM steps, noise of each image's own, and the decoder where there is one.

Shapes: B images, C channels, H x W positions (pixels, or of Stable Diffusion's latent), S x S pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open
from torch import Tensor, nn

from varient.baselines.dit.diffusion import Diffusion, Reverse
from varient.baselines.dit.network import DiT, build_network, initialize
from varient.baselines.dit.settings import DOWNSAMPLING, LATENT_CHANNELS, VAE_FILES, Settings, latent_side
from varient.config import CachePolicy, ExperimentConfig, Precision
from varient.models.checkpoint import CheckpointError, check_finite_tensors, check_kind, load_weights
from varient.models.file_kind import JSON, SAFETENSORS
from varient.sampling import check_finite, finite_sum
from varient.systems.pipeline import default_device, ready

LATENT_SCALE = 0.18215
"""Latents were multiplied by it for training."""

# The architecture of stabilityai/sd-vae-ft-ema and -mse, for measurements without files.
_SD_VAE = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": LATENT_CHANNELS,
           "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
_MOST_LAYERS = 8


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance: unconditional + scale (conditional - unconditional).

    Attributes:
        scale: 1 runs no unconditional rows.
        channels: how many of the C channels of the noise are guided, from the first; the authors guide three of four.
    """

    scale: float = 1.5
    channels: int = 3


def guided_prediction(network: Callable[[Tensor, Tensor, Tensor], Tensor], x_BCHW: Tensor, time: int, label_B: Tensor,
                      no_class: int, guidance: Guidance) -> Tensor:
    """Noise and variance (B, 2C, H, W); the channels that are not guided are those of the conditional pass."""
    B = len(x_BCHW)
    if guidance.scale == 1:
        return network(x_BCHW, torch.full_like(label_B, time), label_B)
    rows_R = torch.cat([label_B, torch.full_like(label_B, no_class)])
    conditional, unconditional = network(x_BCHW.repeat(2, 1, 1, 1), torch.full_like(rows_R, time), rows_R).split(B)
    head, tail = conditional[:, :guidance.channels], conditional[:, guidance.channels:]
    null = unconditional[:, :guidance.channels]
    return torch.cat([null + guidance.scale * (head - null), tail], dim=1)


@torch.no_grad()
def denoise(predict: Callable[[Tensor, int], Tensor], diffusion: Diffusion, x_BCHW: Tensor,
            noise: Callable[[], Tensor], on_step: Callable[[int, Tensor, Reverse], None] | None = None) -> Tensor:
    """Run all steps of the reverse process, from noise to images (B, C, H, W), without clipping.

    Args:
        predict: (x_t, time) -> noise and variance (B, 2C, H, W).
        noise: standard normal noise (B, C, H, W) for the next step; the last step takes none.
        on_step: sees (step, x after it, what was predicted).
    """
    for step in reversed(range(len(diffusion.time_T))):
        prediction = predict(x_BCHW, int(diffusion.time_T[step]))
        step_B = torch.full((len(x_BCHW),), step, device=x_BCHW.device)
        reverse = diffusion.reverse(prediction, x_BCHW, step_B)
        x_BCHW = reverse.mean_BCHW
        if step > 0:
            x_BCHW = x_BCHW + (0.5 * reverse.log_variance_BCHW).exp() * noise()
        if on_step:
            on_step(step, x_BCHW, reverse)
    return x_BCHW


class ImageNoise:
    """Standard normal noise (B, C, H, W), float32, call after call; a function of (seed, image index) alone."""

    def __init__(self, seed: int, indices: Sequence[int], shape: tuple[int, int, int],
                 device: torch.device | str) -> None:
        self.streams = [np.random.Generator(np.random.Philox(key=[seed, int(index)])) for index in indices]
        self.shape, self.device = shape, device

    def __call__(self) -> Tensor:
        drawn = [stream.standard_normal(self.shape, dtype=np.float32) for stream in self.streams]
        return torch.from_numpy(np.stack(drawn)).to(self.device)


@dataclass(frozen=True)
class DiTSampler:
    """The system with its networks in memory; see `varient.systems.protocol.Sampler`.

    Attributes:
        vae: decoder of the latents; None if the network generates pixels.
        decoded_at_once: number of images per pass through the decoder.
    """

    network: DiT
    vae: AutoencoderKL | None
    side: int
    steps: int
    guidance: Guidance
    decoded_at_once: int

    @property
    def networks(self) -> Sequence[nn.Module]:
        return [self.network] if self.vae is None else [self.network, self.vae]

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None,
                on_cache: Callable[[object], None] | None = None) -> Tensor:
        """x_0 (B, C, H, W), float32: pixels in [-1, 1] or scaled latents.  There is no cache to hand to ``on_cache``.

        Raises:
            ValueError: a label outside the classes, or a cache policy.
            NotFiniteError: latents that are not finite.
        """
        if cache_policy not in (None, "none"):
            raise ValueError(f"cache policy {cache_policy!r}: DiT keeps nothing between steps")
        num_classes = self.network.num_classes
        if not all(0 <= label < num_classes for label in labels):
            raise ValueError(f"labels must lie in 0..{num_classes - 1}")
        weight = self.network.network.proj_out_2.weight
        label_B = torch.as_tensor(labels, device=weight.device)
        noise = ImageNoise(seed, indices, (self.network.channels, self.side, self.side), weight.device)

        def predict(x_BCHW: Tensor, time: int) -> Tensor:
            # The state is float32 for any dtype of the weights, because each step changes it only a little.
            return guided_prediction(self.network, x_BCHW.to(weight.dtype), time, label_B, num_classes,
                                     self.guidance).float()

        x_BCHW = denoise(predict, Diffusion(self.steps, weight.device), noise(), noise)
        check_finite([finite_sum(x_BCHW)], self.network)  # non-finite values persist through all later steps
        return x_BCHW

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S), rounded as the authors do."""
        if self.vae is not None:
            parts = [self.vae.decode(part / LATENT_SCALE).sample for part in latents.split(self.decoded_at_once)]
            latents = torch.cat(parts)
        return (127.5 * latents + 128).clamp(0, 255).to(torch.uint8)


def load_sampler(config: ExperimentConfig, settings: Settings, steps: int, weights: Path | None,
                 precision: Precision) -> DiTSampler:
    """The system on the GPU where there is one; without ``weights`` they are random.

    Raises:
        CheckpointError: weights that are missing or do not fit.
    """
    if weights is None:
        with default_device(precision):
            network = build_network(config, settings)
            initialize(network)
            vae = _with_exact_norms(AutoencoderKL(**_SD_VAE)) if settings.space == "latent" else None
    else:
        network = build_network(config, settings)
        load_weights(weights, network)
        vae = load_vae(settings.vae) if settings.vae else None  # which a latent space has
    return DiTSampler(ready(network, precision), vae and ready(vae), latent_side(config, settings), steps,
                      Guidance(settings.cfg, settings.guided), config.sampling.decoded_at_once)


def load_vae(folder: Path) -> AutoencoderKL:
    """Stable Diffusion's decoder from a folder with config.json and diffusion_pytorch_model.safetensors.

    Nothing is downloaded.

    Raises:
        CheckpointError: no such folder, a damaged or partial file, another latent than DiT's, or values that are not
            finite.
    """
    for name in VAE_FILES:
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: no {name}; systems.dit.vae is a local copy of stabilityai/sd-vae-ft-ema")
    for name, kind in zip(VAE_FILES, (JSON, SAFETENSORS), strict=True):
        check_kind(folder / name, kind, form="VAE")
    try:
        _check_size(folder)
        vae, found = AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True,
                                                   low_cpu_mem_usage=False, output_loading_info=True)
    except CheckpointError:
        raise
    except Exception as error:  # a config of another network may raise any
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{folder}: not a readable VAE ({reason})") from None
    problems = [f"{kind} {found[kind][:6]}" for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
                if found[kind]]
    if problems:
        raise CheckpointError(f"{folder} does not fit AutoencoderKL: {'; '.join(problems)}")
    shape = (vae.config.latent_channels, 2 ** (len(vae.config.block_out_channels) - 1))
    if shape != (LATENT_CHANNELS, DOWNSAMPLING):
        raise CheckpointError(f"{folder}: a VAE of {shape[0]} channels at 1/{shape[1]} of the side, expected "
                              f"{LATENT_CHANNELS} at 1/{DOWNSAMPLING}")
    check_finite_tensors(vae.state_dict(), str(folder))
    return _with_exact_norms(vae)


def _check_size(folder: Path) -> None:
    """Check that the network of a config is no larger than the file of its weights, before memory is allocated for it.

    Raises:
        CheckpointError: it is.
    """
    config, weights = (folder / name for name in VAE_FILES)
    settings = json.loads(config.read_text("utf-8"))
    if settings.get("layers_per_block", 1) > _MOST_LAYERS or len(settings.get("block_out_channels", ())) > _MOST_LAYERS:
        raise CheckpointError(f"{config}: has more than {_MOST_LAYERS} blocks or layers in a block")
    with torch.device("meta"):
        network = AutoencoderKL.from_config(settings)
    needed = sum(tensor.numel() for tensor in network.state_dict().values())
    with safe_open(weights, framework="pt") as file:
        found = sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (it is no dict)
    if needed > found:
        raise CheckpointError(f"{folder} does not fit: {config.name} describes a network of {needed:,} numbers, "
                              f"{weights.name} holds {found:,}")


def _with_exact_norms(vae: AutoencoderKL) -> AutoencoderKL:
    """Make the VAE's norms convert inputs to torch's default layout.

    diffusers' attention returns channels-last tensors, for which GroupNorm is inaccurate (see
    `varient.models.vqvae.EntryConv`).
    """
    for module in vae.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(_in_default_layout)
    return vae


def _in_default_layout(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in inputs)
