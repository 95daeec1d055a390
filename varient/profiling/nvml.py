"""One GPU as the NVIDIA driver sees it (NVML): who computes on it, and how much of its memory is taken."""

from __future__ import annotations

import os

import pynvml


class NvmlError(OSError):
    """The driver's management library is missing or does not know the GPU."""


class GpuBusyError(OSError):
    """Another process computes on the GPU; the message names its pid."""


class Gpu:
    """A GPU by its UUID ("GPU-..." as `nvidia-smi -L` prints it).

    Raises:
        NvmlError: no NVML on this machine, or no such GPU.
    """

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            raise NvmlError(f"NVML cannot be used for {uuid} ({error}): it needs the NVIDIA driver's libnvidia-ml, and "
                            "without it nobody can tell whether the GPU is shared or how much of its memory is "
                            "taken") from None

    def processes(self) -> dict[int, int | None]:
        """Processes that compute on the GPU: pid -> bytes, None where the driver does not tell."""
        return {process.pid: process.usedGpuMemory
                for process in pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)}

    def require_idle(self) -> None:
        """Ask before this process touches the GPU.

        Raises:
            GpuBusyError: some other process computes on it.
        """
        others = sorted(self.processes().keys() - {os.getpid()})
        if others:
            raise GpuBusyError(f"{self.uuid} is busy with other processes (pid {', '.join(map(str, others))}); a "
                               "profile needs the GPU for itself")

    def require_undisturbed(self) -> None:
        """Ask after measuring: counts processes, because a container may know this one by another pid.

        Raises:
            GpuBusyError: more processes than this one compute on it.
        """
        pids = sorted(self.processes())
        if len(pids) > 1:
            raise GpuBusyError(f"{self.uuid} got a second process while it was profiled (pids "
                               f"{', '.join(map(str, pids))}); the measurement is void")

    def process_bytes(self) -> int | None:
        """Memory that the driver books for this process, context and libraries included; None where it does not tell.

        In a container the driver may list this process under its pid on the host; the only process is then this one.
        """
        processes = self.processes()
        if os.getpid() in processes:
            return processes[os.getpid()]
        return next(iter(processes.values())) if len(processes) == 1 else None

    def device_bytes(self) -> int:
        """Memory taken on the whole GPU, by whomever; what the driver keeps for itself is not counted."""
        return pynvml.nvmlDeviceGetMemoryInfo(self._handle, version=pynvml.nvmlMemory_v2).used

    def driver(self) -> str:
        """Version of the driver."""
        return pynvml.nvmlSystemGetDriverVersion()
