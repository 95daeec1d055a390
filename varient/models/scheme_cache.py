"""The KV cache of a plan that has a window or stores its entries in few bits (`varient.kv_scheme`).

Shapes as in `varient.models.kv_cache`.  Keys and values are in one tensor (2, R, H, t, ...).
"""

from __future__ import annotations

import torch
from torch import Tensor

from varient.models.kv_packing import Packed, pack, unpack
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

Entries = tuple[Tensor, ...]
"""Stored entries of a layer, ordered by scale: the integers and their factors, or one tensor in the compute dtype;
empty without any."""

_TOKENS = 3
"""Dimension of the tokens in `Entries`."""


class SchemeCache:
    """Cache that frees an entry after the last scale that sees it, and unpacks entries one layer at a time.

    When a scale begins, a layer holds exactly the entries that the scale sees, so attention needs no mask.  Packed
    entries are read as stored, also by the scale that they belong to: what a query sees does not depend on when it
    looks, as in the teacher-forced pass.

    Attributes:
        live_bytes: bytes of live entries in their stored form, including those of the layer being computed.
        peak_bytes: largest ``live_bytes`` so far.
        scratch_bytes: largest copy of one layer's entries that is made for attention: in the compute dtype, where
            entries are packed or joined.  Temporary tensors within packing and unpacking are not counted.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of allocated storage."""
        return sum(_num_bytes(entries) for entries in self._stored.values())

    def __init__(self, plan: DepthPlan, pyramid: Pyramid) -> None:
        plan.check_fits(plan.depth, pyramid.num_scales)
        self._pyramid, self._kv = pyramid, plan.kv
        self._scales_of = {layer: plan.scales_of(layer) for layer in range(plan.depth)}
        self._stored: dict[int, Entries] = {}
        self._stored_scales: dict[int, tuple[int, ...]] = {}
        self.live_bytes = self.peak_bytes = self.scratch_bytes = 0

    def extend(self, layer: int, k: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, H, t, c) that scale k sees in ``layer``, its own included."""
        stored, scales = self._stored.pop(layer, ()), (*self._stored_scales.pop(layer, ()), k)
        if (bits := self._kv.bits) is None:
            seen: Entries = (_joined(stored, key_RHlc, value_RHlc),)
            shown = seen[0]
        else:
            seen = _joined_packed(stored, key_RHlc, value_RHlc, bits)
            shown = unpack(Packed(*seen), bits, value_RHlc.dtype)
        self.live_bytes += _num_bytes(seen) - _num_bytes(stored)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if bits or stored:
            self.scratch_bytes = max(self.scratch_bytes, shown.nbytes)
        self.live_bytes -= _num_bytes(seen) - self._keep(layer, k, scales, seen)
        return shown[0], shown[1]

    def _keep(self, layer: int, k: int, scales: tuple[int, ...], seen: Entries) -> int:
        """Store the entries that a later scale sees; return their bytes."""
        kept = tuple(s for s in scales if self._kv.last_reader(s, self._scales_of[layer]) > k)
        if not kept:
            return 0
        if kept != scales:
            # Copied, because a view would keep the dead entries alive too.
            seen = tuple(torch.cat([part for s, part in self._by_scale(scales, tensor) if s in kept], dim=_TOKENS)
                         for tensor in seen)
        self._stored[layer], self._stored_scales[layer] = seen, kept
        return _num_bytes(seen)

    def _by_scale(self, scales: tuple[int, ...], tensor: Tensor) -> list[tuple[int, Tensor]]:
        """The entries of each scale."""
        return list(zip(scales, tensor.split([self._pyramid.tokens(s) for s in scales], dim=_TOKENS), strict=True))


def _joined(stored: Entries, key_RHlc: Tensor, value_RHlc: Tensor) -> Tensor:
    """Stored entries, if any, and the new ones after them (2, R, H, t, c), in the dtype of the values."""
    before = stored[0].shape[_TOKENS] if stored else 0
    rows, heads, new, channels = value_RHlc.shape
    joined = value_RHlc.new_empty(2, rows, heads, before + new, channels)
    if stored:
        joined[:, :, :, :before] = stored[0]
    joined[0, :, :, before:], joined[1, :, :, before:] = key_RHlc, value_RHlc
    return joined


def _joined_packed(stored: Entries, key_RHlc: Tensor, value_RHlc: Tensor, bits: int) -> Entries:
    """Stored entries, if any, and the new ones after them, packed from the dtype of the values."""
    new = pack(torch.stack([key_RHlc.to(value_RHlc.dtype), value_RHlc]), bits)
    return tuple(torch.cat(pair, dim=_TOKENS) for pair in zip(stored, new, strict=True)) if stored else new


def _num_bytes(entries: Entries) -> int:
    return sum(tensor.nbytes for tensor in entries)
