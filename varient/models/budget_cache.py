"""The KV cache of a plan with budgets by head, in the style of HACK (`varient.head_budgets`).

After a scale's attention, each head of each row keeps the entries with the most attention from some queries of that
scale.  So the peak within a scale is that of the entries before eviction.  HACK is said to merge what it drops into
kept entries at the last step; here it is dropped.

Shapes: R rows, H heads, h heads of a kind, l tokens of the current scale, t tokens that the queries attend to, n tokens
that stay, c channels per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from varient.head_budgets import FIRST_SCALES, HEAD_KINDS, HeadKind, Kept, observer_stride
from varient.models.attention import SelfAttention
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

_HEADS, _TOKENS = 1, 2
"""Dimensions of keys and values."""


class _Entries(NamedTuple):
    """Keys and values (R, h, t, c) of the heads of a kind in one layer."""

    keys: Tensor
    values: Tensor

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes


class BudgetCache:
    """Cache whose heads keep different tokens; an entry dies by eviction, or with its layer's last scale.

    Attributes:
        live_bytes: bytes of live entries, including those of the layer being computed.
        peak_bytes: largest ``live_bytes`` so far.
        scratch_bytes: largest copy of one layer's entries that is made to join stored and new ones for attention.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of allocated storage, without that of a layer whose attention runs."""
        return sum(entries.nbytes for entries in self._stored.values())

    def __init__(self, plan: DepthPlan, pyramid: Pyramid) -> None:
        plan.check_fits(plan.depth, pyramid.num_scales)
        assert plan.kv.budgets is not None
        self._pyramid, self._budgets = pyramid, plan.kv.budgets
        self._scales_of = {layer: plan.scales_of(layer) for layer in range(plan.depth)}
        self._stored: dict[tuple[int, HeadKind], _Entries] = {}
        self.live_bytes = self.peak_bytes = self.scratch_bytes = 0

    def attend(self, layer: int, k: int, q_RHlc: Tensor, key_RHlc: Tensor, value_RHlc: Tensor,
               attention: SelfAttention) -> Tensor:
        """Attention (R, H, l, c) of scale k over its own entries and those which are kept; then eviction."""
        heads, key_RHlc = self._budgets.heads(layer, key_RHlc.shape[_HEADS]), key_RHlc.to(value_RHlc.dtype)
        before = {kind: self._stored.pop((layer, kind), None) for kind in HEAD_KINDS}
        seen = {kind: _joined(before[kind], _of_heads(key_RHlc, heads[kind]), _of_heads(value_RHlc, heads[kind]))
                for kind in HEAD_KINDS}
        in_layer = sum(entries.nbytes for entries in seen.values())
        stored = [entries.nbytes for entries in before.values() if entries]
        del before
        self.live_bytes += in_layer - sum(stored)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if stored:
            self.scratch_bytes = max(self.scratch_bytes, in_layer)
        out_of_head: dict[int, Tensor] = {}
        for kind in HEAD_KINDS:
            q_Rhlc, entries = _of_heads(q_RHlc, heads[kind]), seen.pop(kind)
            out_Rhlc = attention.softmax_attention(q_Rhlc, entries.keys, entries.values)
            out_of_head.update(zip(heads[kind], out_Rhlc.unbind(_HEADS), strict=True))
            self.live_bytes -= entries.nbytes
            if k < self._scales_of[layer][-1]:
                entries = self._after(layer, k, kind, entries, q_Rhlc, attention)
                self._stored[layer, kind] = entries
                self.live_bytes += entries.nbytes
        return torch.stack([out_of_head[head] for head in sorted(out_of_head)], dim=_HEADS)

    def _after(self, layer: int, k: int, kind: HeadKind, entries: _Entries, q_Rhlc: Tensor,
               attention: SelfAttention) -> _Entries:
        """The entries that stay after scale k."""
        first = sum(self._pyramid.tokens(s) for s in self._scales_of[layer] if s <= min(k, FIRST_SCALES))
        tokens = self._pyramid.tokens(k)
        seen = entries.keys.shape[_TOKENS]
        kept = self._budgets.kept(kind, length=self._pyramid.length, seen=seen, first=first,
                                  newest=tokens if k > FIRST_SCALES else 0)
        if sum(kept) == seen:
            return entries
        with torch.no_grad():  # the choice has no gradient
            map_Rhlt = attention.attention_map(q_Rhlc[:, :, ::observer_stride(tokens)], entries.keys)
            score_Rht = map_Rhlt.sum(dim=_TOKENS)
        return _evicted(entries, score_Rht, kept)


def _of_heads(tensor_RHlc: Tensor, heads: Sequence[int]) -> Tensor:
    """A copy (R, h, l, c) of some heads; without a tensor of indices, which would have to reach the device."""
    return torch.stack([tensor_RHlc[:, head] for head in heads], dim=_HEADS)


def _joined(stored: _Entries | None, key_Rhlc: Tensor, value_Rhlc: Tensor) -> _Entries:
    """Stored entries and the new ones after them."""
    if stored is None:
        return _Entries(key_Rhlc, value_Rhlc)
    return _Entries(torch.cat([stored.keys, key_Rhlc], dim=_TOKENS),
                    torch.cat([stored.values, value_Rhlc], dim=_TOKENS))


def _evicted(entries: _Entries, score_Rht: Tensor, kept: Kept) -> _Entries:
    """A copy of the entries that stay, in their order."""
    end = score_Rht.shape[-1] - kept.newest
    best_Rhn = score_Rht[..., kept.first:end].topk(kept.best, sorted=False).indices.sort().values + kept.first

    def of(tensor_Rhtc: Tensor) -> Tensor:
        between = tensor_Rhtc.gather(_TOKENS, best_Rhn.unsqueeze(-1).expand(-1, -1, -1, tensor_Rhtc.shape[-1]))
        return torch.cat([tensor_Rhtc[:, :, :kept.first], between, tensor_Rhtc[:, :, end:]], dim=_TOKENS)

    return _Entries(of(entries.keys), of(entries.values))
