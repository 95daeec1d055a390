"""FLOPs of training the VAR transformer on one image: forward pass, backward pass, activation checkpointing.

Exact, from shapes alone, for matrix products, attention and convolutions; a multiply-add counts as two.  The backward
pass takes twice the FLOPs of the forward pass, except at the token embedding, whose input needs no gradient.  Attention
is counted as `varient.models.block_attention` computes it: masked pairs within a block of scales are included, keys
after the block are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from varient.config import TokenizerSpec
from varient.cost.work import VARShape
from varient.models.attention_spans import Span, spans_of
from varient.plan import DepthPlan
from varient.pyramid import Pyramid


def forward_flops(shape: VARShape, plan: DepthPlan) -> dict[str, int]:
    """FLOPs of `VAR.forward` for one row under a plan, by part.

    `word_embed` is a part of its own because its backward pass is cheaper (`backward_flops`).
    """
    spec, pyramid = shape.spec, shape.pyramid
    width, hidden = spec.embed_dim, round(spec.embed_dim * spec.mlp_ratio)
    layers = layer_tokens(plan, pyramid)
    tokens = sum(layers)
    projections = aln_projections(shape, plan)
    return {
        "word_embed": 2 * (pyramid.length - pyramid.tokens(1)) * shape.z_channels * width,
        "attention_projections": 2 * tokens * 4 * width * width,
        "attention_scores": 4 * width * sum(len(stretch) * _attended_pairs(pyramid, scales)
                                            for stretch, scales in plan.stretches()),
        "mlp": 2 * tokens * 2 * width * hidden,
        "adaln": 2 * width * (6 * width * projections + 2 * width),
        "head": 2 * pyramid.length * width * shape.vocab_size,
    }


def backward_flops(shape: VARShape, plan: DepthPlan) -> int:
    """FLOPs of the backward pass of one row: two products for each of the forward pass, one for `word_embed`.

    Fused attention kernels also recompute their scores, half of ``attention_scores``; that is left out.
    """
    forward = forward_flops(shape, plan)
    return 2 * sum(forward.values()) - forward["word_embed"]


def recomputed_flops(shape: VARShape, plan: DepthPlan) -> int:
    """FLOPs that activation checkpointing adds for one row; the adaLN projections, outside the blocks, are kept."""
    forward = forward_flops(shape, plan)
    return sum(forward[part] for part in ("attention_projections", "attention_scores", "mlp"))


def _attended_pairs(pyramid: Pyramid, scales: Sequence[int]) -> int:
    """Pairs of query and key that attention computes in a layer for one row and head, masked ones included."""
    return sum((call.end - call.begin) * call.end for call in attention_calls(pyramid, scales))


def attention_calls(pyramid: Pyramid, scales: Sequence[int]) -> list[Span]:
    """The attention calls of a layer that runs these scales."""
    return spans_of([pyramid.tokens(k) for k in scales])


def aln_projections(shape: VARShape, plan: DepthPlan) -> int:
    """Number of adaLN projections in a forward pass: one for each layer that runs, or with a shared projection one for
    each stretch of layers (`DepthPlan.stretches`)."""
    stretches = plan.stretches()
    return len(stretches) if shape.spec.shared_aln else sum(len(layers) for layers, _ in stretches)


def layer_tokens(plan: DepthPlan, pyramid: Pyramid) -> tuple[int, ...]:
    """Tokens of one row that run in each of the layers 0..D-1."""
    return tuple(sum(pyramid.tokens(k) for k in plan.scales_of(layer)) for layer in range(plan.depth))


def encoder_flops(spec: TokenizerSpec, pyramid: Pyramid) -> int:
    """FLOPs of encoding one image to tokens and teacher-forced inputs: `VQVAE.encode` and
    `MultiScaleQuantizer.teacher_input`."""
    side = pyramid.patch_nums[-1] * spec.downsampling
    width, flops = spec.ch, _conv(spec.in_channels, spec.ch, side)
    for level, mult in enumerate(spec.ch_mult):
        is_last = level == len(spec.ch_mult) - 1
        for _ in range(spec.num_res_blocks):
            flops += _resnet(width, spec.ch * mult, side)
            width = spec.ch * mult
            flops += _attention(width, side) if is_last and spec.using_sa else 0
        if not is_last:
            side //= 2
            flops += _conv(width, width, side)
    flops += 2 * _resnet(width, width, side) + (_attention(width, side) if spec.using_mid_sa else 0)
    flops += _conv(width, spec.z_channels, side) + _conv(spec.z_channels, spec.z_channels, side)  # the last: quant_conv
    phis = pyramid.num_scales + pyramid.num_scales - 1  # while encoding, and for the inputs of all scales but the last
    nearest = 2 * pyramid.length * spec.z_channels * spec.vocab_size
    return flops + nearest + phis * _conv(spec.z_channels, spec.z_channels, side)


def _conv(width_in: int, width_out: int, side: int, kernel: int = 3) -> int:
    return 2 * width_in * width_out * kernel * kernel * side * side


def _resnet(width_in: int, width: int, side: int) -> int:
    shortcut = _conv(width_in, width, side, kernel=1) if width_in != width else 0
    return _conv(width_in, width, side) + _conv(width, width, side) + shortcut


def _attention(width: int, side: int) -> int:
    return _conv(width, 4 * width, side, kernel=1) + 4 * side ** 4 * width
