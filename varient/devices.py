"""Choice of the device: VARIENT_DEVICE, and a GPU that no other `varient` process uses.

Processes started side by side on one machine would all use the first GPU that they see.  Therefore each process locks
one of the visible GPUs until it exits, and hides the others from itself by setting CUDA_VISIBLE_DEVICES.  CUDA reads
that variable once, so this must happen before torch queries the GPUs.  The operating system releases a lock however the
process ends; the lock file holds the pid of the last process that took it, for messages to waiting processes.  Imports
no torch.

The locks are the system's own and not `filelock`'s: a process holds some of several files, passes them to the program
that it becomes, and reads from a file that it did not get who has it.  They are of one user's processes; those of
others, and programs that lock nothing, are seen by NVML: a GPU that somebody computes on is taken only where no other
is free.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pynvml

from varient.settings import Wanted, read_settings

VARIABLE = "VARIENT_DEVICE"
_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
_TAKEN = "VARIENT_GPUS_TAKEN"
"""Set for child processes and across `os.exec`: the visible GPUs are locked already."""

LOCKS = Path("/tmp") / f"varient-gpus-{os.getuid()}"
"""One lock file for each GPU of this machine, and one for the queue.  Not in TMPDIR, which may differ by process."""
POLL_S = 1.0

_held: list[int] = []
"""File descriptors of the locks of this process; they stay open until it exits."""


class VisibleGpu(NamedTuple):
    """A GPU: its token for CUDA_VISIBLE_DEVICES, and its UUID ("GPU-..."), or the token again if NVML gives no UUID."""

    token: str
    uuid: str


def wanted_device(default: Wanted = "auto") -> Wanted:
    """The value of VARIENT_DEVICE, or the default if it is not set or `auto`.

    Args:
        default: `auto` uses a GPU if there is one; `cpu` uses a GPU only if VARIENT_DEVICE asks for it.

    Raises:
        ConfigError: as `varient.settings.read_settings`.
    """
    wanted = read_settings().device
    return default if wanted == "auto" else wanted


@contextmanager
def wanting(device: Wanted) -> Iterator[None]:
    """Set VARIENT_DEVICE within a `with` block."""
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
    """Lock one GPU for this process, waiting until one is free.

    Does nothing if the process computes on the CPU, or was given its GPU by a launcher (which sets LOCAL_RANK) or by a
    parent process that holds GPUs.  Call it before torch is used.

    Raises:
        ValueError: as `varient.settings.read_settings` and `take_gpus`.
    """
    has_gpu = read_settings().gpus_taken == "1" or "LOCAL_RANK" in os.environ
    if wanted_device(default) != "cpu" and not has_gpu and visible_gpus():
        take_gpus(1)


def leave_gpus() -> None:
    """Release the GPUs of this process, when torch turns out to be unable to use them."""
    while _held:
        os.close(_held.pop())
    os.environ.pop(_TAKEN, None)


def take_gpus(count: int, *, for_children: bool = False) -> None:
    """Lock ``count`` of the visible GPUs, waiting until that many are free, and hide all others from this process.

    Args:
        for_children: keep the locks across `os.exec`.

    Raises:
        ValueError: fewer GPUs are visible; as `visible_gpus`; or other users could write into the folder of the locks.
    """
    gpus = visible_gpus()
    if len(gpus) < count:
        raise ValueError(f"{count} GPUs are asked for, {len(gpus)} visible here ({_VISIBLE} = "
                         f"{os.environ.get(_VISIBLE, 'not set')}): {', '.join(gpu.token for gpu in gpus) or 'none'}")
    _check_lock_folder()
    busy = {gpu: pids for gpu in gpus if (pids := _computing_on(gpu.uuid))}
    gpus = sorted(gpus, key=lambda gpu: gpu in busy)
    taken: dict[VisibleGpu, int] = {}
    with _queued():  # one process chooses at a time: two that each hold some GPUs and wait for more could deadlock
        said = ""
        while True:
            for gpu in gpus:
                if gpu not in taken and len(taken) < count and (lock := _locked(gpu.uuid)) is not None:
                    taken[gpu] = lock
            if len(taken) == count:
                break
            held = ", ".join(f"{gpu.token} by process {_holder(gpu.uuid)}" for gpu in gpus if gpu not in taken)
            if held != said:
                _say(f"waiting for {count} free of {len(gpus)} visible GPUs; held are {held}")
                said = held
            time.sleep(POLL_S)
    for lock in taken.values():
        os.set_inheritable(lock, for_children)
        _held.append(lock)
    os.environ[_VISIBLE], os.environ[_TAKEN] = ",".join(gpu.token for gpu in taken), "1"
    os.environ[_ORDER] = "PCI_BUS_ID"  # NVML's order, in which numbers are read here; CUDA's puts the fastest first
    _say(f"took {os.environ[_VISIBLE]} of {len(gpus)} visible GPUs")
    for gpu in taken.keys() & busy.keys():
        _say(f"others compute on {gpu.token} too (pid {', '.join(map(str, busy[gpu]))}): no other GPU was free")


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[VisibleGpu]:
    """The GPUs that CUDA shows to a process, in CUDA's order; empty without a driver.

    A number in CUDA_VISIBLE_DEVICES counts as NVML counts, whatever CUDA_DEVICE_ORDER says; `take_gpus` has CUDA count
    so too.  The list ends before the first word that names none: -1, NoDevFiles, the number or UUID of a GPU that is
    not here.

    Raises:
        ValueError: a GPU is named twice (CUDA would then show none), or a UUID prefix matches several GPUs.
    """
    uuids = _installed_gpus()
    named = environment.get(_VISIBLE)
    if named is None:
        return [VisibleGpu(uuid, uuid) for uuid in uuids]
    gpus: list[VisibleGpu] = []
    for token in map(str.strip, named.split(",") if uuids else ()):
        found = _gpus_named(token, uuids)
        if not found:
            break
        if len(found) > 1:
            raise ValueError(f"{_VISIBLE} = {named!r}: {token} matches several GPUs: {', '.join(found)}")
        if first := next((gpu for gpu in gpus if gpu.uuid == found[0]), None):
            raise ValueError(f"{_VISIBLE} = {named!r} names one GPU twice, by {first.token} and by {token}: CUDA would "
                             "show none")
        gpus.append(VisibleGpu(token, found[0]))
    return gpus


def _gpus_named(token: str, uuids: list[str]) -> list[str]:
    """UUIDs of the GPUs that an entry of CUDA_VISIBLE_DEVICES may name; NVML does not list MIG devices as GPUs."""
    if token.isascii() and token.isdecimal():
        return uuids[int(token):][:1]
    if token.startswith("GPU-"):
        return [uuid for uuid in uuids if uuid.startswith(token)]
    return [token] if token.startswith("MIG-") else []


def _installed_gpus() -> list[str]:
    """UUIDs of the machine's GPUs by NVML; for a GPU in MIG mode, those of its MIG devices.  Empty without a driver.

    If NVML does not give the UUID of a GPU, its number is used.
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
    """NVML handles of the MIG devices of a GPU; empty if it is not in MIG mode."""
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
        except pynvml.NVMLError:  # fewer MIG devices exist than the maximum
            continue
    return found


