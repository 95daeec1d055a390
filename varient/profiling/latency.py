"""Timing of a repeated step: warm-up, raw repeats, median and interquartile range."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

import torch
from tqdm import tqdm

from varient.records import Latency

Step = Callable[[], object]


def time_repeats(step: Step, device: torch.device, *, warmup: int, repeats: int, label: str) -> list[float]:
    """Seconds of each of ``repeats`` runs of ``step``, after ``warmup`` runs that are not timed.

    On a GPU each run is timed by a pair of CUDA events, which are read after one synchronisation at the end; on a CPU
    by the wall clock.

    Args:
        label: shown beside the progress bar.
    """
    for _ in range(warmup):
        step()
    rounds = tqdm(range(repeats), desc=label, mininterval=2)
    return _by_events(step, rounds, device) if device.type == "cuda" else _by_wall_clock(step, rounds)


def measure(step: Step, device: torch.device, *, warmup: int, repeats: int, label: str) -> Latency:
    """Time a step as `time_repeats` does; on a CPU, also record the CPU time of the process, excluding other processes.
    """
    cpu_s = []

    def counted() -> None:
        begin = time.process_time()
        step()
        cpu_s.append(time.process_time() - begin)

    repeats_s = time_repeats(counted, device, warmup=warmup, repeats=repeats, label=label)
    return summarise(repeats_s, cpu_s[warmup:] if device.type == "cpu" else None)


def load_1min() -> float | None:
    """The machine's load average over the last minute; None if the system does not provide it."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def summarise(repeats_s: list[float], cpu_s: list[float] | None = None) -> Latency:
    """Median and interquartile range; the latter is None for a single repeat."""
    spread = None
    if len(repeats_s) > 1:
        lower, _, upper = statistics.quantiles(repeats_s, n=4)
        spread = upper - lower
    return Latency(median_s=statistics.median(repeats_s), iqr_s=spread, repeats_s=repeats_s, cpu_s=cpu_s)


def _by_wall_clock(step: Step, rounds: tqdm) -> list[float]:
    seconds = []
    for _ in rounds:
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return seconds


def _by_events(step: Step, rounds: tqdm, device: torch.device) -> list[float]:
    pairs = []
    torch.cuda.synchronize(device)  # the warm-up must be over before the first event
    for _ in rounds:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        step()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize(device)
    return [begin.elapsed_time(end) / 1000 for begin, end in pairs]  # elapsed_time is in milliseconds
