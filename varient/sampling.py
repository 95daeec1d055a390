"""The one generation loop of all VAR-like systems: scale by scale, guided, filtered, drawn with one seed an image.

Shapes: B images, R rows in the transformer (2B under guidance: conditional rows first), l tokens of a scale, L of all,
C = z_channels, H x W latent, V = vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from varient.models.kv_cache import CachePolicy, KVCache, new_cache
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

TIE_ROOM = 64
"""Tokens beyond the k-th that may stay because their logit equals the k-th."""

Readout = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""(scale k, filtered logits (B, l, V)) -> (tokens (B, l), codebook vectors (B, l, C))."""


@dataclass(frozen=True)
class Guidance:
    """How logits become a distribution (paper, Sec. 4.1; the ramp is VAR's).

    Attributes:
        cfg: guidance scale at the last scale K, growing linearly from 0 at scale 1; 0 runs no unconditional rows.
        top_k: tokens kept (ties kept too); 0 keeps all.
        top_p: nucleus mass kept; 0 keeps all.
    """

    cfg: float = 1.5
    top_k: int = 900
    top_p: float = 0.96


@dataclass(frozen=True)
class Generated:
    """What a generation leaves behind: tokens (B, L), the latent f_hat (B, C, H, W), and the cache with its counts."""

    idx_BL: Tensor
    f_hat_BCHW: Tensor
    cache: KVCache


@torch.no_grad()
def generate(model: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, plan: DepthPlan, guidance: Guidance,
             readout: Readout, *, cache_policy: CachePolicy = "lean",
             on_logits: Callable[[int, Tensor], None] | None = None) -> Generated:
    """Generate the latents of a batch of classes (Algorithm 2); the image decoder is not run.

    Args:
        label_B: classes 0..num_classes-1, int64, on the CPU (checking them must not wait for a GPU).
        plan: layers per scale.
        readout: draws the tokens of a scale, see `DrawTokens` and `MixCodes`.
        on_logits: sees (k, guided logits (B, l, V) before filtering).

    Raises:
        ValueError: a plan for another network, or a label outside the classes.
    """
    pyramid = model.pyramid
    plan.check_fits(model.spec.depth, pyramid.num_scales)
    if label_B.numel() and not 0 <= int(label_B.min()) <= int(label_B.max()) < model.num_classes:
        raise ValueError(f"labels must lie in 0..{model.num_classes - 1}")
    guided = guidance.cfg > 0
    label_B = label_B.to(model.pos_1LC.device)
    rows_R = torch.cat([label_B, torch.full_like(label_B, model.num_classes)]) if guided else label_B
    class_RC = model.condition(rows_R)
    modulation = model.modulation(class_RC, sorted({layer for k in pyramid.scales for layer in plan.layers(k)}))
    cache = new_cache(cache_policy, plan, pyramid)

    f_hat_BCHW, tokens = None, []
    for k in pyramid.scales:
        if k == 1:
            x_RlC = model.embed_start(class_RC)
        else:
            x_Blv = quantizer.next_input(k - 1, f_hat_BCHW)
            x_RlC = model.embed_scale(k, x_Blv).repeat(2 if guided else 1, 1, 1)
        x_RlC = model.scale_step(k, x_RlC, plan, cache, modulation)
        logits_BlV = guided_logits(model.logits(x_RlC, class_RC), k, pyramid, guidance.cfg)
        if on_logits:
            on_logits(k, logits_BlV)
        idx_Bl, h_BlC = readout(k, filter_logits(logits_BlV, guidance.top_k, guidance.top_p))
        side = pyramid.side(k)
        detail_BCHW = quantizer.detail(k, h_BlC.transpose(1, 2).unflatten(2, (side, side)))
        f_hat_BCHW = detail_BCHW if f_hat_BCHW is None else f_hat_BCHW + detail_BCHW
        tokens.append(idx_Bl)
    return Generated(torch.cat(tokens, dim=1), f_hat_BCHW, cache)


def guided_logits(logits_RlV: Tensor, k: int, pyramid: Pyramid, cfg: float) -> Tensor:
    """(1 + t) conditional - t unconditional with t = cfg (k-1)/(K-1); rows come back as (B, l, V)."""
    if cfg == 0:
        return logits_RlV
    t = cfg * (k - 1) / max(pyramid.num_scales - 1, 1)
    conditional_BlV, unconditional_BlV = logits_RlV.chunk(2)
    return (1 + t) * conditional_BlV - t * unconditional_BlV