def locked_gpus(gpus: Iterable[VisibleGpu]) -> dict[VisibleGpu, str]:
    """Which of the GPUs another `varient` process has locked: GPU -> pid of that process.  Takes no lock itself.

    Raises:
        ValueError: other users could write into the folder of the locks.
    """
    if not LOCKS.exists():
        return {}
    _check_lock_folder()
    held = {}
    for gpu in gpus:
        if (lock := _locked(gpu.uuid)) is None:
            held[gpu] = _holder(gpu.uuid)
        else:
            os.close(lock)
    return held


def _computing_on(uuid: str) -> list[int]:
    """Processes that compute on a GPU, by NVML; none where it does not tell."""
    try:
        return sorted(process.pid for process in
                      pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByUUID(uuid)))
    except (pynvml.NVMLError, AttributeError):
        return []


def _check_lock_folder() -> None:
    """Create the folder of the locks; raise ValueError if another user owns it or can write into it."""
    with suppress(FileExistsError):
        LOCKS.mkdir(mode=0o700)
    found = LOCKS.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise ValueError(f"{LOCKS} must be a folder of user {os.getuid()} with mode 700, so that the GPU locks are "
                         f"safe, but is {stat.filemode(found.st_mode)} of user {found.st_uid}; remove it")


@contextmanager
def _queued() -> Iterator[None]:
    """Hold the queue's lock: one process at a time looks for free GPUs."""
    queue = _opened("queue")
    try:
        if not _take(queue):
            _say(f"waiting behind process {_holder('queue')}, which waits for GPUs")
            _take(queue, wait=True)
        yield
    finally:
        os.close(queue)


def _locked(uuid: str) -> int | None:
    """File descriptor of the lock of a GPU, or None if another process holds it."""
    lock = _opened(uuid)
    if _take(lock):
        return lock
    os.close(lock)
    return None


def _opened(name: str) -> int:
    path = LOCKS / name.replace("/", "-")
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ValueError(f"{path}: this lock file cannot be opened: {error.strerror}") from error


def _take(lock: int, *, wait: bool = False) -> bool:
    """Lock an open file and write this pid into it; False if another process holds it and ``wait`` is false."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    os.ftruncate(lock, 0)  # also updates its time, so that clean-up of old files in /tmp leaves it alone
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return True


def _holder(name: str) -> str:
    """Pid of the process that took a lock last; "unknown" while a new holder has not written its pid yet."""
    lock = _opened(name)
    try:
        return os.pread(lock, 32, 0).decode() or "unknown"
    finally:
        os.close(lock)


def _say(message: str) -> None:
    print(f"varient: {message}", file=sys.stderr, flush=True)
