"""Cache budgets by head, in the style of HACK: how many entries a head keeps after each scale.  Integers only.

HACK tells two kinds of heads apart.  A contextual head attends to the same few tokens wherever its query is and gets a
small budget; a structural head attends by position and gets a large one.  We know it from notes by others alone, which
give neither the share of contextual heads nor the ratio of the two budgets, so both are ours: half of the heads of each
layer are contextual, and their budget is a quarter of the mean one.  Which heads they are is calibrated
(`varient.systems.head_kinds`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

HeadKind = Literal["contextual", "structural"]
HEAD_KINDS: tuple[HeadKind, ...] = ("contextual", "structural")
OBSERVERS = 32
"""Largest number of queries of a scale whose attention decides what a head keeps; said to be HACK's N_obs."""
FIRST_SCALES = 2
"""A structural head keeps these coarsest scales."""


class Kept(NamedTuple):
    """Entries of a head that stay after a scale, by their place among those which the scale has seen.

    Attributes:
        first: of the coarsest scales, all kept.
        best: of those between, the ones with the most attention.
        newest: of the scale itself, all kept.
    """

    first: int
    best: int
    newest: int


@dataclass(frozen=True)
class HeadBudgets:
    """Budgets of the heads of all layers.

    Attributes:
        percent: mean of the two budgets, of all tokens of an image.  Heads may keep less, as there may not be so many
            entries, or more, as a structural head keeps some scales in any case.
        contextual: of each layer, the contextual heads, ascending; empty: the first half of the heads.

    Raises:
        ValueError: a budget of nothing or of everything, or contextual heads that are not ascending or not equally many
            in all layers.
    """

    percent: int
    contextual: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.percent <= 99:
            raise ValueError(f"budgets of {self.percent} % of the tokens: they are 1 to 99 %")
        for heads in self.contextual:
            if not heads or list(heads) != sorted(set(heads)) or len(heads) != len(self.contextual[0]):
                raise ValueError(f"contextual heads {heads}: they are ascending, and equally many in all layers")

    def heads(self, layer: int, num_heads: int) -> dict[HeadKind, tuple[int, ...]]:
        """The heads of a layer by kind, each ascending."""
        contextual = self.contextual[layer] if self.contextual else tuple(range(num_heads // 2))
        return {"contextual": contextual,
                "structural": tuple(head for head in range(num_heads) if head not in contextual)}

    def budget(self, kind: HeadKind, length: int) -> int:
        """Entries of a head of a kind.

        Args:
            length: tokens of an image, L.
        """
        mean = max(length * self.percent // 100, 1)
        small = max(mean // 4, 1)
        return small if kind == "contextual" else 2 * mean - small

    def kept(self, kind: HeadKind, *, length: int, seen: int, first: int, newest: int) -> Kept:
        """What stays after a scale that a later one follows.

        Args:
            length: tokens of an image, L.
            seen: entries that the scale has seen, its own included.
            first: those of the `FIRST_SCALES`.
            newest: those of the scale itself; 0 if it is one of the `FIRST_SCALES`.
        """
        budget = self.budget(kind, length)
        if kind == "contextual":
            return Kept(0, min(seen, budget), 0)
        return Kept(first, min(seen - first - newest, max(budget - first - newest, 0)), newest)


def observer_stride(tokens: int) -> int:
    """Distance of the evenly spaced queries of a scale that are observed, at most `OBSERVERS` of them."""
    return -(-tokens // OBSERVERS)
