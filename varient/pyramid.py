"""The scale pyramid r_1..r_K that VAR generates coarse to fine (paper, Eq. 1).  Integers only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

Zone = tuple[int, int]
"""First and last scale of a zone of a pyramid, counted from 1."""


@dataclass(frozen=True)
class Pyramid:
    """Sides, offsets and token counts of the K square token maps, which are concatenated to one sequence of L tokens.

    Scales are counted from 1, as in the paper: scale k holds the tokens ``begin(k) <= i < end(k)``.

    Raises:
        ValueError: no scale, a side below 1, or a side smaller than the one before it.
    """

    patch_nums: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "patch_nums", tuple(self.patch_nums))
        if not self.patch_nums:
            raise ValueError("patch_nums is empty: a pyramid needs at least one scale")
        for k, (before, side) in enumerate(zip((1, *self.patch_nums[:-1]), self.patch_nums, strict=True), start=1):
            if side < before:
                raise ValueError(f"patch_nums {list(self.patch_nums)}: side {side} of scale {k} is below {before}")

    @property
    def num_scales(self) -> int:
        """K."""
        return len(self.patch_nums)

    @property
    def scales(self) -> range:
        """1..K."""
        return range(1, self.num_scales + 1)

    def side(self, k: int) -> int:
        """Height and width of token map r_k."""
        return self.patch_nums[self._index(k)]

    def tokens(self, k: int) -> int:
        """Tokens of scale k."""
        return self.side(k) ** 2

    def begin(self, k: int) -> int:
        """Offset of the first token of scale k."""
        return self._ends[self._index(k)]

    def end(self, k: int) -> int:
        """Offset after the last token of scale k, which is the number of tokens in r_1..r_k (0 for k = 0)."""
        return 0 if k == 0 else self._ends[self._index(k) + 1]

    @property
    def length(self) -> int:
        """L, the number of tokens of all scales."""
        return self._ends[-1]

    def share(self, zone: Zone) -> float:
        """Percentage of all tokens that lie in a zone."""
        first, last = zone
        return 100 * (self.end(last) - self.begin(first)) / self.length

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return (0, *accumulate(side * side for side in self.patch_nums))

    def _index(self, k: int) -> int:
        if not 1 <= k <= self.num_scales:
            raise ValueError(f"scale {k} is outside 1..{self.num_scales}")
        return k - 1


VAR_256 = Pyramid((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
"""The ten scales of VAR at 256 x 256: 680 tokens, 91 of them in r_1..r_6."""

VAR_512 = Pyramid((1, 2, 3, 4, 6, 9, 13, 18, 24, 32))
"""The ten scales of VAR at 512 x 512, as released."""
