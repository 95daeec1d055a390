"""Helpers for the profiling process: ending together with its parent, and detecting out-of-memory kills."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent process ``parent`` ends; works only on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before prctl was called
            os.kill(os.getpid(), signal.SIGKILL)


def oom_kills(root: Path = Path("/")) -> int:
    """Number of processes that the kernel's OOM killer has killed, in this process's cgroup or else on the machine.

    0 if the kernel does not count them.
    """
    for counter in (*_group_counters(root), root / "proc/vmstat"):
        found = re.search(r"^oom_kill (\d+)$", counter.read_text("utf-8"), re.MULTILINE) if counter.exists() else None
        if found:
            return int(found[1])
    return 0


def _group_counters(root: Path) -> list[Path]:
    """Files that may hold the count for the cgroup, for cgroups v2 and v1.

    In a container the listed path may be the one on the host while the cgroup is mounted at the root.
    """
    groups = root / "proc/self/cgroup"
    found = []
    for line in groups.read_text("utf-8").splitlines() if groups.exists() else ():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        found += [mount / path.lstrip("/") / name, mount / name]
    return found
