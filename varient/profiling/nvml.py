"""One GPU as the NVIDIA driver sees it (NVML): who computes on it, and how much of its memory is taken.

Drivers, containers and slices of a GPU (MIG) answer some questions only; what is not answered is None, with a reason.
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
    """A GPU, or a slice of one, by its UUID; make it before this process touches the GPU.

    Args:
        uuid: "GPU-..." or "MIG-..." as `nvidia-smi -L` prints it, or without the first word as torch may.

    Attributes:
        uuid: with its first word.
        unanswered: what the driver did not tell -> why.

    Raises:
        NvmlError: no NVML on this machine, or no such GPU.
    """

    def __init__(self, uuid: str) -> None:
        names = [uuid] if uuid.startswith(("GPU-", "MIG-")) else [f"GPU-{uuid}", f"MIG-{uuid}"]
        self.unanswered: dict[str, str] = {}
        self.uuid, self._handle = _found(names)
        self._before = set(self.processes() or ())

    def processes(self) -> dict[int, int | None] | None:
        """Processes that compute on the GPU: pid -> bytes, None where the driver does not tell; None for no answer.

        In a container the driver may list them, this one too, under their pids on the host.
        """
        listed = self._ask("processes", lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        return None if listed is None else {process.pid: process.usedGpuMemory for process in listed}

    def require_idle(self) -> None:
        """See that nobody else computed on the GPU when this object was made.

        Raises:
            GpuBusyError: some other process did.
        """
        if others := sorted(self._before - _own_pids()):
            raise GpuBusyError(f"{self.uuid} is busy with other processes (pid {', '.join(map(str, others))}); a "
                               "profile needs the GPU for itself")

    def require_undisturbed(self) -> None:
        """Ask after measuring.

        Raises:
            GpuBusyError: more processes than this one compute on it.
        """
        pids = sorted(self.processes() or ())
        if len(pids) > 1:
            raise GpuBusyError(f"{self.uuid} got a second process while it was profiled (pids "
                               f"{', '.join(map(str, pids))}); the measurement is void")

    def process_bytes(self) -> int | None:
        """Memory that the driver books for this process, context and libraries included; None where it does not tell.

        In a container this process may have another pid; the one that has come, or the only one, is then this one.
        """
        processes = self.processes()
        if processes is None:
            return None
        own = _own_pids() & processes.keys() or processes.keys() - self._before or set(processes)
        used = processes[own.pop()] if len(own) == 1 else None
        if used is None:
            self.unanswered["process memory"] = "this process is not listed, or without its memory"
        return used

    def device_bytes(self) -> int | None:
        """Memory taken on the whole GPU or slice, by whomever; what the driver keeps for itself is not counted."""
        return self._ask("memory", lambda: pynvml.nvmlDeviceGetMemoryInfo(
            self._handle, version=pynvml.nvmlMemory_v2).used)

    def total_bytes(self) -> int | None:
        """Memory of the GPU or slice."""
        return self._ask("memory", lambda: pynvml.nvmlDeviceGetMemoryInfo(self._handle).total)

    def name(self) -> str | None:
        """Its model."""
        return self._ask("name", lambda: pynvml.nvmlDeviceGetName(self._handle))

    def driver(self) -> str | None:
        """Version of the driver."""
        return self._ask("driver", pynvml.nvmlSystemGetDriverVersion)

    def _ask(self, what: str, question: Callable[[], Answer]) -> Answer | None:
        """The answer, or None with the reason kept; bindings older than the question lack it, as drivers may."""
        try:
            return question()
        except (pynvml.NVMLError, AttributeError, TypeError) as error:
            self.unanswered[what] = str(error)
            return None


def driver_cuda() -> tuple[int, int] | None:
    """The version of CUDA that the driver serves, major and minor; None for no driver, or one that does not tell."""
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
    raise NvmlError(f"NVML cannot be used for {names[0]} ({reason}): it needs the NVIDIA driver's libnvidia-ml, and "
                    "without it nobody can tell whether the GPU is shared or how much of its memory is taken")


def _own_pids() -> set[int]:
    """The pids of this process: its own, and those in the namespaces that it can see."""
    status = Path("/proc/self/status")
    found = re.search(r"^NSpid:\s+(.*)$", status.read_text("utf-8"), re.MULTILINE) if status.exists() else None
    return {os.getpid(), *(map(int, found[1].split()) if found else ())}
