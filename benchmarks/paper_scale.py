"""Profile the rows of the paper's Tables 2 and 3 at their own size, with seeded random weights, on the GPU at hand.

    python benchmarks/paper_scale.py --minutes 8            # batch 64 first, held to an L20's memory
    python benchmarks/paper_scale.py --batch 64 --no-cap    # the whole card
    VARIENT_GRAPHS=1 python benchmarks/paper_scale.py --system var-d30 --system variant-d2 --batch 64

Each configuration is a process of its own and leaves one record in benchmarks/records; one that is there is not made
again, so the same command goes on where it stopped.  A configuration that does not fit into memory leaves a record that
says so.  With a time limit none is begun that is expected to exceed it, and one that does all the same is ended and
leaves no record.  `results/table3.csv` shows the records, those of switches (docs/cuda.md#switches) left out.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Annotated

import typer

from varient.config import ExperimentConfig
from varient.cost.gpus import device
from varient.cost.roofline import system_cost
from varient.cost.sizes import MIB
from varient.doctor.machine import Machine
from varient.experiment import load_experiment
from varient.models.acceleration import Acceleration
from varient.profiling.profiler import Configuration, profile_in_fresh_process
from varient.systems.ids import base_system
from varient.systems.registry import family_of, resolve_system

VAR_ROWS = ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2")
"""Of Tables 2 and 3."""
OTHER_ROWS = ("code-n6", "dit-xl2", "llamagen-xxl")
"""Of Table 2 alone, which is of batch 64; the slowest last."""
BATCHES = (64, 128, 256)
START_S = 30
"""Assumed seconds of a process besides its generations: start, random weights, the image decoder, energy."""


@dataclass
class TimeLimit:
    """Which steps fit into a time, by predictions that are corrected by how long earlier steps took.

    Attributes:
        limit_s: seconds from the creation of this object.
        slowness: largest ratio so far of the time taken and predicted, at least 1.
    """

    limit_s: float = inf
    clock: Callable[[], float] = time.monotonic
    slowness: float = 1.0
    begun_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun_s = self.clock()

    @property
    def left_s(self) -> float:
        """Seconds left."""
        return self.limit_s - (self.clock() - self.begun_s)

    def fits(self, predicted_s: float) -> bool:
        """Whether a step is expected to end in time."""
        return predicted_s * self.slowness <= self.left_s

    def run(self, step: Callable[[], object], predicted_s: float) -> None:
        """Run a step, and note how long it took.

        Raises:
            TimeoutError: it was still running at the limit, and was interrupted.
        """
        begin = self.clock()
        with interrupted_after(self.left_s):
            step()
        self.slowness = max(self.slowness, (self.clock() - begin) / predicted_s)


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after so many seconds; a process that `subprocess.run` waits for is then killed.
    """
    def interrupt(*_: object) -> None:
        raise TimeoutError

    if not isfinite(seconds):
        yield
        return
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def configurations(experiment: ExperimentConfig, systems: list[str] | None, batches: list[int] | None, precision: str,
                   cap_bytes: int | None) -> list[Configuration]:
    """Every configuration that is asked for, in the order in which it is profiled: small batches first."""
    return [Configuration.of(experiment, system, batch_size=batch, precision=precision, cache_policy=cache,
                             random_weights=True, memory_cap_bytes=cap_bytes)
            for batch in batches or BATCHES
            for system in systems or (*VAR_ROWS, *(OTHER_ROWS if batch == BATCHES[0] else ()))
            for cache in reversed(resolve_system(system, experiment).cache_policies)]


def predicted_s(experiment: ExperimentConfig, wanted: Configuration, gpu: str | None) -> float:
    """Seconds that a configuration takes by the cost model; without it, those of its process alone.

    A system takes turns with the full network, and those that go scale by scale have further repeats by scale.
    """
    settings = experiment.profiling
    rounds = 1 + settings.warmup + settings.repeats
    further = settings.repeats if family_of(wanted.system, experiment) in ("var", "code") else 0
    try:
        own_s, full_s = (system_cost(system, batch_size=wanted.batch_size, policy="lean", precision=wanted.precision,
                                     device_key=gpu or "").latency_s
                         for system in (wanted.system, base_system(experiment)))
        return START_S + (rounds + further) * own_s + rounds * full_s * (wanted.system != base_system(experiment))
    except ValueError:  # a system or a GPU that the cost model does not know
        return START_S


def profile_within(limit: TimeLimit, steps: dict[Path, float], profile: Callable[[Path], object]) -> list[Path]:
    """Make the records that are not there yet, until the time is up; those that are still missing.

    Args:
        steps: record -> predicted seconds, in order.
        profile: makes a record.
    """
    missing = [path for path in steps if not path.exists()]
    for at, path in enumerate(missing):
        if not limit.fits(steps[path]):
            return missing[at:]
        try:
            limit.run(lambda path=path: profile(path), steps[path])
        except TimeoutError:
            return missing[at:]
    return []


def main(
    config: Path = Path("workflow/config/imagenet256.yaml"),
    systems: Annotated[list[str] | None, typer.Option("--system", help="default: the rows of Tables 2 and 3")] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="default 64, 128 and 256")] = None,
    precision: str = "fp16",
    cap: Annotated[bool, typer.Option(help="hold the allocator to the memory of an L20")] = True,
    minutes: Annotated[float, typer.Option(help="time limit")] = inf,
    output: Path = Path("benchmarks/records"),
) -> None:
    """Profile and write one record a configuration."""
    limit = TimeLimit(60 * minutes)
    experiment, gpu = load_experiment(config), Machine.here().known_gpu
    switches = "".join(f"-{name}" for name in Acceleration.wanted().names)
    wanted = {
        output / f"profile-{each.system}-b{each.batch_size}-{each.cache_policy}-{precision}{'-l20' if cap else ''}"
                 f"{switches}.json": each
        for each in configurations(experiment, systems, batches, precision,
                                   device("l20").memory_mib * MIB if cap else None)}

    def profile(path: Path) -> None:
        record = profile_in_fresh_process(config, experiment, wanted[path], Path("runs") / experiment.name, path)
        print(f"{path}: {record.status}" + (f", {record.latency.median_s:.3f} s, peak {record.memory.peak_mib:.0f} MiB"
                                            if record.latency else ""), flush=True)

    missing = profile_within(limit, {path: predicted_s(experiment, each, gpu) for path, each in wanted.items()},
                             profile)
    if missing:
        print(f"time limit of {minutes:g} minutes: {len(missing)} of {len(wanted)} configurations are not profiled "
              f"yet, first {missing[0].stem}; the same command goes on with them")


if __name__ == "__main__":
    typer.run(main)
