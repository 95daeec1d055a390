"""The time limit of benchmarks/paper_scale.py, with a clock that moves as the test says."""

import subprocess
import sys
import time
from math import inf

import pytest
from conftest import ROOT, benchmark

from varient.config import load_config
from varient.cost.roofline import system_cost

paper_scale = benchmark("paper_scale")


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Machine:
    """Makes records, each in its time by a clock of its own."""

    def __init__(self, folder, seconds):
        self.paths = {folder / f"profile-{name}.json": taken for name, taken in seconds.items()}
        self.clock, self.made = Clock(), []

    def profile(self, path):
        self.clock.now += self.paths[path]
        path.write_text("{}")
        self.made.append(path.stem.removeprefix("profile-"))

    def within(self, limit_s, predicted_s=None):
        limit = paper_scale.TimeLimit(limit_s, self.clock)
        steps = {path: (predicted_s or self.paths.get)(path) for path in self.paths}
        return [path.stem.removeprefix("profile-")
                for path in paper_scale.profile_within(limit, steps, self.profile)]


@pytest.mark.parametrize(("limit_s", "made"), [(inf, "abcd"), (100, "abcd"), (99, "abc"), (60, "abc"), (59, "ab"),
                                               (29, ""), (0, "")])
def test_none_is_begun_that_would_exceed_the_limit(tmp_path, limit_s, made):
    machine = Machine(tmp_path, {"a": 30, "b": 10, "c": 20, "d": 40})
    assert machine.within(limit_s) == list("abcd"[len(made):])
    assert "".join(machine.made) == made and machine.clock.now - 1000 <= limit_s


def test_the_same_command_goes_on_where_it_stopped(tmp_path):
    machine = Machine(tmp_path, {"a": 30, "b": 10, "c": 20})
    assert machine.within(35) == ["b", "c"]
    assert machine.within(10) == ["c"] and machine.made == ["a", "b"]
    assert machine.within(20) == [] and machine.made == ["a", "b", "c"]
    assert machine.within(0) == []


def test_predictions_follow_the_slowest_so_far(tmp_path):
    """One took twice as long as predicted: after a quick one, a third is expected to take 20 s, and 15 are left."""
    machine = Machine(tmp_path, {"a": 20, "b": 10, "c": 20})
    assert machine.within(45, lambda path: 10) == ["c"]


def test_what_is_quicker_than_predicted_promises_nothing(tmp_path):
    machine = Machine(tmp_path, {"a": 1, "b": 10})
    assert machine.within(10, lambda path: 10) == ["b"]


def test_what_runs_at_the_limit_is_ended_and_leaves_no_record(tmp_path):
    begin = time.monotonic()
    limit = paper_scale.TimeLimit(0.3)

    def profile(path):
        subprocess.run([sys.executable, "-c", f"import time; time.sleep(60); open({str(path)!r}, 'w')"], check=True)

    first, second = tmp_path / "first.json", tmp_path / "second.json"
    assert paper_scale.profile_within(limit, {first: 0.1, second: 0.1}, profile) == [first, second]
    assert time.monotonic() - begin < 20 and list(tmp_path.iterdir()) == []


def test_the_tables_rows_come_with_batch_64_first():
    experiment = load_config(ROOT / "workflow/config/imagenet256.yaml")
    found = [(each.batch_size, each.system, each.cache_policy)
             for each in paper_scale.configurations(experiment, None, None, "fp16", None)]
    rows = ["var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2"]
    both = [(system, cache) for system in rows for cache in ("reference", "lean")]
    others = [("code-n6", "reference"), ("code-n6", "lean"), ("dit-xl2", "none"), ("llamagen-xxl", "static")]
    assert found == [(batch, *each) for batch, more in ((64, others), (128, []), (256, [])) for each in both + more]
    first = paper_scale.configurations(experiment, ["variant-d2"], [1], "fp16", 5)
    assert [(each.batch_size, each.memory_cap_bytes, each.random_weights) for each in first] == 2 * [(1, 5, True)]


def test_expectations_are_the_cost_models_or_those_of_a_process(smoke):
    experiment = load_config(ROOT / "workflow/config/imagenet256.yaml")
    every = paper_scale.configurations(experiment, None, [64], "fp16", None)
    expected = {(each.system, each.cache_policy): paper_scale.predicted_s(experiment, each, "h200") for each in every}
    full_s, subnet_s = (system_cost(name, batch_size=64, precision="fp16", device_key="h200").latency_s
                        for name in ("var-d30", "variant-d2"))
    repeats = experiment.profiling.repeats
    rounds = 1 + experiment.profiling.warmup + repeats
    alone, beside_it = expected["var-d30", "lean"], expected["variant-d2", "lean"]
    assert alone == pytest.approx(paper_scale.START_S + (rounds + repeats) * full_s)
    assert beside_it == pytest.approx(paper_scale.START_S + rounds * (full_s + subnet_s) + repeats * subnet_s)
    assert max(expected, key=expected.get) == ("llamagen-xxl", "static")
    assert paper_scale.predicted_s(experiment, every[0], None) == paper_scale.START_S
    (unknown, _) = paper_scale.configurations(smoke, ["var-d6"], [4], "fp32", None)
    assert paper_scale.predicted_s(smoke, unknown, "h200") == paper_scale.START_S
