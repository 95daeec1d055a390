"""What a KV cache keeps of earlier scales: which of them later scales see, and in how many bits.  Integers only.

Without a window and without a number of bits a scale sees all earlier scales as they were computed, as in VAR.  Both
change the images, so they belong to the system and not to the cache's policy, which does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

BITS = (8, 6, 4)
"""Possible numbers of bits of a stored key or value channel."""
FACTOR_BYTES = 2
"""Bytes of the factor that the channels of one token and head share."""
COARSEST = 2
"""C where nothing else is said: r_1 and r_2, which most heads attend to (AMS-KV)."""


@dataclass(frozen=True)
class Window:
    """Scale k sees itself, the W scales before it and the C coarsest scales.

    Attributes:
        previous: W.
        coarsest: C; 0 gives a plain sliding window.

    Raises:
        ValueError: W below 1 or C below 0.
    """

    previous: int
    coarsest: int = COARSEST

    def __post_init__(self) -> None:
        if self.previous < 1:
            raise ValueError(f"window W = {self.previous}: a scale sees at least the W = 1 before it")
        if self.coarsest < 0:
            raise ValueError(f"C = {self.coarsest} coarsest scales: C is 0 or more")


@dataclass(frozen=True)
class KVScheme:
    """Which scales are seen, and in what form their entries are stored.

    Attributes:
        window: the scales that are seen; None: all.
        bits: keys and values are stored as integers of so many bits; None: as computed.

    Raises:
        ValueError: a number of bits that no cache stores.
    """

    window: Window | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in (None, *BITS):
            raise ValueError(f"{self.bits} bits: a cache stores its entries in {', '.join(map(str, BITS))} bits, or as "
                             "they were computed")

    @property
    def is_plain(self) -> bool:
        """Whether all scales are seen as they were computed."""
        return self.window is None and self.bits is None

    def sees(self, k: int, earlier: int) -> bool:
        """Whether queries of scale k see keys of a scale, in layers that run at both."""
        if earlier >= k or self.window is None:
            return earlier <= k
        return earlier <= self.window.coarsest or earlier >= k - self.window.previous

    def last_reader(self, scale: int, scales: Iterable[int]) -> int:
        """The last of a layer's scales that sees ``scale``, which is one of them; its entries are dead afterwards."""
        return max(k for k in scales if self.sees(k, scale))

    def token_bytes(self, heads: int, head_dim: int, channel_bytes: int) -> int:
        """Bytes of the key and the value of one token in one layer and row.

        Args:
            channel_bytes: of a channel of key and value together, as computed.
        """
        if self.bits is None:
            return heads * head_dim * channel_bytes
        return 2 * heads * (head_dim * self.bits // 8 + FACTOR_BYTES)

    def check_fits(self, num_scales: int) -> None:
        """Check the window.

        Raises:
            ValueError: it is for more scales than there are.
        """
        if self.window is None:
            return
        if self.window.previous >= num_scales:
            raise ValueError(f"window W = {self.window.previous}: of {num_scales} scales the last has "
                             f"{num_scales - 1} before it")
        if self.window.coarsest > num_scales:
            raise ValueError(f"C = {self.window.coarsest} coarsest scales: there are {num_scales}")

    def check_heads(self, head_dim: int) -> None:
        """Check that the packed channels of a head fill whole bytes.

        Raises:
            ValueError: they do not.
        """
        if self.bits is not None and head_dim % (group := 8 // math.gcd(8, self.bits)):
            raise ValueError(f"{self.bits} bits: {group} channels are packed together, and a head has {head_dim}")


PLAIN = KVScheme()
"""All earlier scales are seen, as they were computed."""
