"""Keys and values packed into 8, 6 or 4 bits: integers, and a factor for each token and head.

A channel x of a token and head whose largest magnitude is m is stored as round(x / s), where s = m / (2^(bits-1) - 1)
is rounded to bfloat16: it has the range of float32, so no finite value overflows.  The integers belong to the rounded
factor.  No factor depends on another token, head or image, so that an image remains a function of its seed.

Six bits: four integers in three bytes; four bits: two in a byte.  The channels of a head are packed in equal parts (the
first channel of each part together), so that packing and unpacking need no interleaving.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Packed(NamedTuple):
    """Packed channels.

    Attributes:
        codes: (..., channels x bits / 8); int8 for 8 bits, otherwise uint8.
        factors: (..., 1), bfloat16.
    """

    codes: Tensor
    factors: Tensor


def pack(x: Tensor, bits: int) -> Packed:
    """Pack channels (..., c), finite or not; the factor of channels that are not finite is not finite either."""
    largest = _largest(bits)
    factors = (x.abs().amax(dim=-1, keepdim=True).float() / largest).to(torch.bfloat16)
    steps = factors.float().clamp_min(torch.finfo(torch.float32).tiny)  # channels that are all 0
    codes = (x / steps).round_().clamp_(-largest, largest)  # float32, as the steps are
    if bits == 8:
        return Packed(codes.to(torch.int8), factors)
    codes = (codes + largest).to(torch.uint8)
    if bits == 4:
        first, second = codes.chunk(2, dim=-1)
        return Packed(first | second << 4, factors)
    first, second, third, fourth = codes.chunk(4, dim=-1)
    return Packed(torch.cat([first | second << 6, second >> 2 | third << 4, third >> 4 | fourth << 2], dim=-1), factors)


def unpack(packed: Packed, bits: int, dtype: torch.dtype) -> Tensor:
    """The channels (..., c) that are stored, in a floating-point dtype."""
    if bits == 8:
        return packed.codes.to(dtype).mul_(packed.factors)
    if bits == 4:
        parts = [packed.codes & 15, packed.codes >> 4]
    else:
        low, middle, high = packed.codes.chunk(3, dim=-1)
        parts = [low & 63, low >> 6 | (middle & 15) << 2, middle >> 4 | (high & 3) << 4, high >> 2]
    return torch.cat(parts, dim=-1).to(dtype).sub_(_largest(bits)).mul_(packed.factors)


def as_stored(x: Tensor, bits: int) -> Tensor:
    """Channels (..., c) as they are after packing and unpacking, in their dtype."""
    return unpack(pack(x, bits), bits, x.dtype)


def _largest(bits: int) -> int:
    return 2 ** (bits - 1) - 1
