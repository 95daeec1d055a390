"""State of a GPU according to the NVIDIA driver (NVML): processes on it, memory in use and energy used.

Some drivers, containers and MIG devices answer only some queries; an unanswered query gives None, with a reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pynvml

Answer = TypeVar("Answer")


class NvmlError(OSError):
    """The driver's management library is missing or does not know the GPU."""


class GpuBusyError(OSError):
    """Another process computes on the GPU; the message names its pid."""


class Gpu:
    """A GPU or MIG device, by its UUID.  Create it before this process uses the GPU, so that other processes are seen.

    Args:
        uuid: "GPU-..." or "MIG-..." as printed by `nvidia-smi -L`, or without this prefix, as in torch.

    Attributes:
        uuid: the UUID with its prefix.
        unanswered: queries that the driver did not answer -> reason.

    Raises:
        NvmlError: no NVML on this machine, or no such GPU.
    """

    def __init__(self, uuid: str) -> None:
        names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
        self.unanswered: dict[str, str] = {}
        self.uuid, self._handle = _found(names)
        self._before = set(self.processes() or ())

    def processes(self) -> dict[int, int | None] | None:
        """Processes that compute on the GPU: pid -> bytes (None if unknown); None if the driver does not answer.

        In a container the pids may be those on the host, also for this process.
        """
        listed = self._ask("processes", lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        return None if listed is None else {process.pid: process.usedGpuMemory for process in listed}

    def require_idle(self) -> None:
        """Check that no other process was using the GPU when this object was created.

        Raises:
            GpuBusyError: another process was.
        """
        if others := sorted(self._before - _own_pids()):
            raise GpuBusyError(f"{self.uuid} is busy with other processes (pid {', '.join(map(str, others))}); a "
                               "profile needs the GPU for itself")

    def require_undisturbed(self) -> None:
        """Check after a measurement that no other process has used the GPU meanwhile.

        Raises:
            GpuBusyError: another process computes on it.
        """
        pids = sorted(self.processes() or ())
        if len(pids) > 1:
            raise GpuBusyError(f"{self.uuid} got a second process while it was profiled (pids "
                               f"{', '.join(map(str, pids))}); the measurement is void")

    def process_bytes(self) -> int | None:
        """Memory of this process according to the driver, including CUDA context and libraries; None if unknown.

        In a container the driver may list this process under another pid; then the new or only process is taken.
        """
        processes = self.processes()
        if processes is None:
            return None
        own = _own_pids() & processes.keys() or processes.keys() - self._before or set(processes)
        used = processes[own.pop()] if len(own) == 1 else None
        if used is None:
            self.unanswered["process memory"] = "this process is not listed, or listed without its memory"
        return used

    def device_bytes(self) -> int | None:
        """Memory used on the whole GPU or MIG device by all processes, without memory reserved by the driver."""
        return self._ask("memory", lambda: pynvml.nvmlDeviceGetMemoryInfo(
            self._handle, version=pynvml.nvmlMemory_v2).used)

    def total_bytes(self) -> int | None:
        """Total memory of the GPU or MIG device."""
        return self._ask("memory", lambda: pynvml.nvmlDeviceGetMemoryInfo(self._handle).total)

    def energy_mj(self) -> int | None:
        """Energy that the GPU has used since the driver was loaded, millijoules; parts of a GPU (MIG) have no counter.
        """
        return self._ask("energy", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def name(self) -> str | None:
        """Its model."""
        return self._ask("name", lambda: pynvml.nvmlDeviceGetName(self._handle))

    def driver(self) -> str | None:
        """Version of the driver."""
        return self._ask("driver", pynvml.nvmlSystemGetDriverVersion)

    def _ask(self, what: str, question: Callable[[], Answer]) -> Answer | None:
        """The answer to a query, or None with the reason stored; old drivers and old bindings lack some queries."""
        try:
            return question()
        except (pynvml.NVMLError, AttributeError, TypeError) as error:
            self.unanswered[what] = str(error)
            return None


def driver_cuda() -> tuple[int, int] | None:
    """The CUDA version that the driver supports, (major, minor); None without a driver, or if it does not report it."""
    try:
        pynvml.nvmlInit()
        served = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    except pynvml.NVMLError:
        return None
    return served // 1000, served % 1000 // 10


def _found(names: list[str]) -> tuple[str, object]:
    """The first of some UUIDs that NVML knows, and its handle."""
    for name in names:
        try:
            pynvml.nvmlInit()
            return name, pynvml.nvmlDeviceGetHandleByUUID(name)
        except pynvml.NVMLError as error:
            reason = error
    raise NvmlError(f"NVML cannot be used for {names[0]} ({reason}): it needs the NVIDIA driver's libnvidia-ml; "
                    "otherwise it cannot be checked whether the GPU is shared or how much of its memory is used")


def _own_pids() -> set[int]:
    """The pids of this process: its own, and those in the visible pid namespaces."""
    status = Path("/proc/self/status")
    found = re.search(r"^NSpid:\s+(.*)$", status.read_text("utf-8"), re.MULTILINE) if status.exists() else None
    return {os.getpid(), *(map(int, found[1].split()) if found else ())}
