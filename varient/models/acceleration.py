"""Ways to compute the same faster on a GPU, each behind a switch that is off by default (docs/cuda.md#switches).

VAR, its subnets and CoDe have them; DiT and LlamaGen do not.  The switches are environment variables and no settings of
an experiment, because they say how to compute and not what: an experiment keeps its identity, and no result is out of
date, as with the device.  Records and samples name those that were on.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from varient.models.graphs import Replays
from varient.models.transformer import VAR
from varient.models.vqvae import VQVAE
from varient.settings import read_settings


@dataclass(frozen=True)
class Acceleration:
    """The switches; each is the VARIENT_ variable of its name.

    Attributes:
        graphs: the generation of a batch is one CUDA graph for each plan and batch size.
        compile: torch.compile of the transformers' blocks.
        decoder_channels_last: memory layout of the weights of the image decoder, and so of its activations.
        decoder_half: the image decoder computes in the transformer's 16-bit precision throughout, without autocast.
    """

    graphs: bool = False
    compile: bool = False
    decoder_channels_last: bool = False
    decoder_half: bool = False

    @classmethod
    def wanted(cls) -> Acceleration:
        """What this process's environment asks for.

        Raises:
            ConfigError: as `varient.settings.read_settings`.
        """
        said = read_settings()
        return cls(**{field.name: getattr(said, field.name) == "1" for field in fields(cls)})

    @property
    def names(self) -> tuple[str, ...]:
        """The switches that are on."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    def replays(self, device: torch.device) -> Replays | None:
        """Where graphs are kept; None without them."""
        return Replays(device) if self.graphs else None

    def apply(self, models: tuple[VAR, ...], tokenizer: VQVAE) -> None:
        """Prepare networks in their final precision and place.

        Raises:
            ValueError: a decoder in 16 bits beside transformers in float32.
        """
        dtype = models[0].pos_1LC.dtype
        if self.decoder_half and dtype == torch.float32:
            raise ValueError("VARIENT_DECODER_HALF = 1: the image decoder takes the transformer's precision, which is "
                             "fp32 here; use it with fp16 or bf16")
        if self.compile:
            for model in models:
                for block in model.blocks:
                    block.compile_parts()
        if self.decoder_channels_last:
            tokenizer.decoder.to(memory_format=torch.channels_last)
        if self.decoder_half:
            for part in (tokenizer.post_quant_conv, tokenizer.decoder):
                part.to(dtype)
