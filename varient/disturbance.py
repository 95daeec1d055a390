"""Whether other work on the machine disturbed a profile, from what its record says; imports no torch.

Times of a disturbed profile are measurements of the other work too: tables flag them, and verdicts do not use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median, quantiles

from varient.profile_records import Latency, MachineLoad, ProfileRecord

WAITING = 1.15
"""Wall-clock time over CPU time above which a process waited for cores.  Our choice, like the other limits: on an idle
machine, repeats of the digits' profiles stay below 1.02, spread over 5 %, and others use 2 % of the cores."""
SPREAD = 0.15
"""Interquartile range over median, above which the speed of the machine changed during the measurement."""
OTHERS = 0.1
"""Share of all cores that other processes may use."""


def disturbances(record: ProfileRecord) -> tuple[str, ...]:
    """What disturbed the latency of a profile, one text for each sign of it; empty for a sound or an untimed one."""
    if record.latency is None:
        return ()
    return *_waiting(record.latency), *_spread(record.latency.repeats_s), *_of_load(record.load)


def speedup_disturbances(record: ProfileRecord) -> tuple[str, ...]:
    """What disturbed the speedup of a profile, as `disturbances`; empty without a reference."""
    if record.reference is None or record.latency is None:
        return ()
    return turn_disturbances({"": record.latency, "reference: ": record.reference}, "speedups", record.speedups,
                             record.load)


def turn_disturbances(timed: Mapping[str, Latency], ratios_are: str, ratios: Sequence[float],
                      load: MachineLoad | None) -> tuple[str, ...]:
    """What disturbed ratios of times that were measured in turns, one text for each sign of it.

    A machine that slows down slows both sides of a turn, so it is the ratios that must not spread.

    Args:
        timed: times by what is said before their signs.
        ratios_are: what the ratios are called.
        ratios: one for each turn.
    """
    found = [f"{which}{sign}" for which, latency in timed.items() for sign in _waiting(latency)]
    return (*found, *(f"{ratios_are} within turns: {sign}" for sign in _spread(ratios)), *_of_load(load))


def _waiting(latency: Latency) -> tuple[str, ...]:
    if not latency.cpu_s:
        return ()
    # With several threads this finds heavy disturbances only, as CPU time then sums over the threads.
    ratio = median(wall / max(cpu, 1e-9) for wall, cpu in zip(latency.repeats_s, latency.cpu_s, strict=True))
    return (f"wall-clock time is {ratio:.2f} times the CPU time",) if ratio > WAITING else ()


def _spread(values: Sequence[float]) -> tuple[str, ...]:
    if len(values) < 2:
        return ()
    lower, _, upper = quantiles(values, n=4)
    spread = (upper - lower) / median(values)
    return (f"the interquartile range is {spread:.0%} of the median",) if spread > SPREAD else ()


def _of_load(load: MachineLoad | None) -> tuple[str, ...]:
    if load is None:
        return ()
    if load.others is not None:
        busy = load.others > OTHERS * load.cores
        return (f"other processes used {load.others:.2f} of {load.cores} cores",) if busy else ()
    crowded = load.after_1min > load.threads + load.cores  # an average, to which earlier work belongs
    return (f"load average {load.after_1min:.1f} on {load.cores} cores",) if crowded else ()