def filter_logits(logits_BlV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set to -inf what top-k and then top-p leave out.

    As in the released code: ties with the k-th logit stay; the nucleus drops, from the least likely upwards, what has
    a cumulative probability of at most 1 - p, and always keeps the most likely token.  Unlike there, no more than
    `TIE_ROOM` ties stay, and only the candidates are sorted, not the vocabulary.
    """
    vocab_size = logits_BlV.shape[-1]
    top_k = min(top_k, vocab_size) or vocab_size
    if top_k == vocab_size and top_p == 0:
        return logits_BlV
    # Only the candidates are sorted, descending; the room behind the k-th is for those that tie with it.
    value_Blk, token_Blk = logits_BlV.topk(min(top_k + TIE_ROOM, vocab_size), dim=-1)
    kept_Blk = value_Blk >= value_Blk[..., top_k - 1:top_k]
    if top_p > 0:
        probability_Blk = value_Blk.masked_fill(~kept_Blk, -torch.inf).softmax(dim=-1)
        from_below_Blk = probability_Blk.flip(-1).cumsum(dim=-1).flip(-1)
        kept_Blk &= from_below_Blk > 1 - top_p
        kept_Blk[..., 0] = True
    kept_BlV = torch.zeros_like(logits_BlV, dtype=torch.bool).scatter(-1, token_Blk, kept_Blk)
    return logits_BlV.masked_fill(~kept_BlV, -torch.inf)


def image_uniforms(seed: int, indices: Sequence[int], count: int) -> Tensor:
    """``count`` uniform numbers in [0, 1) for each image (B, count), float32, a function of (seed, image index) alone.

    Neither batch, shard, device nor the number of processes changes them.
    """
    streams = (np.random.Generator(np.random.Philox(key=[seed, int(index)])) for index in indices)
    return torch.from_numpy(np.stack([stream.random(count, dtype=np.float32) for stream in streams]))


class DrawTokens:
    """Readout by the inverse of the cumulative distribution: one uniform number a token."""

    def __init__(self, quantizer: MultiScaleQuantizer, uniform_BL: Tensor) -> None:
        self.quantizer = quantizer
        self.uniform_BL = uniform_BL.to(quantizer.embedding.weight.device)

    def __call__(self, k: int, logits_BlV: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.quantizer.pyramid
        # In float64: a parallel float32 sum need not be monotone, and a filtered token could get a step of its own.
        cumulative_BlV = logits_BlV.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
        total_Bl1 = cumulative_BlV[..., -1:]
        target_Bl1 = self.uniform_BL[:, pyramid.begin(k):pyramid.end(k), None] * total_Bl1
        # Rounding up to the total would run past the last token that has any probability.
        target_Bl1 = torch.minimum(target_Bl1, torch.nextafter(total_Bl1, torch.zeros_like(total_Bl1)))
        idx_Bl = torch.searchsorted(cumulative_BlV, target_Bl1, right=True).squeeze(-1)
        return idx_Bl, self.quantizer.embedding(idx_Bl)


class MixCodes:
    """VAR's `more_smooth` readout: a Gumbel-softmax mixture of codebook vectors, sharper from scale to scale.

    For pictures only: it is not what the published scores were made with.  The tokens it reports are those with the
    largest weight in the mixture.
    """

    def __init__(self, quantizer: MultiScaleQuantizer, exponential_BLV: Tensor) -> None:
        self.quantizer = quantizer
        self.exponential_BLV = exponential_BLV

    def __call__(self, k: int, logits_BlV: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.quantizer.pyramid
        progress = (k - 1) / max(pyramid.num_scales - 1, 1)
        temperature = max(0.27 * (1 - 0.95 * progress), 0.005)
        gumbel_BlV = -self.exponential_BLV[:, pyramid.begin(k):pyramid.end(k)].log()
        weight_BlV = ((logits_BlV * (1 + progress) + gumbel_BlV) / temperature).softmax(dim=-1)
        return weight_BlV.argmax(dim=-1), weight_BlV @ self.quantizer.embedding.weight
