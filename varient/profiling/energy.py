"""Energy of a GPU for an image, above what it draws idle, from the driver's counter."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch

from varient.profiling.latency import Step
from varient.profiling.nvml import Gpu

IDLE_S = 1.0
"""How long the idle power is measured."""
LEAST_S = 3.0
"""How long the work lasts at least: the counter moves about ten times a second, so a step of it is a few percent."""


class Energy(NamedTuple):
    """Energy of a GPU; None where the driver does not tell.

    Attributes:
        j_per_image: joules for each image, the idle power over the same time subtracted.
        idle_w: watts while nothing ran, just before.
    """

    j_per_image: float | None
    idle_w: float | None


def measure_energy(gpu: Gpu, step: Step, device: torch.device, *, images: int) -> Energy:
    """Energy of a step, repeated for `LEAST_S` with nothing else in between.

    What the driver does not tell is None, with the reason in `Gpu.unanswered`.

    Args:
        images: that a step draws.
    """
    torch.cuda.synchronize(device)
    idle_j, idle_s = _counted(gpu), time.perf_counter()
    time.sleep(IDLE_S)
    begin_j, begin_s = _counted(gpu), time.perf_counter()
    if idle_j is None or begin_j is None:
        return Energy(None, None)
    steps = 0
    while time.perf_counter() - begin_s < LEAST_S:
        step()
        torch.cuda.synchronize(device)
        steps += 1
    end_j, end_s = _counted(gpu), time.perf_counter()
    if end_j is None:
        return Energy(None, None)
    idle_w = (begin_j - idle_j) / (begin_s - idle_s)
    if idle_w < 0 or end_j < begin_j:
        gpu.unanswered["energy"] = "the counter went back"
        return Energy(None, None)
    above_idle_j = end_j - begin_j - idle_w * (end_s - begin_s)
    if above_idle_j < 0:
        gpu.unanswered["energy"] = "the counter rose less than while nothing ran"
        return Energy(None, idle_w)
    return Energy(above_idle_j / (steps * images), idle_w)


def _counted(gpu: Gpu) -> float | None:
    """The counter in joules."""
    counted_mj = gpu.energy_mj()
    return None if counted_mj is None else counted_mj / 1000
