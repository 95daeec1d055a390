"""The KV cache of a plan that is not plain: with a window, packed entries or other guidance (`varient.kv_scheme`).

Shapes as in `varient.models.kv_cache`.  Where both halves of guidance share a map (`varient.models.shared_map`), keys
are (B, H, t, c) and values (B, H, t, 2, c), of the conditional half first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from varient.models.kv_packing import Packed, pack, unpack
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

Entries = tuple[Tensor, ...]
"""Stored keys or values of a layer, ordered by scale: the integers and their factors, or one tensor in the compute
dtype; empty without any."""

_TOKENS, _HALVES = 2, 3
"""Dimensions of the tokens in `Entries`, and of the halves in values under one map."""


class _Layer(NamedTuple):
    """What is stored in a layer, and the scales that it belongs to."""

    scales: tuple[int, ...] = ()
    keys: Entries = ()
    values: Entries = ()

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


class SchemeCache:
    """Cache that frees an entry after the last scale that sees it, and unpacks entries one layer at a time.

    When a scale begins, a layer holds exactly the entries that the scale sees, so attention needs no mask.  Packed
    entries are read as stored, also by the scale that they belong to: what a query sees does not depend on when it
    looks, as in the teacher-forced pass.  Entries of guidance's unconditional half are freed after the last scale at
    which it runs.

    Attributes:
        live_bytes: bytes of live entries in their stored form, including those of the layer being computed.
        peak_bytes: largest ``live_bytes`` so far.
        scratch_bytes: largest copy of one layer's entries that is made for attention: in the compute dtype, where
            entries are packed or joined.  Temporary tensors within packing and unpacking are not counted.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of allocated storage."""
        return sum(layer.nbytes for layer in self._stored.values())

    def __init__(self, plan: DepthPlan, pyramid: Pyramid) -> None:
        plan.check_fits(plan.depth, pyramid.num_scales)
        self._pyramid, self._kv = pyramid, plan.kv
        self._scales_of = {layer: plan.scales_of(layer) for layer in range(plan.depth)}
        self._scheme_of = {layer: plan.kv.of_layer(layer) for layer in range(plan.depth)}
        self._stored: dict[int, _Layer] = {}
        self.live_bytes = self.peak_bytes = self.scratch_bytes = 0

    def extend(self, layer: int, k: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, H, t, c) that scale k sees in ``layer``, its own included; or as the module says."""
        stored, dtype = self._stored.pop(layer, _Layer()), value_RHlc.dtype
        seen = _Layer((*stored.scales, k), self._joined(stored.keys, key_RHlc, dtype),
                      self._joined(stored.values, value_RHlc, dtype))
        self.live_bytes += seen.nbytes - stored.nbytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        shown = self._shown(seen.keys, dtype), self._shown(seen.values, dtype)
        if self._kv.bits or stored.scales:
            self.scratch_bytes = max(self.scratch_bytes, sum(tensor.nbytes for tensor in shown))
        del stored  # before what is kept is copied
        kept = self._kept(layer, k, seen)
        self.live_bytes -= seen.nbytes - kept.nbytes
        if kept.scales:
            self._stored[layer] = kept
        return shown

    def _joined(self, stored: Entries, new: Tensor, dtype: torch.dtype) -> Entries:
        """Stored entries, if any, and the new ones after them, in the form in which they are stored."""
        if self._kv.bits is None:
            return (_joined(stored, new, dtype),)
        packed = pack(_joined((), new, dtype), self._kv.bits)
        return tuple(torch.cat(pair, dim=_TOKENS) for pair in zip(stored, packed, strict=True)) if stored else packed

    def _shown(self, seen: Entries, dtype: torch.dtype) -> Tensor:
        return seen[0] if self._kv.bits is None else unpack(Packed(*seen), self._kv.bits, dtype)

    def _kept(self, layer: int, k: int, seen: _Layer) -> _Layer:
        """The entries that a later scale sees."""
        scales_of, scheme = self._scales_of[layer], self._scheme_of[layer]
        kept = tuple(s for s in seen.scales if scheme.last_reader(s, scales_of) > k)
        if not kept:
            return _Layer()
        after = next(scale for scale in scales_of if scale > k)
        keys, values = seen.keys, seen.values
        if halved := self._kv.guided(k) and not self._kv.guided(after):
            if self._kv.shared_map:
                values = tuple(tensor.select(_HALVES, 0) for tensor in values)
            else:
                keys, values = (tuple(tensor.chunk(2)[0] for tensor in entries) for entries in (keys, values))
        if halved or kept != seen.scales:
            # Copied, because a view would keep the dead entries alive too.
            keys, values = (tuple(self._of_scales(kept, seen.scales, tensor) for tensor in entries)
                            for entries in (keys, values))
        return _Layer(kept, keys, values)

    def _of_scales(self, kept: tuple[int, ...], scales: tuple[int, ...], tensor: Tensor) -> Tensor:
        """A copy of the entries of some of the scales."""
        parts = tensor.split([self._pyramid.tokens(scale) for scale in scales], dim=_TOKENS)
        return torch.cat([part for scale, part in zip(scales, parts, strict=True) if scale in kept], dim=_TOKENS)


def _joined(stored: Entries, new: Tensor, dtype: torch.dtype) -> Tensor:
    """Stored entries, if any, and the new ones after them, copied in any case: what is new may be a view."""
    before = stored[0].shape[_TOKENS] if stored else 0
    rows, heads, tokens, *channels = new.shape
    joined = new.new_empty(rows, heads, before + tokens, *channels, dtype=dtype)
    if stored:
        joined[:, :, :before] = stored[0]
    joined[:, :, before:] = new
    return joined
