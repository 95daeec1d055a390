"""Table cells, ours beside the paper's, and their rendering as csv, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from varient.paper_size import UNKNOWN_WEIGHTS
from varient.records import ScoreRecord
from varient.results import SeedSpread
from varient.spread import NORMAL_95 as NORMAL_95
from varient.spread import half_width, joined

ABSENT = "–"

ARITHMETIC, PREDICTED = "arithmetic", "predicted"
MARKS = {ARITHMETIC: "ᵃ", PREDICTED: "ᵖ", UNKNOWN_WEIGHTS: "ᵘ"}
"""Marks of values that are exact from shapes, predicted by the cost model, or measured on other weights than the
paper's."""


@dataclass(frozen=True)
class Cell:
    """One value of ours, and the paper's.

    Attributes:
        ours: our value as shown; empty without one.
        half_width: half the width of its 95 % confidence interval.
        paper: the paper's value as printed.
        source: of our value: "measured (digits)", "arithmetic", "predicted (l20)"; or why it is absent.
    """

    ours: str = ""
    half_width: str = ""
    paper: str = ""
    source: str = ""


Row = Mapping[str, "str | Cell"]


def number(value: float | None, digits: int) -> str:
    """A value with ``digits`` decimals; empty for None."""
    return "" if value is None else f"{value:.{digits}f}"


def measured(record: ScoreRecord | None, name: str, digits: int, paper: str = "", missing: str = "") -> Cell:
    """A score of a record, with the 95 % interval over redraws of the images where the record has its sd."""
    value = getattr(record, name, None)
    if record is None or value is None:
        return Cell(paper=paper, source=missing)
    sd = getattr(record, f"{name}_sd", None)
    return Cell(number(value, digits), number(None if sd is None else half_width(sd), digits), paper,
                f"measured ({record.provenance.experiment})")


def averaged(spread: SeedSpread | None, digits: int, experiment: str, paper: str = "", missing: str = "") -> Cell:
    """The mean of several trainings with its 95 % interval; a single training has no interval."""
    if spread is None:
        return Cell(paper=paper, source=missing)
    trainings = f"mean of {spread.count} trainings" if spread.count > 1 else "one training"
    return Cell(number(spread.mean, digits), number(spread.half_width_95, digits), paper,
                f"measured ({experiment}), {trainings}")


def flatten(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows of text and cells as columns x, x_pm, x_paper, x_source; empty ones of the last three are left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, list[str]] = {}
    for name in names:
        found = [row.get(name, "") for row in rows]
        cells = [value if isinstance(value, Cell) else Cell(str(value)) for value in found]
        columns[name] = [cell.ours for cell in cells]
        for suffix, part in (("pm", "half_width"), ("paper", "paper"), ("source", "source")):
            if any(values := [getattr(cell, part) for cell in cells]):
                columns[f"{name}_{suffix}"] = values
    return pd.DataFrame(columns)


def side_by_side(frame: pd.DataFrame, headings: Mapping[str, str]) -> pd.DataFrame:
    """Columns x, x_pm, x_paper, x_source folded into one column "ours ± half-width, mark / paper's"."""
    shown = {}
    for column in frame.columns:
        if column.endswith(("_paper", "_pm", "_source")):
            continue
        ours = frame[column].astype(str).replace("", ABSENT)
        if (spread := f"{column}_pm") in frame:
            ours = ours.combine(frame[spread].astype(str), joined)
        if (source := f"{column}_source") in frame:
            ours += frame[source].astype(str).map(_mark).where(frame[column] != "", "")
        if (paper := f"{column}_paper") in frame:
            ours = ours + " / " + frame[paper].astype(str).replace("", ABSENT)
        shown[headings.get(column, column)] = ours
    return pd.DataFrame(shown)


def _mark(source: str) -> str:
    return next((mark for kind, mark in MARKS.items() if kind in source), "")


_IN_LATEX = str.maketrans(
    {"±": r"$\pm$", "×": r"$\times$", ABSENT: "--"}
    | {mark: rf"\textsuperscript{{{kind[0]}}}" for kind, mark in MARKS.items()}
    | {"[": "{[}", "*": "{*}"})  # `\\` at the end of the line before would take them for arguments


def latex(shown: pd.DataFrame, comment: str) -> str:
    """A booktabs tabular; ``comment`` stands above it."""
    plain = shown.rename(columns=_one_line).map(_one_line)
    style = plain.style.format(escape="latex").format_index(escape="latex", axis="columns").hide(axis="index")
    tabular = style.to_latex(hrules=True, column_format="l" + "r" * (len(shown.columns) - 1))
    above = "".join(f"% {line}\n" for line in comment.splitlines() if line)
    head, body = tabular.split("\n", 1)
    return f"{above}{head}\n{body.translate(_IN_LATEX)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
