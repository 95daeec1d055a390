"""LlamaGen's image tokenizer: taming-transformers' encoder and decoder around one codebook of unit vectors.

Shapes: B images of 3 x S x S in [-1, 1], latent B x c x s x s with c = codebook_dim and s = S / 2^(levels-1), tokens
B x L with L = s^2, row by row, V codes.  Encoder and decoder are those of VAR's tokenizer.  Follows
FoundationVision/LlamaGen at ce98ec4, tokenizer/tokenizer_image/vq_model.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varient.baselines.llamagen.settings import TokenizerShape
from varient.models.vqvae import Decoder, Encoder, EntryConv


class Tokenizer(nn.Module):
    """Images <-> a grid of tokens."""

    no_weight_decay = ("quantize.embedding",)

    def __init__(self, shape: TokenizerShape) -> None:
        super().__init__()
        spec = shape.convolutions
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        self.quant_conv = nn.Conv2d(shape.z_channels, shape.codebook_dim, kernel_size=1)
        self.post_quant_conv = EntryConv(shape.codebook_dim, shape.z_channels, kernel_size=1)
        self.quantize = Codebook(shape)

    def encode_latent(self, image_B3SS: Tensor) -> Tensor:
        """Image in [-1, 1] -> latent before quantization (B, c, s, s), of any length."""
        return self.quant_conv(self.encoder(image_B3SS))

    def encode(self, image_B3SS: Tensor) -> Tensor:
        """Image in [-1, 1] -> tokens (B, L), int64."""
        return self.quantize.nearest(self.encode_latent(image_B3SS))

    def decode(self, idx_BL: Tensor) -> Tensor:
        """Tokens (B, L) of a square grid -> image (B, 3, S, S), around [-1, 1] but not clamped."""
        return self.decoder(self.post_quant_conv(self.quantize.lookup(idx_BL)))

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Training pass: reconstruction with straight-through gradient, and the codebook + commitment loss."""
        code_Bcss, loss = self.quantize(self.encode_latent(image_B3SS))
        return self.decoder(self.post_quant_conv(code_Bcss)), loss


class Codebook(nn.Module):
    """V codes; both they and the latents are compared, and used, at length 1."""

    def __init__(self, shape: TokenizerShape) -> None:
        super().__init__()
        self.commitment = shape.commitment
        self.embedding = nn.Embedding(shape.codebook_size, shape.codebook_dim)
        nn.init.normal_(self.embedding.weight)  # their length does not matter: directions are uniform

    @property
    def codes(self) -> Tensor:
        """The codes at length 1 (V, c)."""
        return F.normalize(self.embedding.weight, dim=-1)

    def nearest(self, z_Bcss: Tensor) -> Tensor:
        """Tokens (B, L) of a latent: for vectors of length 1 the nearest is the one with the largest product."""
        return (F.normalize(z_Bcss, dim=1).flatten(2).transpose(1, 2) @ self.codes.T).argmax(dim=-1)

    def lookup(self, idx_BL: Tensor) -> Tensor:
        """Codes of a square grid of tokens as a latent (B, c, s, s).

        Raises:
            ValueError: tokens that fill no square.
        """
        side = round(idx_BL.shape[1] ** 0.5)
        if side ** 2 != idx_BL.shape[1]:
            raise ValueError(f"{idx_BL.shape[1]} tokens fill no square")
        return F.embedding(idx_BL, self.codes).transpose(1, 2).unflatten(2, (side, side))

    def forward(self, z_Bcss: Tensor) -> tuple[Tensor, Tensor]:
        """Codes with straight-through gradient, and mse(code, stop(z)) + beta mse(stop(code), z) at length 1."""
        z_Bcss = F.normalize(z_Bcss, dim=1)
        code_Bcss = self.lookup(self.nearest(z_Bcss))
        loss = F.mse_loss(code_Bcss, z_Bcss.detach()) + self.commitment * F.mse_loss(code_Bcss.detach(), z_Bcss)
        return z_Bcss + (code_Bcss - z_Bcss).detach(), loss


def to_uint8(image_B3SS: Tensor, size: int) -> Tensor:
    """Decoded images -> uint8 (B, 3, size, size), as sample_c2i_ddp.py does: resized first, then clamped and truncated.

    The resizing is bicubic without antialiasing, on floats around [-1, 1]; another one moves FID.
    """
    if image_B3SS.shape[-1] != size:
        image_B3SS = F.interpolate(image_B3SS, size=(size, size), mode="bicubic")
    return (127.5 * image_B3SS + 128).clamp(0, 255).to(torch.uint8)
