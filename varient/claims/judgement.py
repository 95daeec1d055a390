"""What is said about a claim in the end, and what a single kind of evidence says on the way there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The words of the project, strongest against the paper first."""

    CONTRADICTS = "contradicts"
    """Arithmetic, or another printed number of the same quantity, says otherwise."""
    NOT_REPRODUCED = "not reproduced"
    """Measured at the paper's size, with another result."""
    NOT_SEEN = "direction not seen in miniature"
    """The experiment at hand shows the opposite beyond its noise."""
    NOT_RESOLVED = "not resolved in miniature"
    """Some difference lies within its noise, none is the opposite beyond it."""
    SEEN = "direction reproduced in miniature"
    """The experiment at hand shows every difference beyond its noise."""
    REPRODUCED = "reproduced"
    """Measured at the paper's size, with the same result."""
    HOLDS = "holds"
    """Arithmetic gives the printed number within its rounding."""
    OPEN = "open"
    """Needs weights, data or a GPU that nobody has put in."""


@dataclass(frozen=True)
class Finding:
    """What one kind of evidence says.

    Attributes:
        agrees: with the claim; None: it has something to say but decides nothing.
        found: the value that it gives.
        sentence: for people.
        source: paper, arithmetic, predicted or measured (...).
        command: shows it again.
    """

    agrees: bool | None
    found: str
    sentence: str
    source: str
    command: str


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict.

    Attributes:
        id: of the claim: that of claims.csv, a cell ("table2-variant-d16-fid"), or an order ("table1-order").
        where: in the paper.
        claim: what is claimed, in words.
        printed: the value as printed, or the order of values.
        found: what the evidence gives; empty where there is none.
        evidence: in sentences.
        source: of `found`: paper, arithmetic, predicted or measured (...).
        command: shows the evidence again, or would make it.
        kind: "text", "cell" of a table, or "order".
    """

    id: str
    where: str
    claim: str
    printed: str
    verdict: Verdict
    found: str
    evidence: str
    source: str
    command: str
    kind: str
