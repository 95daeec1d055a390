"""The paper's rankings in several experiments: which of them shows which, from the verdicts of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from varient import markdown
from varient.claims.measured import NO_RECORDS, NOT_COMPARABLE
from varient.claims.rendering import read_judgements
from varient.claims.tally import DECIDED
from varient.claims.verdicts import Judgement, Verdict
from varient.files import write_text

_MEASURED = re.compile(r"measured \((?P<experiment>[^()]+)\)")
_PAPER_SIZE = {Verdict.REPRODUCED: True, Verdict.NOT_REPRODUCED: False}


class Shown(StrEnum):
    """What an experiment says of a ranking, by its scores and its losses on held-out images together."""

    SHOWS = "shows"
    REVERSED = "reversed"
    SPLIT = "scores and losses disagree"
    WITHIN_NOISE = "within noise"
    NOT_COMPARABLE = "not comparable"
    NOT_TESTED = "not tested"


def shown(judgement: Judgement) -> Shown:
    """What the experiment says; a loss decides where the scores leave it within their noise or were not taken."""
    decided = DECIDED | _PAPER_SIZE
    opinions = {as_claimed for verdict, as_claimed in decided.items()
                if verdict.value in (judgement.verdict.value, judgement.by_loss)}
    if len(opinions) == 2:
        return Shown.SPLIT
    if opinions:
        return Shown.SHOWS if opinions == {True} else Shown.REVERSED
    if Verdict.NOT_RESOLVED.value in (judgement.verdict.value, judgement.by_loss):
        return Shown.WITHIN_NOISE
    if not judgement.found or NO_RECORDS in judgement.evidence:
        return Shown.NOT_TESTED
    return Shown.NOT_COMPARABLE if NOT_COMPARABLE in judgement.evidence else Shown.WITHIN_NOISE


def read_experiments(paths: Sequence[Path]) -> dict[str, list[Judgement]]:
    """The rankings of each experiment, from the files that `varient claims` writes; the name is that of its records.

    Raises:
        ValueError: as `read_judgements`; a file without a measured ranking, or two of one experiment.
    """
    found: dict[str, list[Judgement]] = {}
    for path in paths:
        orders = [judgement for judgement in read_judgements(path) if judgement.kind == "ranking"]
        names = {match["experiment"] for judgement in orders if (match := _MEASURED.fullmatch(judgement.source))}
        if len(names) != 1:
            raise ValueError(f"{path}: needs rankings measured by one experiment, and has those of "
                             f"{', '.join(sorted(names)) or 'none'}")
        if (name := names.pop()) in found:
            raise ValueError(f"{path}: a second file of {name}")
        found[name] = orders
    return found


def write_orders(experiments: Mapping[str, Sequence[Judgement]], output: Path) -> None:
    """Write a Markdown page with a row for each ranking and a column for each experiment.

    Args:
        experiments: rankings by name of the experiment.
    """
    by_id = {name: {judgement.id: judgement for judgement in orders} for name, orders in experiments.items()}
    rows = []
    for claim in dict.fromkeys(claim for orders in by_id.values() for claim in orders):
        there = {name: orders.get(claim) for name, orders in by_id.items()}
        first = next(filter(None, there.values()))
        rows.append([first.claim, first.where, claim, *map(_cell, there.values()), _where(there)])
    page = "\n".join([
        f"The paper's rankings in {len(by_id)} experiments, by scores and, where they are taken, losses on held-out "
        f"images together. \"{Shown.SHOWS}\" and \"{Shown.REVERSED}\" are beyond noise; of a ranking that is reversed, "
        "some pair is. In brackets: the loss alone decides, or what the scores say of the pairs that have records. The "
        "verdicts of each experiment have the evidence.\n",
        markdown.table(["Ranking", "Where", "Id", *by_id, "Shows in"], rows)])
    write_text(output, page)


def _cell(judgement: Judgement | None) -> str:
    if judgement is None:
        return Shown.NOT_TESTED
    if judgement.verdict is Verdict.CONTRADICTS:
        return "contradicted in print"
    said = shown(judgement)
    if judgement.verdict is Verdict.OPEN and judgement.found:
        return f"{said} ({judgement.found})"
    if said in (Shown.SHOWS, Shown.REVERSED) and judgement.verdict not in DECIDED | _PAPER_SIZE:
        return f"{said} (by loss)"
    return said


def _where(there: Mapping[str, Judgement | None]) -> str:
    showing = [name for name, judgement in there.items()
               if judgement and judgement.verdict is not Verdict.CONTRADICTS and shown(judgement) is Shown.SHOWS]
    return "all" if len(showing) == len(there) else ", ".join(showing) or "none"
