"""Timing a repeated step: warm-up dropped, raw repeats kept, median and spread told."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from tqdm import tqdm

from varient.records import Latency

Step = Callable[[], object]


def time_repeats(step: Step, device: torch.device, *, warmup: int, repeats: int, label: str) -> list[float]:
    """Seconds of each of ``repeats`` runs of ``step``, after ``warmup`` runs that do not count.

    On a GPU a pair of events around each run, read after one synchronisation at the end, so that waiting for the host
    between the runs is no part of them; on a CPU the wall clock.

    Args:
        label: shown beside the progress bar.
    """
    for _ in range(warmup):
        step()
    rounds = tqdm(range(repeats), desc=label, mininterval=2)
    return _by_events(step, rounds, device) if device.type == "cuda" else _by_wall_clock(step, rounds)


def summarise(repeats_s: list[float]) -> Latency:
    """Median and distance between the quartiles; one repeat alone has no spread."""
    spread = None
    if len(repeats_s) > 1:
        lower, _, upper = statistics.quantiles(repeats_s, n=4)
        spread = upper - lower
    return Latency(median_s=statistics.median(repeats_s), iqr_s=spread, repeats_s=repeats_s)


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
    return [begin.elapsed_time(end) / 1000 for begin, end in pairs]  # events tell milliseconds
