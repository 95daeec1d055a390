"""KV caches: keys and values of generated scales, stored for later scales.

Two policies, which generate the same tokens:

* `ReferenceCache` works like the released VAR code: each layer stores all its scales, by concatenation.
* `LeanCache` (the default) stores an entry only as long as a later scale reads it.  The entries of a layer's last scale
  are not stored, and all entries of a layer outside I_d are freed when it finishes the last bridge scale.

A plan with a window, packed entries or other guidance has one cache, `varient.models.scheme_cache`; one with budgets by
head has `varient.models.budget_cache`.

Shapes: R rows (images, doubled with classifier-free guidance), H heads, l tokens of the current scale, t tokens that
the queries attend to, c channels per head.
"""

from __future__ import annotations

from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from varient.models.budget_cache import BudgetCache
from varient.models.scheme_cache import SchemeCache
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

CachePolicy = Literal["lean", "reference"]


class ReferenceCache:
    """Cache of all scales in each layer, by concatenation; keys are float32, the output dtype of their normalisation.

    With 16-bit weights an entry therefore takes 6 bytes per channel, as in the released code under autocast.

    Attributes:
        live_bytes: bytes of the stored entries.
        peak_bytes: largest ``live_bytes`` so far.
        scratch_bytes: peak bytes of temporary copies: the old storage of a layer while it is concatenated.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of allocated storage."""
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
        else:  # copies, because a view would keep the projection of the queries in memory too
            key_RHlc, value_RHlc = key_RHlc.contiguous(), value_RHlc.contiguous()
        self._entries[layer] = key_RHlc, value_RHlc
        return key_RHlc, value_RHlc


class LeanCache:
    """Cache that frees entries after their last use; entries have the compute dtype.

    The storage of a layer is allocated once per zone, that is, per run of scales with the same layers.

    Attributes:
        live_bytes: bytes of live entries, including those of the layer being computed.
        peak_bytes: largest ``live_bytes`` so far.
        scratch_bytes: peak bytes of temporary copies of one layer: at its last scale, stored and new entries are
            concatenated for the attention kernel; at a new zone, storage is copied to grow.
    """

    @property
    def held_bytes(self) -> int:
        """Bytes of allocated storage, including unused space for the rest of the zone."""
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
        self.live_bytes += 2 * _num_bytes(value_RHlc)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        if k == self._scales_of[layer][-1]:
            return self._finish(layer, key_RHlc.to(value_RHlc.dtype), value_RHlc)
        begin = self._filled.get(layer, 0)
        end = begin + key_RHlc.shape[2]
        store = self._room(layer, k, value_RHlc)  # filling it casts the keys
        store[0, :, :, begin:end] = key_RHlc
        store[1, :, :, begin:end] = value_RHlc
        self._filled[layer] = end
        return store[0, :, :, :end], store[1, :, :, :end]

    def _finish(self, layer: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """Handle the layer's last scale: its entries are used by the current attention call and not stored."""
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
        """The layer's storage, enlarged at the start of a zone for all entries until the end of the zone."""
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


KVCache = LeanCache | ReferenceCache | SchemeCache | BudgetCache


def new_cache(policy: CachePolicy, plan: DepthPlan, pyramid: Pyramid) -> KVCache:
    """An empty cache for one pass through the scales.

    Raises:
        ValueError: unknown policy, or one that keeps what the plan does not.
    """
    policies: dict[CachePolicy, type[KVCache]] = {"lean": LeanCache, "reference": ReferenceCache}
    if policy not in policies:
        raise ValueError(f"cache policy {policy!r} is unknown; known: {', '.join(policies)}")
    if not plan.kv.is_plain:
        if policy != "lean":
            raise ValueError(f"cache policy {policy!r} keeps all scales as computed; a window, packed entries, other "
                             "guidance and budgets need 'lean'")
        return (BudgetCache if plan.kv.budgets else SchemeCache)(plan, pyramid)
    return policies[policy](plan, pyramid)


def _zone_ends(plan: DepthPlan) -> dict[int, int]:
    """Scale -> last scale of its zone; a zone is a run of scales with the same layers."""
    ends = {}
    for _, zone in groupby(range(1, plan.num_scales + 1), key=plan.layers):
        scales = list(zone)
        ends.update(dict.fromkeys(scales, scales[-1]))
    return ends


def _num_bytes(*tensors: Tensor) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
