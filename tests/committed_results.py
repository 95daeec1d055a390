"""Results as they are committed in docs/results: tables as text, and the records behind them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from conftest import ROOT

from varient.results import Results

FOLDER = ROOT / "docs/results"


def rows(text: str, head: str) -> list[dict[str, str]]:
    """Rows of the Markdown table whose first line starts with ``head``."""
    lines = text[text.index(head):].splitlines()
    lines = lines[:next((number for number, line in enumerate(lines) if not line.startswith("|")), None)]
    names, _, *cells = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in cells]


def committed(experiment: str = "digits") -> Results:
    """All records of an experiment's run; training curves are not committed."""
    with TemporaryDirectory() as run_dir:
        folder = Path(run_dir) / "records"
        folder.mkdir()
        for number, line in enumerate((FOLDER / f"{experiment}-records.jsonl").read_text().splitlines()):
            (folder / f"{json.loads(line)['kind']}-{number}.json").write_text(line)
        results = Results.read([], found_in=Path(run_dir),
                               benchmarks=sorted((ROOT / "benchmarks/records").glob("profile-*.json")))
    assert not results.remarks
    return results
