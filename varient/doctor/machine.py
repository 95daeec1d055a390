"""Checks of the machine: versions, device, driver, memory."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from varient.config import ExperimentConfig
from varient.cost.gpus import key_of
from varient.cost.sizes import MIB
from varient.cost.training_plan import USABLE_MEMORY
from varient.devices import VARIABLE, VisibleGpu, locked_gpus, visible_gpus, wanted_device
from varient.doctor.findings import Finding, fine, note, problem
from varient.doctor.outlook import Outlook
from varient.profiling.nvml import Gpu, NvmlError, driver_cuda

PACKAGES = {"torch": (), "torchvision": (), "accelerate": ("trainings",), "diffusers": ("dit",),
            "snakemake": ("workflow",)}
"""Required packages, and the settings that need them; an empty tuple: always needed."""


@dataclass(frozen=True)
class Machine:
    """The GPUs that this process would use; none if it computes on the CPU."""

    gpus: tuple[VisibleGpu, ...]

    @classmethod
    def here(cls) -> Machine:
        """The machine that this process runs on.

        Raises:
            ValueError: VARIENT_DEVICE or CUDA_VISIBLE_DEVICES is invalid.
        """
        return cls(() if wanted_device() == "cpu" else tuple(visible_gpus()))

    @cached_property
    def known_gpu(self) -> str | None:
        """Id of the first GPU in the cost model, found by its name; None if it is unknown there."""
        gpu = self.gpus and _opened(self.gpus[0])
        return key_of(gpu.name() or "") if gpu else None


def check_versions(config: ExperimentConfig) -> Iterator[Finding]:
    """Check the packages that the experiment needs."""
    yield fine("python", platform.python_version())
    for package, needs in PACKAGES.items():
        if "dit" in needs and "dit" not in config.systems:
            continue
        try:
            if find_spec(package) is None:
                raise PackageNotFoundError(package)
            yield fine(package, version(package))
        except PackageNotFoundError:
            yield problem(package, f"is not installed; {' and '.join(needs) or 'everything'} needs it: "
                                   "pip install 'varient[all]'")


def check_devices(config: ExperimentConfig, machine: Machine) -> Iterator[Finding]:
    """Check the devices on which images are generated."""
    wanted, half = wanted_device(), config.sampling.precision != "fp32"
    if not machine.gpus:
        yield from _check_cpu(wanted, config.sampling.precision if half else None)
        return
    yield from _check_driver()
    for gpu in machine.gpus:
        opened = _opened(gpu)
        if opened is None:
            yield problem(gpu.token, "NVML does not list it, so it cannot be checked whether the GPU is shared or "
                                     "how much memory is used; this needs the driver's libnvidia-ml", blocks=True)
        else:
            total = opened.total_bytes()
            memory = f"{total / MIB:,.0f} MiB" if total else "memory unknown"
            yield fine(gpu.token, f"{opened.name() or 'unnamed'}, {memory}, driver {opened.driver()}")
    yield from _check_locks(machine)


def check_memory(config: ExperimentConfig, machine: Machine, outlook: Outlook) -> Iterator[Finding]:
    """Check by the cost model whether batches and trainings fit into the memory of each GPU."""
    totals = [total for gpu in machine.gpus if (opened := _opened(gpu)) and (total := opened.total_bytes())]
    if not totals:
        return
    smallest = min(totals) / MIB
    peaks = {f"{cost.system.name} in batches of {cost.batch_size}": cost.peak_memory.mib
             for cost in outlook.costs() if cost.peak_memory}
    plans = {f"training {plan.name} with micro-batches of {plan.micro_batch}": plan.memory.peak / MIB / USABLE_MEMORY
             for plan in outlook.plans()}
    for what, needed in (peaks | plans).items():
        if needed > smallest:
            advice = ("VARIENT_MICRO_BATCH, VARIENT_RECOMPUTE=1 and VARIENT_STRATEGY=fsdp take less"
                      if what in plans else "a smaller sampling.batch_size takes less")
            yield problem("memory", f"{what} needs {needed:,.0f} MiB, the smallest GPU has {smallest:,.0f}: {advice}")
    if all(needed <= smallest for needed in (peaks | plans).values()):
        most = f"; the largest needs {max((peaks | plans).values()):,.0f} MiB" if peaks or plans else ""
        yield fine("memory", f"{len(peaks) + len(plans)} batches and trainings fit {smallest:,.0f} MiB{most}")


def _check_cpu(wanted: str, half: str | None) -> Iterator[Finding]:
    if wanted == "cuda":
        yield problem(VARIABLE, "is cuda, but NVML finds no GPU here; is the driver with libnvidia-ml installed?",
                      blocks=True)
    elif half:
        asked = f"; {VARIABLE}=cpu allows that, but it would be very slow" if wanted == "cpu" else ""
        yield problem("sampling.precision", f"{half} needs a GPU, and the device is a CPU{asked}",
                      blocks=wanted != "cpu")
    else:
        yield fine("device", "the CPU")


def _check_driver() -> Iterator[Finding]:
    """Check the driver: torch needs one that supports the major version of CUDA it is built for, or a later one."""
    import torch

    built, driver = torch.version.cuda, driver_cuda()
    if built is None:
        yield problem("torch", f"{torch.__version__} is built without CUDA, and there are GPUs", blocks=True)
    elif driver is None:
        yield note("driver", "does not report its CUDA version")
    elif driver[0] < int(built.split(".")[0]):
        yield problem("driver", f"is too old: it supports CUDA {driver[0]}.{driver[1]}, but torch {torch.__version__} "
                                f"is built for CUDA {built}; install a newer driver or another torch "
                                "(docs/running-at-scale.md#drivers)", blocks=True)
    else:
        yield fine("driver", f"supports CUDA {driver[0]}.{driver[1]}, torch {torch.__version__} is built for {built}")


def _check_locks(machine: Machine) -> Iterator[Finding]:
    held = locked_gpus(machine.gpus)
    busy = {gpu: sorted(found) for gpu in machine.gpus if (opened := _opened(gpu)) and (found := opened.processes())}
    for gpu in machine.gpus:
        if gpu in held:
            yield problem(gpu.token, f"is locked by process {held[gpu]} of varient: jobs wait until it ends")
        elif gpu in busy:
            yield problem(gpu.token, f"is in use by other processes (pid {', '.join(map(str, busy[gpu]))}): profiles "
                                     "refuse it")


def _opened(gpu: VisibleGpu) -> Gpu | None:
    try:
        return Gpu(gpu.uuid)
    except NvmlError:
        return None
