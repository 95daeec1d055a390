"""What a KV cache keeps of earlier scales: which of them later scales see, in how many bits, of which half of
classifier-free guidance, and how many entries in each head.  Integers only.

By default a scale sees all earlier scales as they were computed, and both halves run at all scales, as in VAR.  All
else changes the images, so it belongs to the system and not to the cache's policy, which does not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from varient.head_budgets import HeadBudgets

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
        widest: W of the wide layers; None: all layers have the same.
        wide_layers: those layers.

    Raises:
        ValueError: W below 1, C below 0, or wide layers whose W is not larger.
    """

    previous: int
    coarsest: int = COARSEST
    widest: int | None = None
    wide_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.widest is not None and self.widest <= self.previous:
            raise ValueError(f"window W = {self.previous} to {self.widest}: the wider one comes second")
        if self.previous < 1:
            raise ValueError(f"window W = {self.previous}: a scale sees at least the W = 1 before it")
        if self.coarsest < 0:
            raise ValueError(f"C = {self.coarsest} coarsest scales: C is 0 or more")

    def of_layer(self, layer: int) -> Window:
        """The window of a layer, which is the same in all layers."""
        if self.widest is None or layer not in self.wide_layers:
            return Window(self.previous, self.coarsest)
        return Window(self.widest, self.coarsest)


@dataclass(frozen=True)
class KVScheme:
    """Which scales are seen, in what form their entries are stored, and what guidance needs of its unconditional half.

    Attributes:
        window: the scales that are seen; None: all.
        bits: keys and values are stored as integers of so many bits; None: as computed.
        shared_map: the unconditional half attends by the attention map of the conditional half, so it has values and
            neither queries nor keys (LiteVAR).
        last_guided: the last scale at which the unconditional half runs; None: all.
        budgets: entries that each head keeps; None: all.

    Raises:
        ValueError: a number of bits that no cache stores, or budgets beside anything else.
    """

    window: Window | None = None
    bits: int | None = None
    shared_map: bool = False
    last_guided: int | None = None
    budgets: HeadBudgets | None = None

    def __post_init__(self) -> None:
        if self.budgets and (self.window or self.bits or self.changes_guidance):
            raise ValueError("budgets by head stand alone: no window, packed entries or other guidance beside them")
        if self.bits not in (None, *BITS):
            raise ValueError(f"{self.bits} bits: a cache stores its entries in {', '.join(map(str, BITS))} bits, or as "
                             "they were computed")

    @property
    def is_plain(self) -> bool:
        """Whether all scales are seen as they were computed, by both halves alike."""
        return self.window is None and self.bits is None and not self.changes_guidance and self.budgets is None

    @property
    def changes_guidance(self) -> bool:
        """Whether the unconditional half does not run as the conditional one, so that there must be guidance."""
        return self.shared_map or self.last_guided is not None

    @property
    def one_scale_at_a_time(self) -> str | None:
        """What keeps several scales from one pass, in words; None: nothing."""
        return ("a window" if self.window else "an end of guidance" if self.last_guided is not None else
                "budgets by head" if self.budgets else None)

    def guided(self, k: int) -> bool:
        """Whether the unconditional half runs at scale k."""
        return self.last_guided is None or k <= self.last_guided

    def of_layer(self, layer: int) -> KVScheme:
        """The scheme of a layer, whose window is the same in all layers."""
        return self if self.window is None else replace(self, window=self.window.of_layer(layer))

    def with_wide_layers(self, layers: Iterable[int]) -> KVScheme:
        """The same with other wide layers, where windows differ by layer."""
        return self if self.window is None else replace(self, window=replace(self.window, wide_layers=tuple(layers)))

    def with_contextual_heads(self, heads: Iterable[Iterable[int]]) -> KVScheme:
        """The same with other contextual heads of each layer, where there are budgets by head."""
        if self.budgets is None:
            return self
        return replace(self, budgets=replace(self.budgets, contextual=tuple(map(tuple, heads))))

    def sees(self, k: int, earlier: int) -> bool:
        """Whether queries of scale k see keys of a scale, in layers that run at both and are no wide ones."""
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
        """Check the window and the guided scales.

        Raises:
            ValueError: they are for more scales than there are, or guidance ends where its weight is still 0.
        """
        if self.last_guided is not None and not 2 <= self.last_guided < num_scales:
            raise ValueError(f"guidance at the first {self.last_guided} scales alone: of {num_scales} scales it is at "
                             f"the first 2 to {num_scales - 1}, as its weight is 0 at the first")
        if self.window is None:
            return
        if (largest := self.window.widest or self.window.previous) >= num_scales:
            raise ValueError(f"window W = {largest}: of {num_scales} scales the last has "
                             f"{num_scales - 1} before it")
        if self.window.coarsest > num_scales:
            raise ValueError(f"C = {self.window.coarsest} coarsest scales: there are {num_scales}")

    def check_heads(self, num_heads: int, head_dim: int) -> None:
        """Check that the packed channels of a head fill whole bytes, and that there are heads of both kinds.

        Raises:
            ValueError: they do not, or there are not.
        """
        if self.budgets and num_heads < 2:
            raise ValueError("budgets by head need two kinds of heads, and a layer has one head")
        if self.bits is not None and head_dim % (group := 8 // math.gcd(8, self.bits)):
            raise ValueError(f"{self.bits} bits: {group} channels are packed together, and a head has {head_dim}")


PLAIN = KVScheme()
"""All earlier scales are seen, as they were computed, and both halves run."""
