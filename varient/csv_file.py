"""Reader of CSV files with a head: limited in size, and checked for what damage leaves of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

Row = dict[str, str]

_MOST_CHARACTERS = 2 ** 24


def read_rows(path: Path, needed: Collection[str]) -> list[Row]:
    """The rows of a CSV file, each with a cell for each column.

    Raises:
        ValueError: a file that is missing, damaged, cut off or without the needed columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(_MOST_CHARACTERS + 1)
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: no table that can be read ({' '.join(str(error).split())[:100]})") from None
    if not text.endswith("\n") or len(text) > _MOST_CHARACTERS:
        raise ValueError(f"{path}: no table that can be read (empty, cut off, or larger than any of ours)")
    head = rows[0]
    if missing := set(needed) - set(head):
        raise ValueError(f"{path}: has no column {', '.join(sorted(missing))}")
    if odd := next((number for number, row in enumerate(rows, 1) if len(row) != len(head)), None):
        raise ValueError(f"{path}: row {odd} has {len(rows[odd - 1])} cells, expected {len(head)}: cut off or edited")
    return [dict(zip(head, row, strict=True)) for row in rows[1:]]
