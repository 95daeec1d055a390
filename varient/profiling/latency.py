"""Timing of repeated steps: in turns, with warm-up, raw repeats, median and interquartile range; and of their parts."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import psutil
import torch
from tqdm import tqdm

from varient.profile_records import Latency, MachineLoad

Step = Callable[[], object]
Name = TypeVar("Name")


@dataclass
class Times:
    """Raw times of the repeats of a step, in seconds.

    Attributes:
        wall_s: CUDA events on a GPU, wall-clock time on a CPU.
        cpu_s: CPU time of this process, summed over its threads; empty on a GPU.
    """

    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def latency(self) -> Latency:
        """Their summary; the interquartile range is None for a single repeat."""
        spread = None
        if len(self.wall_s) > 1:
            lower, _, upper = statistics.quantiles(self.wall_s, n=4)
            spread = upper - lower
        return Latency(median_s=statistics.median(self.wall_s), iqr_s=spread, repeats_s=self.wall_s,
                       cpu_s=self.cpu_s or None)


def time_in_turns(steps: Mapping[Name, Step], device: torch.device, *, warmup: int, repeats: int,
                  label: str) -> dict[Name, Times]:
    """Run steps in turns, ``repeats`` times each, so that a change of the machine's speed affects all of them alike.

    On a GPU each run is timed by a pair of CUDA events, which are read after one synchronisation at the end.

    Args:
        warmup: runs of each step before, which are not timed.
        label: shown beside the progress bar.
    """
    for _ in range(warmup):
        for step in steps.values():
            step()
    rounds = tqdm(range(repeats), desc=label, mininterval=2)
    return (_by_events if device.type == "cuda" else _by_clocks)(steps, rounds, device)


def time_parts(step: Callable[[Callable[[object], None]], object], device: torch.device, *, repeats: int,
               label: str) -> list[float]:
    """Median seconds of each part of a step, over its repeats.

    The ends of the parts are marked by CUDA events on a GPU, which are read after one synchronisation at the end, and
    by the wall clock on a CPU: nothing waits for a part.  No warm-up: time the whole step first.

    Args:
        step: called with a function that it calls at the end of each part; the first part begins with the step, and
            what follows the last call belongs to none.
        label: shown beside the progress bar.
    """
    on_gpu = device.type == "cuda"
    runs: list[list[Any]] = []
    for _ in tqdm(range(repeats), desc=label, mininterval=2):
        marks: list[Any] = []

        def mark(_: object = None, marks: list[Any] = marks) -> None:
            marks.append(_event() if on_gpu else time.perf_counter())

        mark()
        step(mark)
        runs.append(marks)
    if on_gpu:
        torch.cuda.synchronize(device)
    seconds = ([_seconds(begin, end) if on_gpu else end - begin for begin, end in pairwise(marks)] for marks in runs)
    return [statistics.median(part) for part in zip(*seconds, strict=True)]


class LoadWatch:
    """Measures what other processes did while a measurement ran: `MachineLoad` on exit, None where it cannot be read.
    """

    load: MachineLoad | None = None

    def __enter__(self) -> LoadWatch:
        self._before_1min, self._begin = _load_1min(), time.perf_counter()
        self._busy_s, self._own_s = _busy_s(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        after_1min = _load_1min()
        if self._before_1min is None or after_1min is None:
            return
        elapsed_s = time.perf_counter() - self._begin
        others_s = max(0.0, _busy_s() - self._busy_s - (time.process_time() - self._own_s))
        self.load = MachineLoad(before_1min=self._before_1min, after_1min=after_1min, cores=usable_cores(),
                                threads=torch.get_num_threads(), others=others_s / elapsed_s)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load_1min() -> float | None:
    """The machine's load average over the last minute; None if the system does not provide it."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def _busy_s() -> float:
    """CPU seconds that all processes of the machine have used since it started."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0) - getattr(times, "guest", 0) \
        - getattr(times, "guest_nice", 0)  # user and nice include the guests'


def _by_clocks(steps: Mapping[Name, Step], rounds: tqdm, _device: torch.device) -> dict[Name, Times]:
    found = {name: Times() for name in steps}
    for _ in rounds:
        for name, step in steps.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            step()
            found[name].wall_s.append(time.perf_counter() - begin)
            found[name].cpu_s.append(time.process_time() - begin_cpu)
    return found


def _by_events(steps: Mapping[Name, Step], rounds: tqdm, device: torch.device) -> dict[Name, Times]:
    pairs = []
    torch.cuda.synchronize(device)  # the warm-up must be over before the first event
    for _ in rounds:
        for name, step in steps.items():
            begin = _event()
            step()
            pairs.append((name, begin, _event()))
    torch.cuda.synchronize(device)
    found = {name: Times() for name in steps}
    for name, begin, end in pairs:
        found[name].wall_s.append(_seconds(begin, end))
    return found


def _event() -> torch.cuda.Event:
    """An event that the device reaches when it has done what was launched before."""
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
    """Between two events that the device has reached."""
    return begin.elapsed_time(end) / 1000  # elapsed_time is in milliseconds
