"""The results of the digits run as they are committed in docs/results, read back as records.

Scores come from the ablations, where they have six digits, and else from Table 2; latencies have the four decimals of
Table 2 and no repeats; training curves are not committed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from conftest import ROOT
from record_factory import profile, reconstruction, score

from varient.config import load_config
from varient.records import ProfileRecord, ScoreRecord
from varient.results import Results
from varient.spread import NORMAL_95

FOLDER = ROOT / "docs/results"
DEVICE = "CPU AMD EPYC"
_SCORES = {"FID": "fid", "IS": "inception_score", "Prec": "precision", "Rec": "recall", "Judge accuracy": "recognised"}


def rows(text: str, head: str) -> list[dict[str, str]]:
    """Rows of the Markdown table whose first line starts with ``head``."""
    lines = text[text.index(head):].splitlines()
    lines = lines[:next((number for number, line in enumerate(lines) if not line.startswith("|")), None)]
    names, _, *cells = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    return [dict(zip(names, row, strict=True)) for row in cells]


def committed() -> Results:
    """All score and profile records, and the reconstructions."""
    table2 = rows((FOLDER / "digits-table2.md").read_text(), "| Method")
    scores = {record.system: record for record in (*_of_table2(table2), *_of_ablations())}
    profiles = {record.system: record for record in map(_profile, table2) if record}
    return Results(scores, profiles, tuple(profiles.values()), _rebuilt())


def _ours(cell: str) -> list[float]:
    """The numbers of our half of a cell: the value, and half the width of its interval where it has one."""
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", cell.split(" / ")[0])]


def _of_ablations() -> Iterator[ScoreRecord]:
    with (FOLDER / "digits-ablations.csv").open() as file:
        for row in csv.DictReader(file):
            values = {name: float(row[name]) for name in row
                      if row[name] and name.removesuffix("_sd") in (*_SCORES.values(),)}
            yield score(row["system"], **values)


def _of_table2(table: list[dict[str, str]]) -> Iterator[ScoreRecord]:
    for row in table:
        values = {}
        for column, name in _SCORES.items():
            if found := _ours(row[column]):
                values[name] = found[0]
                values |= {f"{name}_sd": found[1] / NORMAL_95} if len(found) > 1 else {}
        images = {"num_images": 360} if row["Counterpart here"].startswith("real-") else {}
        yield score(row["Counterpart here"], **values | images)


def _profile(row: dict[str, str]) -> ProfileRecord | None:
    if not (latency := _ours(row["Latency (s)"])):
        return None
    sizes = {"K": 1e3, "M": 1e6}
    counts = [round(float(number) * sizes[unit])
              for number, unit in re.findall(r"([\d.]+)([KM])", row["#Param"].split(" / ")[0])]
    (memory,), (kv,) = _ours(row["Mem (MiB)"]), _ours(row["KV (MiB)"])
    return profile(row["Counterpart here"], latency, device=DEVICE, steps=row["#Steps"].split(" / ")[0],
                   num_parameters=sum(counts), parameters={f"network {at}": count for at, count in enumerate(counts)},
                   memory={"tensors_mib": memory, "kv_cache_mib": kv})


def _rebuilt():
    table = rows((FOLDER / "digits-table1.md").read_text(), "| Strategy")
    scales = [row for row in table if row["Strategy"].startswith("Real images")]
    return reconstruction(load_config(ROOT / "workflow/config/digits.yaml"),
                          [_ours(row["FID rebuilt"])[0] for row in scales],
                          [_ours(row["Judge accuracy"])[0] for row in scales])
