"""Keys and values of the scales already generated, kept for the scales to come.

Two policies, the same tokens out:

* `ReferenceCache` does what the released VAR code does: every layer that ran keeps every scale, by concatenation.
* `LeanCache` (the default) keeps an entry exactly as long as some later scale will read it: nothing for a layer's
  last scale beyond the layer in flight, and a layer outside I_d is dropped as it finishes its last bridge scale.

Shapes: R rows (images, doubled under classifier-free guidance), H heads, l tokens of the scale at hand,
t tokens that the queries see, c channels a head.
"""

from __future__ import annotations

from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from varient.plan import DepthPlan
from varient.pyramid import Pyramid

CachePolicy = Literal["lean", "reference"]


class ReferenceCache:
    """All scales of all layers that ran, concatenated; keys in the float32 that normalisation leaves them in.

    With 16-bit weights an entry so takes 6 bytes a channel, as in the released code under autocast.

    Attributes:
        live_bytes: bytes of the entries kept.
        peak_bytes: largest ``live_bytes`` so far.
        scratch_bytes: most bytes of copies beside the entries: the old storage of a layer while it is concatenated.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of storage that the cache holds now."""
        return self.live_bytes

    def __init__(self, plan: DepthPlan, pyramid: Pyramid) -> None:
        plan.check_fits(plan.depth, pyramid.num_scales)
        self._entries: dict[int, tuple[Tensor, Tensor]] = {}
        self.live_bytes = self.peak_bytes = self.scratch_bytes = 0

    def extend(self, layer: int, k: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, H, t, c) that scale k sees in ``layer``, its own included."""
        self.live_bytes += _num_bytes(key_RHlc, value_RHlc)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if layer in self._entries:
            before_key, before_value = self._entries[layer]
            self.scratch_bytes = max(self.scratch_bytes, _num_bytes(before_key, before_value))
            key_RHlc = torch.cat([before_key, key_RHlc], dim=2)
            value_RHlc = torch.cat([before_value, value_RHlc], dim=2)
        self._entries[layer] = key_RHlc, value_RHlc
        return key_RHlc, value_RHlc


class LeanCache:
    """Entries live as long as they will be read, in the compute dtype; a layer's storage is allocated once a zone.

    Attributes:
        live_bytes: bytes of the entries alive now, those of the layer in flight included.
        peak_bytes: largest ``live_bytes`` so far.
        scratch_bytes: most bytes of copies beside the entries, of one layer: its last scale joins stored and new
            entries for the attention kernel, and storage that grows at a new zone is copied.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of storage that the cache holds now, room for the rest of the zone included."""
        return _num_bytes(*self._storage.values())

    def __init__(self, plan: DepthPlan, pyramid: Pyramid) -> None:
        plan.check_fits(plan.depth, pyramid.num_scales)
        self._pyramid = pyramid
        self._scales_of = {layer: plan.scales_of(layer) for layer in range(plan.depth)}
        self._zone_end = _zone_ends(plan)
        self._storage: dict[int, Tensor] = {}  # layer -> (2, R, H, capacity, c)
        self._filled: dict[int, int] = {}      # layer -> tokens stored
        self.live_bytes = self.peak_bytes = self.scratch_bytes = 0

    def extend(self, layer: int, k: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (R, H, t, c) that scale k sees in ``layer``, its own included."""
        key_RHlc = key_RHlc.to(value_RHlc.dtype)
        self.live_bytes += _num_bytes(key_RHlc, value_RHlc)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if k == self._scales_of[layer][-1]:
            return self._finish(layer, key_RHlc, value_RHlc)
        begin = self._filled.get(layer, 0)
        end = begin + key_RHlc.shape[2]
        store = self._room(layer, k, key_RHlc)
        store[0, :, :, begin:end] = key_RHlc
        store[1, :, :, begin:end] = value_RHlc
        self._filled[layer] = end
        return store[0, :, :, :end], store[1, :, :, :end]

    def _finish(self, layer: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's last scale: its entries serve the attention in flight and are gone after it."""
        self.live_bytes -= _num_bytes(key_RHlc, value_RHlc)
        if layer not in self._storage:
            return key_RHlc, value_RHlc
        store, filled = self._storage.pop(layer), self._filled.pop(layer)
        self.live_bytes -= _num_bytes(store[:, :, :, :filled])
        key_RHtc = torch.cat([store[0, :, :, :filled], key_RHlc], dim=2)
        value_RHtc = torch.cat([store[1, :, :, :filled], value_RHlc], dim=2)
        self._note_scratch(key_RHtc, value_RHtc)
        return key_RHtc, value_RHtc

    def _room(self, layer: int, k: int, like_RHlc: Tensor) -> Tensor:
        """The layer's storage, grown at the start of a zone to hold what the layer stores until the zone's end."""
        scales = self._scales_of[layer]
        capacity = sum(self._pyramid.tokens(s) for s in scales[:-1] if s <= self._zone_end[k])
        store = self._storage.get(layer)
        if store is None or store.shape[3] < capacity:
            rows, heads, _, channels = like_RHlc.shape
            grown = like_RHlc.new_empty(2, rows, heads, capacity, channels)
            if store is not None:
                filled = self._filled[layer]
                grown[:, :, :, :filled] = store[:, :, :, :filled]
                self._note_scratch(store)
            self._storage[layer] = store = grown
        return store

    def _note_scratch(self, *copies: Tensor) -> None:
        self.scratch_bytes = max(self.scratch_bytes, _num_bytes(*copies))


KVCache = LeanCache | ReferenceCache


def new_cache(policy: CachePolicy, plan: DepthPlan, pyramid: Pyramid) -> KVCache:
    """An empty cache for one pass through the scales.

    Raises:
        ValueError: unknown policy.
    """
    policies: dict[CachePolicy, type[KVCache]] = {"lean": LeanCache, "reference": ReferenceCache}
    if policy not in policies:
        raise ValueError(f"cache policy {policy!r} is unknown; known: {', '.join(policies)}")
    return policies[policy](plan, pyramid)


def _zone_ends(plan: DepthPlan) -> dict[int, int]:
    """Scale -> last scale of its zone; a zone is a run of scales that run the same layers."""
    ends = {}
    for _, zone in groupby(range(1, plan.num_scales + 1), key=plan.layers):
        scales = list(zone)
        ends.update(dict.fromkeys(scales, scales[-1]))
    return ends


def _num_bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
