"""LlamaGen's KV cache: room for all positions of all layers, allocated once, as the authors do (`setup_caches`)."""

from __future__ import annotations

import torch
from torch import Tensor

from varient.baselines.llamagen.settings import TransformerShape

ROUNDED_TO = 8
"""The authors round the number of positions up to a multiple of this: 584 for 577."""


class StaticCache:
    """Keys and values in the compute dtype.

    Attributes:
        held_bytes: storage held, from the beginning.
        peak_bytes: the same; nothing is allocated later.
        scratch_bytes: 0; attention reads the storage in place.
    """

    def __init__(self, shape: TransformerShape, rows: int, positions: int, dtype: torch.dtype,
                 device: torch.device) -> None:
        capacity = -(-positions // ROUNDED_TO) * ROUNDED_TO
        size = (shape.depth, 2, rows, shape.kv_heads, capacity, shape.head_dim)
        self._storage = torch.empty(size, dtype=dtype, device=device)
        self.held_bytes = self.peak_bytes = self._storage.numel() * self._storage.element_size()
        self.scratch_bytes = 0

    def extend(self, layer: int, position: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """Store entries from ``position`` on; return keys and values (R, H, t, c) of all positions up to the last."""
        end = position + key_RHlc.shape[2]
        keys, values = self._storage[layer]
        keys[:, :, position:end] = key_RHlc
        values[:, :, position:end] = value_RHlc
        return keys[:, :, :end], values[:, :, :end]
