"""Writing of a table as csv, Markdown and LaTeX, with its notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from varient import markdown
from varient.config import ExperimentConfig
from varient.files import write_text
from varient.paper_size import UNKNOWN_WEIGHTS, unknown_weights
from varient.profile_records import ProfileRecord
from varient.records import ScoreRecord
from varient.report.cells import latex, side_by_side
from varient.results import Results
from varient.targets import table_files


def with_unknown_weights_said(frame: pd.DataFrame, config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """The table; where records are of weights which nobody knows, its measured values say so."""
    records: list[ScoreRecord | ProfileRecord] = [*results.scores.values(), *results.profiles.values()]
    if not any(unknown_weights(config, record) for record in records):
        return frame
    sources = [column for column in frame.columns if column.endswith("_source")]
    return frame.assign(**{column: frame[column].astype(str).map(
        lambda source: f"{source}, {UNKNOWN_WEIGHTS}" if source.startswith("measured") else source)
        for column in sources})


def write_table(frame: pd.DataFrame, headings: Mapping[str, str], notes: Sequence[str], stem: Path) -> list[Path]:
    """Write <stem>.csv, .md and .tex; return the paths.

    Args:
        frame: columns as `varient.report.cells.flatten` makes them.
        headings: column -> its heading in .md and .tex.
        notes: paragraphs above the table in .md and .tex.
    """
    shown = side_by_side(frame, headings)
    readable = [*map(markdown.escaped, notes), markdown.table(shown.columns, shown.values.tolist())]
    paths = table_files(stem)
    for path, text in zip(paths, (frame.to_csv(index=False), "\n\n".join(readable), latex(shown, "\n".join(notes))),
                          strict=True):
        write_text(path, text)
    return paths
