"""Ratios of times beside the accepted ones: verdicts on made-up times, and one real measurement."""

import json
import shutil

import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner

from varient import speed
from varient.cli import app
from varient.evaluation.drift import DriftError
from varient.profile_records import MachineLoad
from varient.profiling.latency import Times
from varient.records import RecordError, device_name, read_record
from varient.speed import (
    ATTEMPTS,
    FAIL,
    PAIRS,
    REPEATS,
    WARN,
    Measured,
    SpeedBaseline,
    SpeedFinding,
    check_speed,
    measure_ratios,
)

BASELINE = ROOT / "results/baseline"
QUIET, BUSY = (MachineLoad(before_1min=0, after_1min=0, cores=2, threads=1, others=others) for others in (0.0, 1.0))
STEPS_S = {"reference": 1.0, "lean": 1.0, "subnet": 0.5, "product": 0.25, "scoring": 0.25}
RATIOS = {"lean cache over reference cache": 1.0, "subnet over full network": 0.5,
          "full network over matrix product": 4.0, "scoring over matrix product": 1.0}


@pytest.fixture
def baseline(tmp_path):
    """The baseline with ratios that `STEPS_S` has, accepted on this processor."""
    shutil.copytree(BASELINE, tmp_path / "baseline")
    networks = json.loads((BASELINE / "drift.json").read_text())["provenance"]
    (tmp_path / "baseline/speed.json").write_text(json.dumps(
        {"ratios": RATIOS, "repeats": 7, "provenance": networks | {"device": device_name("cpu")}}))
    return tmp_path / "baseline"


@pytest.fixture
def machine(monkeypatch):
    """What the steps take, and the load while they ran: one for each attempt, the last for all others."""
    attempts = []

    def set_to(*loads, **steps_s):
        def timed(steps, device, *, warmup, repeats, label):
            attempts.append(torch.get_num_threads())
            times_s = STEPS_S | steps_s
            assert set(steps) == set(times_s) and device.type == "cpu"
            return {name: Times([times_s[name]] * repeats, [times_s[name]] * repeats) for name in steps}

        loads = list(loads)
        monkeypatch.setattr(speed.LoadWatch, "__exit__", lambda self, *_: setattr(
            self, "load", loads.pop(0) if len(loads) > 1 else loads[0]))
        monkeypatch.setattr(speed, "time_in_turns", timed)
        monkeypatch.setattr(speed, "speed_steps", lambda config, folder: dict.fromkeys(STEPS_S))
        return attempts

    return set_to


def _run(*arguments):
    return CliRunner().invoke(app, ["drift", "--speed", *map(str, arguments)])


def test_ratios_that_are_as_accepted_hold(baseline, machine, tmp_path):
    attempts = machine(QUIET)
    findings = {finding.name: finding for finding in check_speed(baseline)}
    assert {name: finding.now.value for name, finding in findings.items()} == RATIOS
    assert {finding.verdict for finding in findings.values()} == {"holds"} and attempts == [1]
    result = _run("--baseline", baseline, "-o", tmp_path / "speed.md")
    assert result.exit_code == 0 and f"| {REPEATS} | holds |" in result.output
    assert (tmp_path / "speed.md").read_text() in result.output


@pytest.mark.parametrize(("steps_s", "moved"), [
    ({"lean": 1.5}, {"lean cache over reference cache", "full network over matrix product",
                     "subnet over full network"}),
    ({"reference": 1.5}, {"lean cache over reference cache"}), ({"subnet": 0.75}, {"subnet over full network"}),
    ({"scoring": 0.4}, {"scoring over matrix product"}),
    ({"reference": 1.5, "lean": 1.5, "subnet": 0.75}, {"full network over matrix product"})])
def test_a_slower_step_fails_the_check_and_is_named(baseline, machine, steps_s, moved):
    machine(QUIET, **steps_s)
    assert {finding.name for finding in check_speed(baseline) if finding.verdict == "moved"} == moved
    result = _run("--baseline", baseline)
    assert result.exit_code == 1 and f"{len(moved)} of 4" in result.output.splitlines()[-1]
    assert "--speed --accept" in result.output.splitlines()[-1]


def test_a_machine_that_is_slower_in_everything_holds(baseline, machine):
    machine(QUIET, **{name: 7 * seconds for name, seconds in STEPS_S.items()})
    assert {finding.verdict for finding in check_speed(baseline)} == {"holds"}


def test_a_small_change_is_told_and_no_failure(baseline, machine):
    machine(QUIET, subnet=0.5 * (1 + (WARN + FAIL) / 2))
    assert [finding.verdict for finding in check_speed(baseline)] == ["holds", "changed", "holds", "holds"]
    result = _run("--baseline", baseline)
    assert result.exit_code == 0 and "| changed |" in result.output


@pytest.mark.parametrize(("value", "verdict"), [
    (1.0, "holds"), (1 + 0.99 * WARN, "holds"), (1 + 1.01 * WARN, "changed"), (1 / (1 + 1.01 * WARN), "changed"),
    (1 + 0.99 * FAIL, "changed"), (1 + 1.01 * FAIL, "moved"), (1 / (1 + 1.01 * FAIL), "moved")])
def test_both_tolerances_hold_up_and_down(value, verdict):
    assert SpeedFinding("x", 2.0, Measured(2 * value, 7, ()), True).verdict == verdict
    assert SpeedFinding("x", 2.0, Measured(2 * value, 7, ("busy",)), True).verdict == "disturbed"


