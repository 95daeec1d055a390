"""What a measuring process owes to the one that started it, and how its end is read."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have the kernel kill this process once the process ``parent``, which started it, has ended; Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was told
            os.kill(os.getpid(), signal.SIGKILL)


def oom_kills(root: Path = Path("/")) -> int:
    """Processes that the kernel has killed for want of memory: in this process's control group, else on the machine.

    0 where the kernel does not count them.
    """
    for counter in (*_group_counters(root), root / "proc/vmstat"):
        found = re.search(r"^oom_kill (\d+)$", counter.read_text("utf-8"), re.MULTILINE) if counter.exists() else None
        if found:
            return int(found[1])
    return 0


def _group_counters(root: Path) -> list[Path]:
    """Files that may hold the count for the control group, in its second version and in its first.

    In a container a group's path may be that on the host, while the group lies at the root.
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
