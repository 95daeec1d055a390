"""VAR's image tokenizer: convolutional encoder and decoder around the multi-scale quantizer.

Shapes: B images of 3 x S x S, latent B x C x H x W with H = S / 2^(levels-1).  Images are float32 in [-1, 1].
Follows VAR (FoundationVision/VAR at 78b9539, models/basic_vae.py, a taming-transformers VQGAN); parameter names are
those of the released vae_ch160v4096z32.pth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varient.config import TokenizerSpec
from varient.models.quantizer import MultiScaleQuantizer
from varient.pyramid import Pyramid


class VQVAE(nn.Module):
    """Images <-> multi-scale tokens."""

    no_weight_decay = ("quantize.embedding",)

    def __init__(self, spec: TokenizerSpec, pyramid: Pyramid) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        self.quant_conv = nn.Conv2d(spec.z_channels, spec.z_channels, kernel_size=3, padding=1)
        self.post_quant_conv = EntryConv(spec.z_channels, spec.z_channels, kernel_size=3, padding=1)
        self.quantize = MultiScaleQuantizer(spec, pyramid)

    @property
    def pyramid(self) -> Pyramid:
        """The scales of the token maps."""
        return self.quantize.pyramid

    def encode_latent(self, image_B3SS: Tensor) -> Tensor:
        """Image in [-1, 1] -> latent before quantization (B, C, H, W)."""
        return self.quant_conv(self.encoder(image_B3SS))

    def encode(self, image_B3SS: Tensor) -> Tensor:
        """Image in [-1, 1] -> tokens (B, L), int64."""
        return self.quantize.encode(self.encode_latent(image_B3SS))

    def decode_latent(self, f_hat_BCHW: Tensor) -> Tensor:
        """Quantized latent -> image (B, 3, S, S), clamped to [-1, 1]."""
        return self.decoder(self.post_quant_conv(f_hat_BCHW)).clamp(-1, 1)

    def decode(self, idx_BL: Tensor) -> Tensor:
        """Tokens (B, L) -> image (B, 3, S, S), clamped to [-1, 1]."""
        return self.decode_latent(self.quantize.f_hats(idx_BL)[-1])

    def forward(self, image_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Training pass: reconstruction (not clamped) with straight-through gradient, and the quantizer's loss."""
        f_hat_BCHW, loss = self.quantize(self.encode_latent(image_B3SS))
        return self.decoder(self.post_quant_conv(f_hat_BCHW)), loss


def to_uint8(image: Tensor) -> Tensor:
    """Image in [-1, 1] -> uint8 by truncating 255 (x + 1) / 2, as VAR's own sampling notebook does."""
    return ((image + 1) * 0.5).mul(255).to(torch.uint8)


def from_uint8(image: Tensor) -> Tensor:
    """uint8 image -> float32 in [-1, 1]."""
    return image.float().div(127.5).sub(1)


class EntryConv(nn.Conv2d):
    """First convolution of encoder or decoder, which converts its input to torch's default memory layout.

    Images stacked from files and latents looked up in a codebook are channels-last, and layers keep that layout.  In
    it, torch's GroupNorm on a CPU is inaccurate: at mean / std = 30 its error is 1e-3 to 2e-2 instead of 3e-6.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.contiguous())


class Encoder(nn.Module):
    """Image (B, 3, S, S) -> features (B, z_channels, H, W), halving the side between levels."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        self.conv_in = EntryConv(spec.in_channels, spec.ch, kernel_size=3, padding=1)
        self.down = nn.ModuleList()
        last = len(spec.ch_mult) - 1
        width = spec.ch
        for level, mult in enumerate(spec.ch_mult):
            blocks = Level(spec, width, spec.ch * mult, spec.num_res_blocks, attention=level == last and spec.using_sa)
            width = spec.ch * mult
            if level != last:
                blocks.downsample = Downsample(width)
            self.down.append(blocks)
        self.mid = Middle(spec, width)
        self.norm_out = _norm(spec, width)
        self.conv_out = nn.Conv2d(width, spec.z_channels, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        return self.conv_out(F.silu(self.norm_out(self.mid(h))))


class Decoder(nn.Module):
    """Latent (B, z_channels, H, W) -> image (B, 3, S, S), not clamped."""

    def __init__(self, spec: TokenizerSpec) -> None:
        super().__init__()
        last = len(spec.ch_mult) - 1
        width = spec.ch * spec.ch_mult[-1]
        self.conv_in = nn.Conv2d(spec.z_channels, width, kernel_size=3, padding=1)
        self.mid = Middle(spec, width)
        levels = []
        for level, mult in reversed(list(enumerate(spec.ch_mult))):
            blocks = Level(spec, width, spec.ch * mult, spec.num_res_blocks + 1,
                           attention=level == last and spec.using_sa)
            width = spec.ch * mult
            if level != 0:
                blocks.upsample = Upsample(width)
            levels.append(blocks)
        self.up = nn.ModuleList(reversed(levels))  # released names count levels from the image side
        self.norm_out = _norm(spec, width)
        self.conv_out = nn.Conv2d(width, spec.in_channels, kernel_size=3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention at the lowest resolution."""

    def __init__(self, spec: TokenizerSpec, width_in: int, width: int, num_blocks: int, *, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(spec, width if j else width_in, width) for j in range(num_blocks))
        self.attn = nn.ModuleList(AttnBlock(spec, width) for _ in range(num_blocks if attention else 0))

    def forward(self, h: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            h = block(h)
            if len(self.attn):
                h = self.attn[j](h)
        return h


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, spec: TokenizerSpec, width: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(spec, width, width)
        self.attn_1 = AttnBlock(spec, width) if spec.using_mid_sa else nn.Identity()
        self.block_2 = ResnetBlock(spec, width, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(h)))


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 shortcut where the width changes."""

    def __init__(self, spec: TokenizerSpec, width_in: int, width: int) -> None:
        super().__init__()
        self.norm1 = _norm(spec, width_in)
        self.conv1 = nn.Conv2d(width_in, width, kernel_size=3, padding=1)
        self.norm2 = _norm(spec, width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.nin_shortcut = nn.Conv2d(width_in, width, kernel_size=1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class AttnBlock(nn.Module):
    """Single-head self-attention over the positions of a feature map, with residual."""

    def __init__(self, spec: TokenizerSpec, width: int) -> None:
        super().__init__()
        self.norm = _norm(spec, width)
        self.qkv = nn.Conv2d(width, 3 * width, kernel_size=1)
        self.proj_out = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        q_BlC, k_BlC, v_BlC = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        out_BlC = F.scaled_dot_product_attention(q_BlC, k_BlC, v_BlC)
        return x + self.proj_out(out_BlC.transpose(1, 2).view_as(x))


class Downsample(nn.Module):
    """Stride-2 convolution that pads right and bottom only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour doubling, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


def _norm(spec: TokenizerSpec, width: int) -> nn.GroupNorm:
    return nn.GroupNorm(spec.norm_groups, width, eps=1e-6)
