"""What a process did to its null GPU, read from the preloaded library; see runtime.c."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

MIB = 2 ** 20

torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles graphs for a real device; flash attention is a plain kernel


class Counts(NamedTuple):
    """Since the last reset: kernels launched, those in CUDA graphs left out; copies to the device, to the host and on
    it; waits of the host; replays of CUDA graphs."""

    launches: int
    to_device: int
    to_host: int
    on_device: int
    waits: int
    replays: int


def counts() -> Counts:
    """The counts of this process so far."""
    numbers = (ctypes.c_ulong * len(Counts._fields))()
    ctypes.CDLL(None).nullgpu_counts(numbers)
    return Counts(*numbers)


def reset() -> None:
    """Begin to count anew, the allocator's peaks too."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    ctypes.CDLL(None).nullgpu_reset()


def peak_mib() -> float:
    """Most that torch's allocator had handed out since the last reset, weights included, MiB."""
    return torch.cuda.max_memory_allocated() / MIB


def reserved_mib() -> float:
    """Most that it had taken from the device."""
    return torch.cuda.max_memory_reserved() / MIB
