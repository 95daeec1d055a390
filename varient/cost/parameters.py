"""Exact parameter counts of the networks by formula, without buffers; no network is built."""

from __future__ import annotations

from varient.config import TokenizerSpec, TransformerSpec
from varient.pyramid import Pyramid


def var_parameters(spec: TransformerSpec, pyramid: Pyramid, *, num_classes: int, vocab_size: int,
                   z_channels: int) -> int:
    """Parameters of `varient.models.transformer.VAR`: 2,010,020,356 for the released VAR-d30."""
    width, hidden = spec.embed_dim, round(spec.embed_dim * spec.mlp_ratio)
    positions = pyramid.tokens(1) + pyramid.length + pyramid.num_scales
    embeddings = (positions + num_classes + 1) * width + _linear(z_channels, width)
    attention = 3 * width * width + 2 * width + _linear(width, width) + spec.num_heads * spec.attn_l2_norm
    mlp = _linear(width, hidden) + _linear(hidden, width)
    modulation = 6 * width if spec.shared_aln else _linear(width, 6 * width)
    shared = _linear(width, 6 * width) if spec.shared_aln else 0
    head = _linear(width, 2 * width) + _linear(width, vocab_size)
    return embeddings + shared + spec.depth * (attention + mlp + modulation) + head


def vqvae_parameters(spec: TokenizerSpec, num_scales: int) -> int:
    """Parameters of `varient.models.vqvae.VQVAE`: 108,948,355 for the released vae_ch160v4096z32."""
    z_channels = spec.z_channels
    quantizer = spec.vocab_size * z_channels + (spec.share_quant_resi or num_scales) * _conv(z_channels, z_channels)
    return _encoder(spec) + _decoder(spec) + 2 * _conv(z_channels, z_channels) + quantizer


def llamagen_parameters(*, depth: int = 48, width: int = 1536, hidden: int = 4096, vocab_size: int = 16384,
                        num_classes: int = 1000) -> int:
    """Parameters of a LlamaGen class-conditional transformer: 1,410,972,672 for XXL (the defaults).

    No biases; rotary positions have none; layout of LlamaGen at ce98ec4.
    """
    block = 4 * width * width + 3 * width * hidden + 2 * width
    return (num_classes + 1) * width + 2 * vocab_size * width + depth * block + width


def dit_parameters(*, depth: int = 28, width: int = 1152, num_tokens: int = 256, patch_channels: int = 16,
                   num_classes: int = 1000) -> int:
    """Parameters of a DiT with learned variance: 675,129,632 for DiT-XL/2 at 256 x 256 (the defaults).

    Counts the fixed sine-cosine positions, which the released file holds; layout of DiT at ed81ce2.
    """
    timestep = _linear(256, width) + _linear(width, width)
    block = _linear(width, 3 * width) + _linear(width, width) + _linear(width, 4 * width) + _linear(4 * width, width)
    final = _linear(width, 2 * patch_channels) + _linear(width, 2 * width)
    return (num_tokens * width + _linear(patch_channels, width) + timestep + (num_classes + 1) * width
            + depth * (block + _linear(width, 6 * width)) + final)


def _encoder(spec: TokenizerSpec) -> int:
    widths = [spec.ch * mult for mult in spec.ch_mult]
    total, width_in, last = _conv(spec.in_channels, spec.ch), spec.ch, len(widths) - 1
    for level, width in enumerate(widths):
        total += _stage(width_in, width, spec.num_res_blocks, attention=level == last and spec.using_sa)
        total += _conv(width, width) if level != last else 0
        width_in = width
    return total + _middle(width_in, spec.using_mid_sa) + _norm(width_in) + _conv(width_in, spec.z_channels)


def _decoder(spec: TokenizerSpec) -> int:
    widths = [spec.ch * mult for mult in spec.ch_mult]
    width_in, last = widths[-1], len(widths) - 1
    total = _conv(spec.z_channels, width_in) + _middle(width_in, spec.using_mid_sa)
    for level, width in reversed(list(enumerate(widths))):
        total += _stage(width_in, width, spec.num_res_blocks + 1, attention=level == last and spec.using_sa)
        total += _conv(width, width) if level != 0 else 0
        width_in = width
    return total + _norm(width_in) + _conv(width_in, spec.in_channels)


def _stage(width_in: int, width: int, num_blocks: int, *, attention: bool) -> int:
    blocks = _resnet(width_in, width) + (num_blocks - 1) * _resnet(width, width)
    return blocks + attention * num_blocks * _attention(width)


def _middle(width: int, attention: bool) -> int:
    return 2 * _resnet(width, width) + attention * _attention(width)


def _resnet(width_in: int, width: int) -> int:
    shortcut = _conv(width_in, width, side=1) if width_in != width else 0
    return _norm(width_in) + _conv(width_in, width) + _norm(width) + _conv(width, width) + shortcut


def _attention(width: int) -> int:
    return _norm(width) + _conv(width, 3 * width, side=1) + _conv(width, width, side=1)


def _norm(width: int) -> int:
    return 2 * width


def _conv(width_in: int, width_out: int, side: int = 3) -> int:
    return width_in * width_out * side * side + width_out


def _linear(width_in: int, width_out: int) -> int:
    return width_in * width_out + width_out
