"""What is said about a claim in the end, and what a single kind of evidence says on the way there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The words of the project, each with its heading and its meaning; every page takes all three from here."""

    heading: str
    meaning: str

    def __new__(cls, word: str, heading: str, meaning: str) -> Verdict:
        verdict = str.__new__(cls, word)
        verdict._value_ = word
        verdict.heading, verdict.meaning = heading, meaning
        return verdict

    CONTRADICTS = ("contradicts", "Contradicted",
                   "arithmetic, or another printed number of the same quantity, gives another result")
    NOT_REPRODUCED = ("not reproduced", "Not reproduced at the paper's size",
                      "measured at the paper's size, with another result")
    REVERSED = ("direction reversed in miniature", "The miniature shows the opposite",
                "in the miniature every difference is the other way round, beyond its noise")
    PARTLY_REVERSED = ("direction partly reversed in miniature", "The miniature reverses part of it",
                       "in the miniature some difference is the other way round, beyond its noise, but not every one")
    NOT_RESOLVED = ("not resolved in miniature", "The miniature cannot decide",
                    "in the miniature some difference is within its noise, and none is reversed beyond it")
    SEEN = ("direction reproduced in miniature", "The miniature shows it",
            "in the miniature every difference is as claimed, beyond its noise; no proof for ImageNet")
    REPRODUCED = ("reproduced", "Reproduced at the paper's size",
                  "measured at the paper's size, with the same result")
    HOLDS = ("holds", "Holds by arithmetic", "arithmetic, from shapes alone, gives it within the printed rounding")
    CONSISTENT = ("consistent", "Consistent with the paper's other numbers",
                  "follows from other numbers that the paper prints; nobody has checked those")
    OPEN = ("open", "Open", "needs weights, data or a GPU, has nothing to be checked against, or is measured at the "
            "paper's size but within noise")


@dataclass(frozen=True)
class Evidence:
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
        id: of the claim: that of claims.csv, a cell ("table2-variant-d16-fid"), or a ranking ("table1-order").
        where: in the paper.
        claim: what is claimed, in words.
        printed: the value as printed, or the ranking of values.
        found: what the evidence gives; empty where there is none.
        evidence: in sentences.
        source: of `found`: paper, arithmetic, predicted or measured (...).
        command: shows the evidence again, or would make it.
        kind: "text", "cell" of a table, or "ranking".
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
