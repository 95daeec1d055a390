"""Settings of DiT: the section `systems.dit` of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from varient.config import (
    Count,
    Decay,
    Depth,
    Epochs,
    ExperimentConfig,
    Optimizer,
    Positive,
    Real,
    Share,
    Strict,
    UserFile,
    Weight,
    Whole,
)

DOWNSAMPLING = 8
"""Pixels of the image for one position of Stable Diffusion's latent, along a side."""
LATENT_CHANNELS, PIXEL_CHANNELS = 4, 3
RELEASED_SIZES = ("s2", "b2", "l2", "xl2")
"""With patches of 2; other sizes are ours and stand for xl2."""
VAE_FILES = ("config.json", "diffusion_pytorch_model.safetensors")
"""What a local copy of stabilityai/sd-vae-ft-ema consists of."""
TABLE_STEPS = 50
"""Steps of DiT's row in the tables of CoDe and VARiant."""


class Shape(Strict):
    """Shape of the transformer; DiT-XL/2 is {depth: 28, hidden_size: 1152, num_heads: 16, patch_size: 2}."""

    depth: Depth
    hidden_size: Positive
    num_heads: Positive
    patch_size: Positive = 2

    @model_validator(mode="after")
    def _divides(self) -> Shape:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size = {self.hidden_size} is not divisible by num_heads = {self.num_heads}")
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size = {self.hidden_size} is not divisible by 4: positions are sines and cosines "
                             "of two coordinates")
        return self


class Training(Optimizer):
    """Training from scratch; the defaults are the authors'."""

    epochs: Annotated[Epochs, Field(ge=1)]
    weight_decay: Weight = 0.0
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    label_drop: Share = Field(0.1, description="share of images trained without their class, which guidance needs")
    ema_decay: Decay = Field(0.9999, description="of the averaged weights, which are the result; 0: none")


class Settings(Strict):
    """The section `systems.dit`."""

    size: Annotated[str, Field(pattern=r"^[a-z0-9]+$")] = Field(description="names the system: dit-<size>")
    model: Shape
    space: Literal["pixels", "latent"] = Field(description="what is denoised; latent is Stable Diffusion's")
    vae: UserFile | None = Field(None, description="latent: folder of stabilityai/sd-vae-ft-ema, as the authors "
                                                   "evaluate")
    weights: UserFile | None = Field(None, description="released .pt file")
    training: Training | None = None
    cfg: Real = Field(1.5, ge=1, description="guidance scale; 1 is none")
    guided_channels: Count = Field(3, description="channels of the noise that guidance changes; the authors' code "
                                                  "leaves out the fourth")
    steps: Annotated[Whole, Field(ge=2, le=1000)] = Field(TABLE_STEPS, description="of dit-<size>")

    @property
    def channels(self) -> int:
        """Of what is denoised."""
        return LATENT_CHANNELS if self.space == "latent" else PIXEL_CHANNELS

    @property
    def guided(self) -> int:
        """Channels of the noise that there are to guide; the network's further channels are the variance."""
        return min(self.guided_channels, self.channels)

    @model_validator(mode="after")
    def _fits(self) -> Settings:
        if (self.weights is None) == (self.training is None):
            raise ValueError("needs exactly one of 'weights' (a file) and 'training' (settings)")
        if (self.space == "latent") != (self.vae is not None):
            raise ValueError("'vae' (a folder) goes with space = latent, and only with it")
        if self.training and self.space == "latent":
            raise ValueError("training is for space = pixels only so far")
        return self


def latent_side(config: ExperimentConfig, settings: Settings) -> int:
    """Side of what is denoised, in positions.

    Raises:
        ValueError: an image that does not divide into positions and patches.
    """
    pixels = settings.model.patch_size * (DOWNSAMPLING if settings.space == "latent" else 1)
    if config.data.image_size % pixels:
        raise ValueError(f"systems.dit: images of {config.data.image_size} pixels do not divide into patches of "
                         f"{pixels}")
    return config.data.image_size // pixels * settings.model.patch_size
