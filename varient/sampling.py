"""The generation loop of all VAR-like systems: scale by scale, with guidance, filtering and a random stream per image.

Shapes: B images, R rows in the transformer (2B with guidance, conditional rows first), l tokens of a scale, L tokens of
all scales, C = z_channels, H x W latent, V = vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from varient.models.graphs import Replays
from varient.models.kv_cache import CachePolicy, KVCache, new_cache
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR
from varient.plan import DepthPlan, check_guidance
from varient.pyramid import Pyramid

TIE_ROOM = 64
"""Largest number of tokens kept beyond top-k because their logits tie with the k-th largest."""

Readout = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""(scale k, filtered logits (B, l, V)) -> (tokens (B, l), codebook vectors (B, l, C))."""


class NotFiniteError(ValueError):
    """A network computed NaN or infinity, so its samples are meaningless."""


def check_finite(sums: Sequence[Tensor], network: nn.Module) -> None:
    """Check after the last step that everything a network computed was finite.

    The check runs only once, because it synchronises with the device.

    Args:
        sums: `finite_sum` of each step.

    Raises:
        NotFiniteError: one of them is not.
    """
    if not torch.stack(tuple(sums)).cpu().isfinite().all():
        dtype = str(next(network.parameters()).dtype).removeprefix("torch.")
        raise NotFiniteError(f"{type(network).__name__} computes values that are not finite (NaN or infinite): its "
                             f"weights are damaged, or its numbers are too large for {dtype}")


def finite_sum(values: Tensor) -> Tensor:
    """The sum in float64, a tensor (): finite if and only if all (float32 or narrower) values are finite."""
    return values.sum(dtype=torch.float64)


@dataclass(frozen=True)
class Guidance:
    """How logits are turned into a distribution (paper, Sec. 4.1; the linear ramp of ``cfg`` is VAR's).

    Attributes:
        cfg: guidance scale at the last scale K; it grows linearly from 0 at scale 1.  0 disables guidance.
        top_k: number of tokens kept (and ties); 0 keeps all.
        top_p: probability mass kept by nucleus filtering; 0 keeps all.
        temperatures: one for each scale 1..K; divides the logits after filtering, as in CoDe.  Empty: 1 for all.
    """

    cfg: float = 1.5
    top_k: int = 900
    top_p: float = 0.96
    temperatures: tuple[float, ...] = ()


@dataclass(frozen=True)
class Generated:
    """Result of a generation: tokens (B, L), the latent f_hat (B, C, H, W), and the KV cache with its byte counts."""

    idx_BL: Tensor
    f_hat_BCHW: Tensor
    cache: KVCache


@torch.no_grad()
def generate(model: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, plan: DepthPlan, guidance: Guidance,
             readout: Readout, *, cache_policy: CachePolicy = "lean",
             drafted_BL: Tensor | None = None,
             on_logits: Callable[[int, Tensor], None] | None = None,
             on_cache: Callable[[KVCache], None] | None = None) -> Generated:
    """Generate the latents of a batch of classes (Algorithm 2); the image decoder is not run.

    If the plan has fewer scales than the network, generation stops after the plan's last scale.  The scales in
    ``drafted_BL`` are not generated: one pass processes them together with the first generated scale (CoDe's refiner).

    Args:
        label_B: classes 0..num_classes-1, int64, on the CPU (checking them must not wait for a GPU).
        plan: layers per scale.
        readout: chooses the tokens of a scale, see `SampledReadout`.
        drafted_BL: tokens of the scales 1..N from another network, int64; the result begins with them.
        on_logits: called with (k, guided logits (B, l, V) before filtering).
        on_cache: called with the KV cache before the first scale.

    Raises:
        ValueError: a plan for another network, a label outside the classes, drafted tokens that do not fill whole
            scales or leave nothing to generate, a plan with different layers, a window, an end of guidance or budgets
            by head at scales that are processed together, or one that says how guidance runs where there is none.
        NotFiniteError: logits that are not finite.
    """
    check_labels(label_B, model)
    generated, sums = run_scales(model, quantizer, label_B.to(model.pos_1LC.device), plan, guidance, readout,
                                 cache_policy=cache_policy, drafted_BL=drafted_BL, on_logits=on_logits,
                                 on_cache=on_cache)
    check_finite(sums, model)
    return generated


def check_labels(label_B: Tensor, model: VAR) -> None:
    """Check classes that are on the CPU.

    Raises:
        ValueError: one is outside the network's classes.
    """
    if label_B.numel() and not 0 <= int(label_B.min()) <= int(label_B.max()) < model.num_classes:
        raise ValueError(f"labels must lie in 0..{model.num_classes - 1}")


