import time

import pytest
import torch

from varient.profiling.latency import measure, summarise, time_repeats


def test_warm_up_does_not_count():
    pauses_s = iter([0.2, 0.2, 0.01, 0.02, 0.03])
    repeats_s = time_repeats(lambda: time.sleep(next(pauses_s)), torch.device("cpu"), warmup=2, repeats=3, label="x")
    assert len(repeats_s) == 3 and next(pauses_s, None) is None
    assert all(wanted <= measured < 0.15
               for wanted, measured in zip([0.01, 0.02, 0.03], repeats_s, strict=True))


def test_cpu_seconds_are_of_the_repeats_alone_and_of_no_other_process():
    def work():
        turn = next(turns)
        time.sleep(0.05)
        end = time.process_time() + turn
        while time.process_time() < end:
            pass

    turns = iter([0.2, 0.01, 0.03])
    latency = measure(work, torch.device("cpu"), warmup=1, repeats=2, label="x")
    assert len(latency.cpu_s) == len(latency.repeats_s) == 2
    assert 0.01 <= latency.cpu_s[0] < 0.03 <= latency.cpu_s[1] < 0.1
    assert all(wall > cpu + 0.04 for wall, cpu in zip(latency.repeats_s, latency.cpu_s, strict=True))


def test_median_and_spread():
    latency = summarise([5.0, 1.0, 2.0, 3.0, 4.0])
    assert (latency.median_s, latency.iqr_s, latency.repeats_s) == (3.0, 3.0, [5.0, 1.0, 2.0, 3.0, 4.0])
    assert summarise([1.0]).iqr_s is None


@pytest.mark.gpu
def test_events_wait_for_the_device():
    a = torch.randn(8192, 8192, device="cuda")
    device = a.device
    one, four = (min(time_repeats(lambda n=n: [a @ a for _ in range(n)], device, warmup=2, repeats=5, label="x"))
                 for n in (1, 4))
    assert 3 < four / one < 5
