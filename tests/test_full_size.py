"""benchmarks/full_size.py on networks of the smoke configuration: turns, resuming, and what a record says."""

import json
from math import inf

import pytest
from conftest import ROOT, benchmark

from varient.profile_records import ProfileRecord
from varient.profiling import profiler
from varient.records import read_record

full_size = benchmark("full_size")
SMOKE = ROOT / "workflow/config/smoke.yaml"
ROWS = {"systems": ["var-d6", "variant-d2", "dit-mini", "code-n6"], "batches": [2]}


@pytest.fixture(autouse=True)
def whatever_else_runs(monkeypatch):
    """These tests may run beside others."""
    monkeypatch.setattr(full_size, "OTHERS", inf)


def _run(folder, **options):
    full_size.main(**{"config": SMOKE, "caches": None, "turns": 2, "state": folder / "state",
                      "output": folder / "records"} | ROWS | options)
    return {path.stem: read_record(path, ProfileRecord) for path in (folder / "records").iterdir()}


@pytest.mark.slow
def test_each_row_has_a_record_whose_speedup_is_within_its_turns(tmp_path):
    records = _run(tmp_path)
    assert sorted(records) == sorted(f"profile-{row}-fp32-cpu" for row in (
        "var-d6-b2-lean", "var-d6-b2-reference", "variant-d2-b2-lean", "variant-d2-b2-reference", "dit-mini-b2-none",
        "code-n6-b2-lean", "code-n6-b2-reference"))
    full = {policy: records[f"profile-var-d6-b2-{policy}-fp32-cpu"] for policy in ("lean", "reference")}
    for record in records.values():
        assert record.weights.startswith("random, seed 0, drawn by torch ") and record.batch_size == 2
        assert len(record.latency.repeats_s) == 2 and record.acceleration == ()
        if record.system != "var-d6":
            beside = full[record.cache_policy if record.cache_policy in full else "reference"]  # as the paper's
            assert record.reference.repeats_s == beside.latency.repeats_s
    assert full["lean"].reference is None
    assert records["profile-variant-d2-b2-lean-fp32-cpu"].memory.kv_cache_mib < full["lean"].memory.kv_cache_mib


@pytest.mark.slow
def test_the_same_command_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    timed, calls = full_size.time_in_turns, []

    def killed(*arguments, **options):
        calls.append(options["label"])
        if len(calls) == 5:
            raise KeyboardInterrupt
        return timed(*arguments, **options)

    rows = {"systems": ["var-d6", "variant-d2"], "caches": ["lean"]}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(full_size, "time_in_turns", killed)
        _run(tmp_path, turns=3, **rows)
    kept = json.loads((tmp_path / "state/b2.json").read_text())["rows"]
    assert {name: len(row["turns"]) for name, row in kept.items()} == {"var-d6 lean": 2, "variant-d2 lean": 2}
    records = _run(tmp_path, turns=3, **rows)
    for name, row in kept.items():
        repeats = records[f"profile-{name.replace(' ', '-b2-')}-fp32-cpu"].latency.repeats_s
        assert repeats[:2] == [turn["latency"][0] for turn in row["turns"]] and len(repeats) == 3


def test_a_busy_machine_gives_no_times(tmp_path, monkeypatch):
    monkeypatch.setattr(full_size, "OTHERS", -1)
    with pytest.raises(SystemExit, match="other work runs on this machine"):
        _run(tmp_path)
    assert not (tmp_path / "records").exists()


def test_rows_are_measured_without_switches(tmp_path, monkeypatch):
    monkeypatch.setenv("VARIENT_DECODER_CHANNELS_LAST", "1")
    with pytest.raises(SystemExit, match="without .*channels.last"):
        _run(tmp_path)


def test_the_full_network_beside_a_row_has_its_cache_or_the_given_one(smoke):
    def beside(system, policy):
        wanted = profiler.Configuration.of(smoke, system, cache_policy=policy)
        return profiler.full_network_beside(smoke, wanted, "reference").cache_policy

    assert [beside("variant-d2", policy) for policy in ("lean", "reference")] == ["lean", "reference"]
    assert beside("dit-mini", "none") == "reference"
