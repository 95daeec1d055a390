"""Energy for an image, on a GPU whose counter and clock a test moves."""

from types import SimpleNamespace

import pynvml
import pytest
import torch

from varient.profiling import energy
from varient.profiling.energy import IDLE_S, LEAST_S, Energy, measure_energy
from varient.profiling.nvml import Gpu

DEVICE = torch.device("cpu")  # nothing is computed


class Machine:
    """A clock, and a GPU that draws ``idle_w`` at any time and ``step_j`` more for a step of ``step_s``."""

    def __init__(self, idle_w=60.0, step_j=40.0, step_s=0.5):
        self.idle_w, self.step_j, self.step_s = idle_w, step_j, step_s
        self.now_s, self.used_j, self.steps = 100.0, 5000.0, 0

    def sleep(self, seconds):
        self.now_s += seconds
        self.used_j += self.idle_w * seconds

    def step(self):
        self.sleep(self.step_s)
        self.used_j += self.step_j
        self.steps += 1

    def counter(self, handle):
        return round(1000 * self.used_j)


@pytest.fixture
def measured(monkeypatch):
    """Measures on a machine; returns the energy and what the driver did not tell."""
    def measure(machine, counter=None):
        for name, answer in {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
                             "nvmlDeviceGetComputeRunningProcesses": lambda handle: [],
                             "nvmlDeviceGetTotalEnergyConsumption": counter or machine.counter}.items():
            monkeypatch.setattr(pynvml, name, answer)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(energy, "time", SimpleNamespace(perf_counter=lambda: machine.now_s, sleep=machine.sleep))
        gpu = Gpu("GPU-1")
        return measure_energy(gpu, machine.step, DEVICE, images=8), gpu.unanswered

    return measure


def test_the_idle_power_is_taken_off(measured):
    assert measured(Machine()) == (Energy(pytest.approx(40 / 8), pytest.approx(60.0)), {})


@pytest.mark.parametrize(("step_s", "steps"), [(0.5, LEAST_S / 0.5), (2.0, 2), (30.0, 1)])
def test_work_lasts_as_long_as_the_counter_needs(measured, step_s, steps):
    machine = Machine(step_s=step_s)
    measured(machine)
    assert machine.steps == steps and machine.now_s == pytest.approx(100 + IDLE_S + steps * step_s)


def _refuses(handle):
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)


def test_a_driver_without_the_counter_costs_no_work(measured):
    machine = Machine()
    found, unanswered = measured(machine, _refuses)
    assert found == Energy(None, None) and machine.steps == 0
    assert unanswered == {"energy": str(pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED))}


@pytest.mark.parametrize(("counts_mj", "idle_w"), [([900, 100, 500], None), ([100, 900, 500], None),
                                                   ([0, 60_000, 70_000], 60.0)])
def test_a_counter_that_makes_no_sense_is_said(measured, counts_mj, idle_w):
    counts = iter(counts_mj)
    found, unanswered = measured(Machine(), lambda handle: next(counts))
    assert found == Energy(None, idle_w) and "counter" in unanswered["energy"]
