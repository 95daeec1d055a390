"""Short forms of the harnesses in this folder; docs/reliability.md has the long ones and their figures."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT
from record_factory import profile

from varient.profile_records import ProfileRecord

CHAOS = ROOT / "tests/chaos"
sys.path.insert(0, str(CHAOS))

from kill import TIMED, _untimed  # noqa: E402


def _run(*arguments):
    result = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_times_are_left_out_of_the_comparison_by_kill():
    """Two profiles of one network: all that a clock says differs, and nothing else does."""
    times = [{"latency": _latency(second), "decoder_latency": _latency(second), "reference": _latency(second),
              "latency_by_scale_s": (second,)} for second in (1.0, 2.0)]
    first, second = (json.loads(profile("var-d30", [1.0], **changes).model_dump_json()) for changes in times)
    assert first != second and _untimed(first) == _untimed(second)
    timed = {name for name, field in ProfileRecord.model_fields.items()
             if "latency" in name or "Latency" in str(field.annotation) or name.endswith("_s")}
    assert timed <= TIMED


def _latency(second):
    return {"median_s": second, "iqr_s": None, "repeats_s": [second]}


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
