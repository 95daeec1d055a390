"""Whether other work on the machine disturbed a profile, from what its record says; imports no torch.

Times of a disturbed profile are measurements of the other work too: tables flag them, and verdicts do not use them.
"""

from __future__ import annotations

from statistics import median

from varient.records import Latency, MachineLoad, ProfileRecord

WAITING = 1.15
"""Wall-clock time over CPU time above which a process waited for cores.  Our choice, like the other limits: on an idle
machine, repeats of the digits' profiles stay below 1.02, spread over 5 %, and others use 2 % of the cores."""
SPREAD = 0.15
"""Interquartile range over median, above which the speed of the machine changed during the measurement."""
OTHERS = 0.1
"""Share of all cores that other processes may use."""


def disturbances(record: ProfileRecord) -> tuple[str, ...]:
    """What disturbed the times of a profile, one text for each sign of it; empty for a sound or an untimed one."""
    timed = {"": record.latency, "decoder: ": record.decoder_latency, "reference: ": record.reference}
    found = [f"{which}{sign}" for which, latency in timed.items() if latency for sign in _signs(latency)]
    return (*found, *(_of_load(record.load) if record.load and record.latency else ()))


def _signs(latency: Latency) -> list[str]:
    found = []
    if latency.cpu_s:
        # With several threads this finds heavy disturbances only, as CPU time then sums over the threads.
        ratio = median(wall / max(cpu, 1e-9) for wall, cpu in zip(latency.repeats_s, latency.cpu_s, strict=True))
        if ratio > WAITING:
            found.append(f"wall-clock time is {ratio:.2f} times the CPU time")
    if latency.iqr_s and (spread := latency.iqr_s / latency.median_s) > SPREAD:
        found.append(f"the interquartile range is {spread:.0%} of the median")
    return found


def _of_load(load: MachineLoad) -> tuple[str, ...]:
    if load.others is not None:
        busy = load.others > OTHERS * load.cores
        return (f"other processes used {load.others:.2f} of {load.cores} cores",) if busy else ()
    crowded = load.after_1min > load.threads + load.cores  # an average, to which earlier work belongs
    return (f"load average {load.after_1min:.1f} on {load.cores} cores",) if crowded else ()
