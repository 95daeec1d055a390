"""Which device a process computes on: VARIENT_DEVICE, and a GPU that no other process of ours has taken.

Processes started side by side on one machine would all use the first GPU that they see.  So each locks one of the
visible GPUs for its life and hides the others from itself.  It does so by CUDA_VISIBLE_DEVICES, which CUDA reads once:
before torch is asked about GPUs.  The operating system drops a lock however its process ends.  Imports no torch.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import pynvml

Wanted = Literal["auto", "cpu", "cuda"]
VARIABLE = "VARIENT_DEVICE"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_TAKEN = "VARIENT_GPUS_TAKEN"
"""Set for the processes that this one starts or becomes: the GPUs that they see are locked for them already."""

LOCKS = Path("/tmp") / f"varient-gpus-{os.getuid()}"
"""One file for each GPU of this machine, and one for the queue; TMPDIR may differ between processes."""
POLL_S = 1.0

_held: list[int] = []
"""Descriptors of this process's locks: open as long as it lives."""


class VisibleGpu(NamedTuple):
    """A GPU as CUDA_VISIBLE_DEVICES may name it, and its UUID ("GPU-..."), or the name again where NVML has none."""

    token: str
    uuid: str


def wanted_device(default: Wanted = "auto", environment: Mapping[str, str] = os.environ) -> Wanted:
    """What VARIENT_DEVICE says, and the default where it is not set or auto.

    Args:
        default: auto for work that takes a GPU where there is one, cpu for work that has to be told.

    Raises:
        ValueError: a word that means nothing.
    """
    wanted = environment.get(VARIABLE) or "auto"
    if wanted not in get_args(Wanted):
        raise ValueError(f"{VARIABLE} = {wanted!r} is unknown; known: {', '.join(get_args(Wanted))}")
    return default if wanted == "auto" else wanted


@contextmanager
def wanting(device: Wanted) -> Iterator[None]:
    """VARIENT_DEVICE for a block, whatever the caller's says."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = device
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def settle_device(default: Wanted = "auto") -> None:
    """Take a GPU of its own for this process, or wait for one, unless it is to compute on the CPU or has been placed.

    Placed is a process of a launcher (which sets LOCAL_RANK), and one that a process with GPUs started.  Call it before
    torch is used.

    Raises:
        ValueError: VARIENT_DEVICE means nothing.
    """
    placed = _TAKEN in os.environ or "LOCAL_RANK" in os.environ
    if wanted_device(default) != "cpu" and not placed and visible_gpus():
        take_gpus(1)


def leave_gpus() -> None:
    """Unlock what this process has taken: torch, which was not asked before, cannot use it."""
    while _held:
        os.close(_held.pop())
    os.environ.pop(_TAKEN, None)


def take_gpus(count: int, *, for_children: bool = False) -> None:
    """Lock ``count`` of the visible GPUs, waiting until so many are free, and show no others to this process.

    Args:
        for_children: the locks pass to the program that this process becomes (`os.exec`).

    Raises:
        ValueError: fewer are visible.
    """
    gpus = visible_gpus()
    if len(gpus) < count:
        raise ValueError(f"{count} GPUs are asked for, {len(gpus)} visible here ({_VISIBLE} = "
                         f"{os.environ.get(_VISIBLE, 'not set')}): {', '.join(gpu.token for gpu in gpus) or 'none'}")
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    taken: dict[VisibleGpu, int] = {}
    with _queued():  # one process chooses at a time: of two that want several, each might hold some for ever
        waiting = False
        while True:
            for gpu in gpus:
                if gpu not in taken and len(taken) < count and (lock := _locked(gpu.uuid)) is not None:
                    taken[gpu] = lock
            if len(taken) == count:
                break
            if not waiting:
                _say(f"waiting for {count} free of {len(gpus)} visible GPUs")
                waiting = True
            time.sleep(POLL_S)
    for lock in taken.values():
        os.set_inheritable(lock, for_children)
        _held.append(lock)
    os.environ[_VISIBLE], os.environ[_TAKEN] = ",".join(gpu.token for gpu in taken), "1"
    _say(f"took {os.environ[_VISIBLE]} of {len(gpus)} visible GPUs")


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[VisibleGpu]:
    """The GPUs that CUDA shows a process, in its order; none without a driver.

    A number in CUDA_VISIBLE_DEVICES counts as NVML counts, which is CUDA's own order where all GPUs are alike.
    """
    uuids = _installed_gpus()
    named = environment.get(_VISIBLE)
    if named is None:
        return [VisibleGpu(uuid, uuid) for uuid in uuids]
    gpus: list[VisibleGpu] = []
    for token in map(str.strip, named.split(",") if uuids else ()):
        if token.isdecimal() and int(token) < len(uuids):
            gpus.append(VisibleGpu(token, uuids[int(token)]))
        elif token.startswith(("GPU-", "MIG-")):
            gpus.append(VisibleGpu(token, next((uuid for uuid in uuids if uuid.startswith(token)), token)))
        else:
            break  # CUDA too reads no further than the first that it does not know
    return gpus


def _installed_gpus() -> list[str]:
    """UUIDs of the machine's GPUs by NVML, of a GPU in slices (MIG) those of its slices; none where there is no driver.

    A GPU whose UUID NVML does not tell goes by its number.
    """
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return []
    found = []
    for number in range(count):
        try:
            gpu = pynvml.nvmlDeviceGetHandleByIndex(number)
            found += [pynvml.nvmlDeviceGetUUID(handle) for handle in _slices(gpu) or [gpu]]
        except pynvml.NVMLError:
            found.append(str(number))
    return found


def _slices(gpu: object) -> list[object]:
    """NVML's handles of the slices of a GPU; none where it is in one piece."""
    try:
        if pynvml.nvmlDeviceGetMigMode(gpu)[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
            return []
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except pynvml.NVMLError:
        return []
    found = []
    for number in range(most):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, number))
        except pynvml.NVMLError:  # so many may be there, few are
            continue
    return found


@contextmanager
def _queued() -> Iterator[None]:
    """In turn with all other processes that look for GPUs."""
    queue = os.open(LOCKS / "queue", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(queue, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("waiting behind a process that waits for GPUs")
            fcntl.flock(queue, fcntl.LOCK_EX)
        yield
    finally:
        os.close(queue)


def _locked(uuid: str) -> int | None:
    """The descriptor of a GPU's lock, or None where another process has it."""
    lock = os.open(LOCKS / uuid.replace("/", "-"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.utime(lock)  # what clears /tmp goes by age
    return lock


def _say(message: str) -> None:
    print(f"varient: {message}", file=sys.stderr, flush=True)
