"""The first page of the report and the summary behind it: what holds, what does not, what is open, Table 2 in short.

The first page is a list that a screen or two hold; the summary is a page of its own with the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
from docutils.core import publish_string

from varient.claims.judgement import Verdict
from varient.files import write_text
from varient.paper import TITLE

_SECTIONS = (
    ("What does not hold", Verdict.CONTRADICTS,
     "Printed numbers that arithmetic, or another printed number of the same quantity, contradicts."),
    ("What measurements at the paper's size do not show", Verdict.NOT_REPRODUCED, "Measured, with another result."),
    ("What measurements at the paper's size show", Verdict.REPRODUCED, "Measured, with the same result."),
    ("Claims that the miniature shows", Verdict.SEEN,
     "Directions that networks trained here show beyond their noise. They are no proof for ImageNet."),
    ("Claims that the miniature reverses", Verdict.NOT_SEEN,
     "Directions that these networks show the other way round, beyond their noise."),
    ("Claims that the miniature cannot decide", Verdict.NOT_RESOLVED,
     "Differences within the noise of these networks."),
)
_HOW = ("*holds* and *contradicts* come from arithmetic and from the paper's own numbers, at its own size; *in "
        "miniature* from networks trained here; *open* needs the authors' weights, ImageNet or a GPU.")

_NAMED = 5
"""Claims that the first page names of a section."""

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
    judged, systems = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (claims, table2))
    for frame, path, needed in ((judged, claims, {"id", "verdict", "evidence", "found", "source"}),
                                (systems, table2, {"method", "fid"})):
        if missing := needed - set(frame.columns):
            raise ValueError(f"{path}: has no column {', '.join(sorted(missing))}")
    write_text(opening, _opening(judged))
    settings = {"embed_stylesheet": True, "stylesheet_path": "", "halt_level": 2}
    page = publish_string(_summary(judged, systems), writer="html5", settings_overrides=settings).decode()
    write_text(summary, page.replace("</head>", f"<style>{_STYLE}</style></head>"))


def _opening(judged: pd.DataFrame) -> str:
    contradicted = judged[judged["verdict"] == Verdict.CONTRADICTS]
    counted = contradicted[contradicted["source"] == "arithmetic"]
    # One quantity may be printed in several tables.
    slips = [_escaped(f"{row.where}, {row.claim}: {row.printed} ({row.found})")
             for row in counted.drop_duplicates(["printed", "found"]).itertuples()]
    parts = [_heading("Does VARiant hold?", "="),
             f"{TITLE}, {len(judged)} claims: its text, its tables' cells, their orders. {_counts(judged)}. {_HOW}",
             *_list(f"Does not hold by arithmetic (in brackets what does), {len(counted)} of {len(contradicted)} "
                    "contradicted numbers", slips)]
    for title, verdict, _ in _SECTIONS[1:]:
        found = judged[judged["verdict"] == verdict]
        parts += [f"**{title} ({len(found)}):** {_escaped(_shortened(found['claim'], _NAMED))}."] if len(found) else []
    parts.append("The evidence for each is in category 1, *summary*; tables, figures and ablations follow.")
    return "\n\n".join(parts) + "\n"


def _counts(judged: pd.DataFrame) -> str:
    counts = judged["verdict"].value_counts()
    return ", ".join(f"{verdict}: {counts[verdict]}" for verdict in Verdict if verdict in counts)


def _summary(judged: pd.DataFrame, systems: pd.DataFrame) -> str:
    parts = [_heading("Does VARiant hold?", "="),
             f"{TITLE}: {len(judged)} claims of its text, the cells of its tables and the orders that they show, each "
             f"with a verdict that is computed and, in claims.csv, a command that shows it. {_counts(judged)}.", _HOW]
    for title, verdict, words in _SECTIONS:
        if len(found := judged[judged["verdict"] == verdict]):
            parts += [_heading(title, "-"), words, _claims(found)]
    parts += [_heading("Every system by the same hands", "-"),
              "Measured here; ± is half of a 95 % interval. What each cell comes from: Table 2.", _systems(systems)]
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
