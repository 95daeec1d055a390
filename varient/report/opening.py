"""The first page of the report, in reStructuredText: what holds, what does not, what is open, and Table 2 in short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from varient.claims.judgement import Verdict
from varient.files import write_text
from varient.paper import TITLE

_SECTIONS = (
    ("What does not hold", (Verdict.CONTRADICTS, Verdict.NOT_REPRODUCED),
     "Printed numbers that arithmetic, or another printed number of the same quantity, contradicts."),
    ("What the miniature shows", (Verdict.SEEN, Verdict.REPRODUCED),
     "Directions that networks trained here show beyond their noise. They are no proof for ImageNet."),
    ("What the miniature shows otherwise, or cannot tell", (Verdict.NOT_SEEN, Verdict.NOT_RESOLVED),
     "Directions that these networks show the other way round, or that lie within their noise."),
)


def write_opening(claims: Path, table2: Path, output: Path) -> None:
    """Write the page from results/claims.csv and results/table2.csv.

    Raises:
        ValueError: files of another kind.
    """
    judged, systems = (pd.read_csv(path, dtype=str, keep_default_na=False) for path in (claims, table2))
    for frame, path, needed in ((judged, claims, {"id", "verdict", "evidence"}), (systems, table2, {"method", "fid"})):
        if missing := needed - set(frame.columns):
            raise ValueError(f"{path}: has no column {', '.join(sorted(missing))}")
    counts = judged["verdict"].value_counts()
    parts = [
        _heading("Does VARiant hold?", "="),
        f"{TITLE}: {len(judged)} claims, the sentences of its text and every cell of its tables, each with a verdict "
        "that is computed and a command that shows it.",
        _table(["Verdict", "Claims"], [[verdict, str(counts[verdict])] for verdict in Verdict if verdict in counts]),
        "*holds* and *contradicts* come from arithmetic and from the paper's own numbers alone, at its own size. "
        "*open* needs the authors' weights, ImageNet or a GPU.",
    ]
    for title, verdicts, words in _SECTIONS:
        if len(found := judged[judged["verdict"].isin(verdicts)]):
            parts += [_heading(title, "-"), words, _claims(found)]
    parts += [_heading("Every system by the same hands", "-"),
              "Measured here; ± is half of a 95 % interval. The full table and what each cell comes from: category 2.",
              _systems(systems),
              _heading("Where to look next", "-"),
              "*Claims and verdicts* has every row with its evidence; *Tables* and *Figures* are the paper's, ours "
              "beside the paper's; *Ablations* has every arm. A caption says how each was made; its rule and code are "
              "one click away."]
    write_text(output, "\n\n".join(parts) + "\n")


def _claims(found: pd.DataFrame) -> str:
    """One line for each evidence: cells that are judged by the same sentence share it."""
    groups = found.groupby("evidence", sort=False)
    rows = [[_where(group), _shortened(group["claim"].tolist()), _shortened(group["printed"].tolist()), evidence]
            for evidence, group in groups]
    return _table(["Where", "Claim", "Printed", "Evidence"], rows)


def _where(group: pd.DataFrame) -> str:
    return _shortened(group["where"].tolist())


def _shortened(texts: Sequence[str], most: int = 3) -> str:
    texts = list(dict.fromkeys(texts))
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


def _systems(table: pd.DataFrame) -> str:
    def cell(row: pd.Series, column: str) -> str:
        half_width = row.get(f"{column}_pm", "")
        return row.get(column, "") + (f" ± {half_width}" if half_width else "") or "–"

    columns = {"method": "System", "fid": "FID", "is": "IS", "latency_s": "Latency (s)", "speedup": "Speedup",
               "memory_mb": "Memory (MiB)", "kv_cache_mb": "KV (MiB)"}
    return _table(list(columns.values()), [[cell(row, column) for column in columns] for _, row in table.iterrows()])


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


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