def test_what_is_disturbed_is_measured_again_and_decides_nothing(baseline, machine):
    attempts = machine(BUSY, lean=3.0)
    result = _run("--baseline", baseline)
    assert result.exit_code == 3 and len(attempts) == ATTEMPTS
    assert "undecided" in result.output.splitlines()[-1] and "other processes used 1.00 of 2 cores" in result.output
    assert result.output.count("| disturbed |") == 4 and "| moved |" not in result.output


def test_a_quiet_attempt_decides(baseline, machine):
    attempts = machine(BUSY, QUIET)
    assert {finding.verdict for finding in check_speed(baseline)} == {"holds"} and len(attempts) == 2


def test_on_another_processor_ratios_over_products_are_told_alone(baseline, machine):
    content = json.loads((baseline / "speed.json").read_text())
    content["provenance"]["device"] = "CPU of another kind"
    (baseline / "speed.json").write_text(json.dumps(content))
    machine(QUIET, product=0.5)
    assert [finding.verdict for finding in check_speed(baseline)] == ["holds", "holds", "changed", "changed"]
    machine(QUIET, subnet=1.0)
    assert check_speed(baseline)[1].verdict == "moved"


def test_ratios_of_now_are_accepted_and_hold_then(baseline, machine):
    machine(QUIET, subnet=0.75)
    result = _run("--baseline", baseline, "--accept")
    assert result.exit_code == 0 and f"wrote {baseline / 'speed.json'}" in result.output
    content = json.loads((baseline / "speed.json").read_text())
    assert content["ratios"] == RATIOS | {"subnet over full network": 0.75} and content["repeats"] == REPEATS
    assert content["provenance"]["threads"] == 1
    assert {finding.verdict for finding in check_speed(baseline)} == {"holds"}


def test_disturbed_ratios_are_not_accepted(baseline, machine):
    before = (baseline / "speed.json").read_bytes()
    machine(BUSY, subnet=0.75)
    result = _run("--baseline", baseline, "--accept")
    assert result.exit_code == 3 and "not accepted" in result.output.splitlines()[-1]
    assert (baseline / "speed.json").read_bytes() == before


@pytest.mark.parametrize(("arguments", "message"), [
    (["drift", "--accept"], "--accept needs --speed"), (["drift", "--speed", "--update", "runs"], "--update"),
    (["drift", "--speed", "--accept", "-o", "speed.md"], "--output"),
    (["drift", "--speed", "--baseline", "/nowhere"], "/nowhere: no baseline")])
def test_options_that_do_not_go_together_are_told_in_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1 and message in result.output
    assert list(tmp_path.iterdir()) == []


def test_the_ratios_inside_a_package_are_not_written(monkeypatch):
    monkeypatch.setattr("varient.cli.answers.in_project", lambda: False)
    result = _run("--accept")
    assert result.exit_code == 1 and len(result.output.splitlines()) == 1 and "--baseline" in result.output


@pytest.mark.parametrize("change", [
    lambda content: content["ratios"].pop("scoring over matrix product"), lambda content: content.update(ratios={}),
    lambda content: content["ratios"].update({"subnet over full network": 0.0}),
    lambda content: content["ratios"].update({"subnet over full network": float("nan")}),
    lambda content: content.pop("provenance")])
def test_a_damaged_file_of_ratios_is_named(baseline, change):
    content = json.loads((baseline / "speed.json").read_text())
    change(content)
    (baseline / "speed.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"speed\.json: not a SpeedBaseline"):
        check_speed(baseline)


def test_ratios_of_other_networks_are_refused_and_so_is_a_baseline_without_any(baseline):
    content = json.loads((baseline / "speed.json").read_text())
    content["provenance"]["weights_sha256"]["tokenizer"] = "0" * 64
    (baseline / "speed.json").write_text(json.dumps(content))
    with pytest.raises(DriftError, match=r"speed\.json: the speed of other networks"):
        check_speed(baseline)
    (baseline / "speed.json").unlink()
    with pytest.raises(DriftError, match=r"speed\.json: no accepted speed"):
        check_speed(baseline)


def test_the_steps_are_what_they_are_called(baseline, monkeypatch):
    """Really measured, a turn of few images; the subnet runs fewer layers than the full network, by half and more."""
    monkeypatch.setattr(speed, "REPEATS", 1)
    monkeypatch.setattr(speed, "ATTEMPTS", 1)
    monkeypatch.setattr(speed, "BATCH_SIZE", 8)
    threads = torch.get_num_threads()
    config = speed.open_baseline(baseline)[1]
    measured = measure_ratios(config, baseline)
    assert set(measured) == set(PAIRS) == set(RATIOS) and torch.get_num_threads() == threads
    assert all(ratio.value > 0 and ratio.repeats == 1 for ratio in measured.values())
    steps = speed.speed_steps(config, baseline)
    assert torch.equal(steps["lean"](), steps["reference"]()) and not torch.equal(steps["lean"](), steps["subnet"]())


def test_the_shipped_ratios_are_of_the_shipped_networks():
    networks = json.loads((BASELINE / "drift.json").read_text())["provenance"]["weights_sha256"]
    shipped = read_record(BASELINE / "speed.json", SpeedBaseline)
    assert shipped.provenance.weights_sha256 == networks and shipped.ratios["subnet over full network"] < 0.7
