"""Short forms of the harnesses in this folder; docs/reliability.md has the long ones and their figures."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

CHAOS = ROOT / "tests/chaos"


def _run(*arguments):
    result = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.slow
def test_damaged_files_are_refused_in_our_words():
    assert "400 inputs, seed 1, 0 faults" in _run(CHAOS / "fuzz.py", "--inputs", "400", "--seed", "1")


@pytest.mark.slow
@pytest.mark.all_cores
def test_killed_runs_end_with_the_bytes_of_an_undisturbed_one():
    """A worker, Snakemake alone, and the whole group; while networks train or are sampled."""
    said = _run(CHAOS / "kill.py", "--at", "worker:2", "--at", "snakemake:6", "--at", "group:5",
                "runs/smoke/samples/variant-d4/shard-0.npz")
    assert "3 kills, seed 0, 0 differences" in said
