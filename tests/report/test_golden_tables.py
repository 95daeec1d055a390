"""All tables of the paper's experiment as text, without any record and with all of them.

The records are invented (`_records`); `PYTHONPATH=tests python tests/report/test_golden_tables.py` writes the texts
anew, to be read before they are committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from record_factory import fidelity, profile, score

from varient.config import load_config
from varient.report.tables import TABLES, render
from varient.results import Results

ROOT = Path(__file__).parents[2]
PAPER = load_config(ROOT / "workflow/config/imagenet256.yaml")
GOLDEN = ROOT / "tests/golden/tables"


def _records() -> Results:
    """A score, a profile and the fidelity of every system of every table, each value another one."""
    wanted = [TABLES[number].needs(PAPER) for number in TABLES]
    scores, profiles = {}, {}
    for at, system in enumerate(sorted({name for kinds in wanted for name in kinds.score})):
        scores[system] = score(
            system, 2 + at / 10, experiment="imagenet256", device="NVIDIA L20", protocol="adm", num_images=50_000,
            inception_score=300 - at, inception_score_sd=1.5, precision=0.8 - at / 100, precision_sd=0.003,
            recall=0.5 + at / 100, recall_sd=0.004)
    for at, system in enumerate(sorted({name for kinds in wanted for name in kinds.profile})):
        profiles[system] = profile(
            system, [1 + at / 4], experiment="imagenet256", device="NVIDIA L20", precision="fp16", gpu_driver="1",
            num_parameters=2_000_000_000,
            memory={"allocator_allocated_mib": 10_000 + at, "kv_cache_mib": 1000 + at})
    compared = {name for kinds in wanted for name in kinds.fidelity}
    records = [fidelity(system, system, experiment="imagenet256", psnr_db=10 + at, fid=at / 4)
               for at, system in enumerate(sorted(compared))]
    return Results(scores, profiles, tuple(profiles.values()), fidelity=tuple(records))


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