@torch.no_grad()
def run_scales(model: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, plan: DepthPlan, guidance: Guidance,
               readout: Readout, *, cache_policy: CachePolicy = "lean", drafted_BL: Tensor | None = None,
               on_logits: Callable[[int, Tensor], None] | None = None,
               on_cache: Callable[[KVCache], None] | None = None) -> tuple[Generated, list[Tensor]]:
    """The part of `generate` in which the host neither waits for the device nor reads a value: its loop.

    Args:
        label_B: on the device of the networks, not checked; otherwise as `generate`.

    Returns:
        What is generated, and a sum of each scale's logits for `check_finite`.

    Raises:
        ValueError: as `generate`, labels left out.
    """
    pyramid = model.pyramid
    plan.check_fits(model.spec.depth, min(plan.num_scales, pyramid.num_scales))
    check_guidance(plan, guidance.cfg)
    first = _first_scale(plan, pyramid, drafted_BL)
    guided = guidance.cfg > 0
    rows_R = torch.cat([label_B, torch.full_like(label_B, model.num_classes)]) if guided else label_B
    class_RC = model.condition(rows_R)
    layers = sorted({layer for layers in plan.layers_per_scale for layer in layers})
    modulation, constants = model.modulation(class_RC, layers), model.attention_constants(layers)
    cache = new_cache(cache_policy, plan, Pyramid(pyramid.patch_nums[:plan.num_scales]))
    if on_cache:
        on_cache(cache)

    def embed(k: int, f_hat_BCHW: Tensor) -> Tensor:
        return model.embed_scale(k, quantizer.next_input(k - 1, f_hat_BCHW)).repeat(2 if guided else 1, 1, 1)

    f_hat_BCHW, tokens, sums, visible_ll = None, [], [], None
    for k in range(first, plan.num_scales + 1):
        if guided and not plan.kv.guided(k):
            guided, class_RC = False, class_RC.chunk(2)[0]
            modulation = {layer: modulation_R16C.chunk(2)[0] for layer, modulation_R16C in modulation.items()}
        if k == 1:
            x_RlC = model.embed_start(class_RC)
        elif k == first:
            f_hats = quantizer.f_hats(drafted_BL, k - 1)
            x_RlC = torch.cat([model.embed_start(class_RC), *map(embed, range(2, k + 1), f_hats)], dim=1)
            f_hat_BCHW, tokens, visible_ll = f_hats[-1], [drafted_BL], model.visible(k)
        else:
            x_RlC, visible_ll = embed(k, f_hat_BCHW), None
        x_RlC = model.scale_step(k, x_RlC, plan, cache, modulation, constants, visible_ll)[:, -pyramid.tokens(k):]
        logits_BlV = guided_logits(model.logits(x_RlC, class_RC), k, pyramid, guidance.cfg if guided else 0.0)
        if on_logits:
            on_logits(k, logits_BlV)
        sums.append(finite_sum(logits_BlV))  # before filtering, which may drop a NaN
        logits_BlV = filter_logits(logits_BlV, guidance.top_k, guidance.top_p)
        if guidance.temperatures:
            logits_BlV = logits_BlV / guidance.temperatures[k - 1]
        idx_Bl, h_BlC = readout(k, logits_BlV)
        side = pyramid.side(k)
        detail_BCHW = quantizer.detail(k, h_BlC.transpose(1, 2).unflatten(2, (side, side)))
        f_hat_BCHW = detail_BCHW if f_hat_BCHW is None else f_hat_BCHW + detail_BCHW
        tokens.append(idx_Bl)
    return Generated(torch.cat(tokens, dim=1), f_hat_BCHW, cache), sums


def sample_latents(run: Callable[[Tensor, Tensor], tuple[Tensor, Sequence[Tensor]]], model: VAR, label_B: Tensor,
                   uniform_BL: Tensor, replays: Replays | None = None, key: Hashable = None) -> Tensor:
    """The latents (B, C, H, W) that a sampler generates on the device of its network.

    Args:
        run: (labels, uniform numbers), both on the device -> (latents, sums for `check_finite`).  The host must neither
            wait in it nor read a value.
        model: the network whose classes the labels are.
        label_B: classes, int64, on the CPU.
        uniform_BL: float32, on the CPU.
        replays: to run it as a CUDA graph; None: its kernels are launched one by one.
        key: what ``run`` depends on besides its arguments, for ``replays``.

    Raises:
        ValueError: a label outside the classes, or as ``run``.
        NotFiniteError: values that are not finite.
    """
    def stacked(label_B: Tensor, uniform_BL: Tensor) -> tuple[Tensor, Tensor]:
        latents_BCHW, sums = run(label_B, uniform_BL)
        return latents_BCHW, torch.stack(tuple(sums))

    check_labels(label_B, model)
    if replays is None:
        device = model.pos_1LC.device
        latents_BCHW, sums_K = stacked(label_B.to(device), uniform_BL.to(device))
    else:
        latents_BCHW, sums_K = replays(key, stacked, label_B, uniform_BL)
    check_finite(sums_K.unbind(), model)
    return latents_BCHW


