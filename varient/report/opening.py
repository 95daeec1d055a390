"""The report's first page and the summary behind it: what is contradicted, shown, reversed or open; Table 2 in short.

The first page is a list that a screen or two hold; the summary is a page of its own with the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from docutils.core import publish_string

from varient.claims import Verdict
from varient.files import write_text
from varient.paper import TITLE

_TOLD = (Verdict.CONTRADICTS, Verdict.NOT_REPRODUCED, Verdict.REPRODUCED, Verdict.SEEN, Verdict.REVERSED,
         Verdict.PARTLY_REVERSED, Verdict.NOT_RESOLVED)
"""Verdicts whose claims are named, in this order; of the others their number is enough."""

_TITLE = "Does VARiant hold?"
_NAMED = 5
"""Claims that the first page names for one verdict."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td p, th p { margin: 0 }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd }
"""


def write_opening(claims: Path, table2: Path, opening: Path, summary: Path) -> None:
    """Write both pages from results/claims.csv and results/table2.csv.

    Args:
        opening: reStructuredText, for `report:`.
        summary: a self-contained HTML page.

    Raises:
        ValueError: files of another kind.
    """
    judged, systems = map(_table_in, (claims, table2))
    for frame, path, needed in ((judged, claims, {"id", "verdict", "evidence", "found", "source"}),
                                (systems, table2, {"method", "fid"})):
        if missing := needed - set(frame.columns):
            raise ValueError(f"{path}: has no column {', '.join(sorted(missing))}")
    write_text(opening, _opening(judged))
    settings = {"embed_stylesheet": True, "stylesheet_path": "", "halt_level": 2}
    page = publish_string(_summary(judged, systems), writer="html5", settings_overrides=settings).decode()
    write_text(summary, page.replace("</head>", f"<style>{_STYLE}</style></head>"))


def _table_in(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no table that can be read ({' '.join(str(error).split())[:100]})") from None


def _opening(judged: pd.DataFrame) -> str:
    contradicted = judged[judged["verdict"] == Verdict.CONTRADICTS]
    by_arithmetic = contradicted[contradicted["source"] == "arithmetic"]
    # One quantity may be printed in several tables.
    errors = [_escaped(f"{row.where}, {row.claim}: {row.printed} ({row.found})")
              for row in by_arithmetic.drop_duplicates(["printed", "found"]).itertuples()]
    parts = [_heading(_TITLE, "="),
             f"{TITLE}: {len(judged)} claims, that is numbers and sentences of its text, cells of its tables, and "
             f"rankings of systems. Counts of the verdicts: {_counts(judged)}.",
             *_list(f"Contradicted by arithmetic, {len(by_arithmetic)} of the {len(contradicted)} contradicted claims "
                    "(in brackets: what arithmetic gives)", errors)]
    for verdict in _TOLD[1:]:
        found = judged[judged["verdict"] == verdict]
        named = _escaped(_shortened(found["claim"], _NAMED))
        parts += [f"**{verdict.heading} ({len(found)}):** {named}."] if len(found) else []
    parts += ["**What the verdicts mean:**", _meanings(judged),
              "The evidence for each claim is under category 1, *summary*; tables, figures and ablations follow."]
    return "\n\n".join(parts) + "\n"


def _counts(judged: pd.DataFrame) -> str:
    counts = judged["verdict"].value_counts()
    return ", ".join(f"{verdict}: {counts[verdict]}" for verdict in Verdict if verdict in counts)


def _meanings(judged: pd.DataFrame) -> str:
    """A list of the verdicts that occur and what each means."""
    return "\n".join(f"* *{verdict}*: {_escaped(verdict.meaning)}."
                     for verdict in Verdict if (judged["verdict"] == verdict).any())


def _summary(judged: pd.DataFrame, systems: pd.DataFrame) -> str:
    parts = [_heading(_TITLE, "="),
             f"{TITLE}: {len(judged)} claims, that is numbers and sentences of its text, cells of its tables, and "
             f"rankings of systems. Each verdict is computed; claims.csv has, for each, a command that shows it. "
             f"Counts of the verdicts: {_counts(judged)}.", _meanings(judged)]
    for verdict in _TOLD:
        if len(found := judged[judged["verdict"] == verdict]):
            parts += [_heading(verdict.heading, "-"), _claims(found)]
    parts += [_heading("All systems under the same protocol", "-"),
              "Measured here; ± is half the width of a 95 % interval. Table 2 gives the source of each cell.",
              _systems(systems)]
    return "\n\n".join(parts) + "\n"


def _claims(found: pd.DataFrame) -> str:
    """One line for each evidence: cells that are judged by the same sentence share it."""
    rows = [[_shortened(group["where"]), _shortened(group["claim"]), _shortened(group["printed"]), evidence]
            for evidence, group in found.groupby("evidence", sort=False)]
    return _table(["Where", "Claim", "Printed", "Evidence"], rows)


def _shortened(texts: Iterable[str], most: int = 3) -> str:
    texts = list(dict.fromkeys(texts))
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


def _systems(table: pd.DataFrame) -> str:
    def cell(row: pd.Series, column: str) -> str:
        half_width = row.get(f"{column}_pm", "")
        return row.get(column, "") + (f" ± {half_width}" if half_width else "")

    columns = {"method": "System", "fid": "FID", "is": "IS", "latency_s": "Latency (s)", "speedup": "Speedup",
               "memory_mb": "Memory (MiB)", "kv_cache_mb": "KV (MiB)"}
    return _table(list(columns.values()), [[cell(row, column) for column in columns] for _, row in table.iterrows()])


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _list(title: str, items: Sequence[str]) -> list[str]:
    return [f"**{title}:**", "\n".join(f"* {item}" for item in items)] if items else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        lines += [f"   {'*' if at == 0 else ' '} - {_escaped(text)}" for at, text in enumerate(row)]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Text that reStructuredText takes as it is, also where Snakemake's templates would see a brace."""
    for character in "\\*`|_":
        text = text.replace(character, f"\\{character}")
    return text.replace("{", "(").replace("}", ")") or "–"
