import time
from types import SimpleNamespace

import psutil
import pytest
import torch

from varient.profiling.latency import LoadWatch, Times, time_in_turns, time_parts

CPU = torch.device("cpu")


def test_warm_up_does_not_count():
    pauses_s = iter([0.2, 0.2, 0.01, 0.02, 0.03])
    times = time_in_turns({"x": lambda: time.sleep(next(pauses_s))}, CPU, warmup=2, repeats=3, label="x")
    assert len(times["x"].wall_s) == 3 and next(pauses_s, None) is None
    assert all(wanted <= measured < 0.15
               for wanted, measured in zip([0.01, 0.02, 0.03], times["x"].wall_s, strict=True))


def test_steps_take_turns_in_warm_up_and_repeats():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in "ab"}
    times = time_in_turns(steps, CPU, warmup=1, repeats=2, label="x")
    assert order == list("ababab") and {name: len(found.wall_s) for name, found in times.items()} == {"a": 2, "b": 2}


def test_cpu_seconds_are_of_the_repeats_alone_and_of_no_other_process():
    def work():
        turn = next(turns)
        time.sleep(0.05)
        end = time.process_time() + turn
        while time.process_time() < end:
            pass

    turns = iter([0.2, 0.01, 0.03])
    latency = time_in_turns({"x": work}, CPU, warmup=1, repeats=2, label="x")["x"].latency()
    assert len(latency.cpu_s) == len(latency.repeats_s) == 2
    assert 0.01 <= latency.cpu_s[0] < 0.03 <= latency.cpu_s[1] < 0.1
    assert all(wall > cpu + 0.04 for wall, cpu in zip(latency.repeats_s, latency.cpu_s, strict=True))


def test_parts_end_where_they_say_and_are_medians():
    pauses_s = iter([0.01, 0.03, 0.2, 0.1, 0.0, 0.2, 0.02, 0.04, 0.2])

    def step(mark):
        time.sleep(next(pauses_s))
        mark(1)
        time.sleep(next(pauses_s))
        mark(2)
        time.sleep(next(pauses_s))  # after the last part

    first, second = time_parts(step, CPU, repeats=3, label="x")
    assert 0.02 <= first < 0.09 and 0.03 <= second < 0.09 and next(pauses_s, None) is None


def test_median_and_spread():
    latency = Times([5.0, 1.0, 2.0, 3.0, 4.0]).latency()
    assert (latency.median_s, latency.iqr_s, latency.repeats_s) == (3.0, 3.0, [5.0, 1.0, 2.0, 3.0, 4.0])
    assert latency.cpu_s is None and Times([1.0]).latency().iqr_s is None


def test_the_load_of_others_excludes_this_process(monkeypatch):
    busy = iter([{"user": 100.0, "system": 10.0, "idle": 50.0}, {"user": 103.0, "system": 11.0, "idle": 50.5}])
    monkeypatch.setattr(psutil, "cpu_times", lambda: _Times(next(busy)))
    monkeypatch.setattr(time, "process_time", iter([5.0, 6.0]).__next__)
    monkeypatch.setattr(time, "perf_counter", iter([0.0, 2.0]).__next__)
    with LoadWatch() as watch:
        pass
    assert watch.load.others == (4.0 - 1.0) / 2.0 and watch.load.threads == torch.get_num_threads()


class _Times(SimpleNamespace):
    """psutil's named tuple of CPU times of a system without the times that only Linux has."""

    def __init__(self, seconds):
        super().__init__(**seconds)

    def __iter__(self):
        return iter(vars(self).values())


@pytest.mark.gpu
def test_events_wait_for_the_device():
    a = torch.randn(8192, 8192, device="cuda")
    steps = {n: lambda n=n: [a @ a for _ in range(n)] for n in (1, 4)}
    times = time_in_turns(steps, a.device, warmup=2, repeats=5, label="x")
    assert 3 < min(times[4].wall_s) / min(times[1].wall_s) < 5 and times[1].cpu_s == []
