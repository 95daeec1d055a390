"""All tables of the paper's experiment as text, without any record and with all of them.

The records are invented (`_records`); `python tests/report/test_golden_tables.py` writes the texts anew, to be read
before they are committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from varient.config import load_config
from varient.records import ProfileRecord, Provenance, ScoreRecord
from varient.report.tables import TABLES, render
from varient.results import Results

ROOT = Path(__file__).parents[2]
PAPER = load_config(ROOT / "workflow/config/imagenet256.yaml")
GOLDEN = ROOT / "tests/golden/tables"


def _records() -> Results:
    """A score and a profile for every system of every table, each value another one."""
    provenance = Provenance(experiment="imagenet256", seed=0, settings="x", weights_sha256={}, device="NVIDIA L20",
                            threads=1, versions={}, git_commit=None, created="2026-01-01T00:00:00+00:00")
    wanted = [TABLES[number].needs(PAPER) for number in TABLES]
    scores, profiles = {}, {}
    for at, system in enumerate(sorted({name for kinds in wanted for name in kinds.score})):
        scores[system] = ScoreRecord(
            system=system, protocol="adm", extractor="inception", num_images=50_000, num_reference=0,
            images_sha256="ab", reference_sha256="cd", fid=2 + at / 10, fid_sd=0.02, fid_bias=0.1,
            inception_score=300 - at, inception_score_sd=1.5, precision=0.8 - at / 100, precision_sd=0.003,
            recall=0.5 + at / 100, recall_sd=0.004, provenance=provenance)
    for at, system in enumerate(sorted({name for kinds in wanted for name in kinds.profile})):
        latency = {"median_s": 1 + at / 4, "iqr_s": None, "repeats_s": [1 + at / 4]}
        profiles[system] = ProfileRecord(
            system=system, status="ok", reason=None, steps="6+4", batch_size=64, precision="fp16", cache_policy="lean",
            weights="trained", num_parameters=2_000_000_000, latency=latency, decoder_latency=latency, warmup=1,
            memory={"allocator_allocated_mib": 10_000 + at, "kv_cache_mib": 1000 + at}, gpu_driver="1",
            provenance=provenance)
    return Results(scores, profiles, tuple(profiles.values()))


CASES = {"absent": Results({}, {}), "present": _records()}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("number", TABLES)
def test_the_text_is_the_golden_one(tmp_path, number, case):
    render(number, PAPER, CASES[case], tmp_path / "table")
    assert (tmp_path / "table.md").read_text() == (GOLDEN / f"{case}-table{number}.md").read_text()


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else GOLDEN
    for name, results in CASES.items():
        for table in TABLES:
            for path in render(table, PAPER, results, folder / f"{name}-table{table}"):
                if path.suffix != ".md":
                    path.unlink()