def _first_scale(plan: DepthPlan, pyramid: Pyramid, drafted_BL: Tensor | None) -> int:
    """The first scale to generate; all earlier scales are drafted."""
    if drafted_BL is None:
        return 1
    ends = [pyramid.end(k) for k in pyramid.scales]
    if drafted_BL.shape[1] not in ends[:plan.num_scales - 1]:
        raise ValueError(f"{drafted_BL.shape[1]} drafted tokens: they must fill whole scales and leave one to generate")
    first = ends.index(drafted_BL.shape[1]) + 2
    if why := plan.kv.one_scale_at_a_time:
        raise ValueError(f"scales 1..{first} are processed together, so the plan cannot have {why}")
    if len(set(plan.layers_per_scale[:first])) > 1:
        raise ValueError(f"scales 1..{first} are processed together, so the plan must have the same layers for them")
    return first


def guided_logits(logits_RlV: Tensor, k: int, pyramid: Pyramid, cfg: float) -> Tensor:
    """Classifier-free guidance: (1 + t) conditional - t unconditional logits, t = cfg (k-1)/(K-1); (B, l, V)."""
    if cfg == 0:
        return logits_RlV
    t = cfg * (k - 1) / max(pyramid.num_scales - 1, 1)
    conditional_BlV, unconditional_BlV = logits_RlV.chunk(2)
    return (1 + t) * conditional_BlV - t * unconditional_BlV


def filter_logits(logits_BlV: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set the logits of tokens that top-k and then top-p filter out to -inf.

    As in the released code, ties with the k-th logit are kept; nucleus filtering drops, beginning with the least likely
    token, those with a cumulative probability of at most 1 - p, and always keeps the most likely one.  Unlike the
    released code, at most `TIE_ROOM` ties are kept, and only the candidates are sorted, not the whole vocabulary.
    """
    vocab_size = logits_BlV.shape[-1]
    top_k = min(top_k, vocab_size) or vocab_size
    if top_k == vocab_size and top_p == 0:
        return logits_BlV
    # Only the k + TIE_ROOM candidates are sorted (descending), because more tokens may tie with the k-th.
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
    """``count`` uniform numbers in [0, 1) for each image, (B, count), float32.

    They depend on (seed, image index) only: not on batch, shard, device or number of processes.
    """
    streams = (np.random.Generator(np.random.Philox(key=[seed, int(index)])) for index in indices)
    return torch.from_numpy(np.stack([stream.random(count, dtype=np.float32) for stream in streams]))


def sample_tokens(logits_BlV: Tensor, uniform_Bl: Tensor) -> Tensor:
    """Sample tokens (B, l), int64, by inverse transform sampling over the vocabulary in its order.

    Args:
        uniform_Bl: one number in [0, 1) for each token, float32.
    """
    # float64, because a parallel float32 cumulative sum may not be monotone and could select a filtered token.
    cumulative_BlV = logits_BlV.softmax(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    total_Bl1 = cumulative_BlV[..., -1:]
    target_Bl1 = uniform_Bl.unsqueeze(-1) * total_Bl1
    # The target stays below the total: rounding must not select past the last token with nonzero probability.
    target_Bl1 = torch.minimum(target_Bl1, torch.nextafter(total_Bl1, torch.zeros_like(total_Bl1)))
    idx_Bl = torch.searchsorted(cumulative_BlV, target_Bl1, right=True).squeeze(-1)
    return idx_Bl.clamp_max(logits_BlV.shape[-1] - 1)  # past the end for NaN logits, which the caller detects later


class SampledReadout:
    """Readout that samples each token from its distribution, with one given uniform number per token.

    Args:
        on_scale: called with k when the tokens of scale k are chosen; on a GPU, when their kernels are launched.
    """

    def __init__(self, quantizer: MultiScaleQuantizer, uniform_BL: Tensor,
                 on_scale: Callable[[int], None] | None = None) -> None:
        self.quantizer = quantizer
        self.uniform_BL = uniform_BL.to(quantizer.embedding.weight.device)
        self.on_scale = on_scale

    def __call__(self, k: int, logits_BlV: Tensor) -> tuple[Tensor, Tensor]:
        pyramid = self.quantizer.pyramid
        idx_Bl = sample_tokens(logits_BlV, self.uniform_BL[:, pyramid.begin(k):pyramid.end(k)])
        if self.on_scale:
            self.on_scale(k)
        return idx_Bl, self.quantizer.embedding(idx_Bl)
