"""How many findings the verdicts are, in how many places they are printed, and how pages group them.

A value that the paper prints in five places is one finding in five places, and so is a discrepancy between two tables.
These are the counts that every page and `varient claims` show.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from varient.claims.verdicts import Judgement, Verdict

DECIDED = {Verdict.SEEN: True, Verdict.REVERSED: False, Verdict.PARTLY_REVERSED: False}
"""Verdicts by which a miniature decides a ranking, and whether it is as claimed then."""


class Tally(NamedTuple):
    """Counts of some judgements."""

    findings: int
    places: int

    @classmethod
    def of(cls, judgements: Collection[Judgement]) -> Tally:
        """Of these judgements."""
        return cls(len({judgement.finding for judgement in judgements}), len(judgements))

    def __str__(self) -> str:
        return f"{_counted(self.findings, 'finding')} in {_counted(self.places, 'place')}"


def by_verdict(judgements: Sequence[Judgement]) -> dict[Verdict, Tally]:
    """The tally of each verdict that occurs; a finding whose places have two verdicts counts under both."""
    groups = {verdict: [judgement for judgement in judgements if judgement.verdict is verdict] for verdict in Verdict}
    return {verdict: Tally.of(group) for verdict, group in groups.items() if group}


def decided_rankings(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """Number of rankings that a miniature decides, and of all."""
    rankings = [judgement for judgement in judgements if judgement.kind == "ranking"]
    return sum(judgement.verdict in DECIDED for judgement in rankings), len(rankings)


def decided_with_losses(judgements: Sequence[Judgement]) -> tuple[int, int]:
    """Number of rankings that scores or held-out losses decide, and of those of which the two say opposite things.

    The second are not among the first.
    """
    opinions = [{as_claimed for verdict, as_claimed in DECIDED.items()
                 if verdict.value in (judgement.verdict.value, judgement.by_loss)}
                for judgement in judgements if judgement.kind == "ranking"]
    return sum(len(found) == 1 for found in opinions), sum(len(found) == 2 for found in opinions)


def summary(judgements: Sequence[Judgement]) -> str:
    """The tallies, a line for each verdict and one for all."""
    lines = [f"{verdict}: {tally}" for verdict, tally in by_verdict(judgements).items()]
    return "\n".join([*lines, f"in all: {Tally.of(judgements)}"])


def by_finding(judgements: Iterable[Judgement]) -> list[list[Judgement]]:
    """The places of each finding."""
    return list(_grouped(judgements, lambda judgement: judgement.finding).values())


def by_want(judgements: Iterable[Judgement]) -> dict[str, list[Judgement]]:
    """Open claims by what would close them, in words or as a command."""
    return _grouped(judgements, _wanted)


def otherwise(judgement: Judgement) -> str:
    """What gives another value than the printed one, in words."""
    return "other printed numbers" if judgement.source == "paper" else judgement.source


def _wanted(judgement: Judgement) -> str:
    if judgement.source == "predicted":
        return "a measurement on the paper's GPU; the cost model's prediction stands with the evidence"
    if judgement.command.startswith("snakemake"):
        return judgement.command
    if judgement.source.startswith("measured"):
        return "measured, but within noise or not comparable; the evidence says which"
    return ("nothing here: settings, and numbers for which the paper does not say what was measured, or prints nothing "
            "to check them against")


def _grouped(judgements: Iterable[Judgement], key: Callable[[Judgement], str]) -> dict[str, list[Judgement]]:
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(key(judgement), []).append(judgement)
    return groups


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
