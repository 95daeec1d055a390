"""How the end of a measuring process is read from the kernel's counters."""

import pytest

from varient.profiling.process import oom_kills

COUNTS = "oom 9\noom_kill {}\noom_group_kill 0\n"


def _file(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.parametrize(("groups", "counter"), [
    ("0::/user/job\n", "sys/fs/cgroup/user/job/memory.events"),
    ("0::/path/on/the/host\n", "sys/fs/cgroup/memory.events"),  # in a container
    ("5:cpu:/\n4:memory:/job\n0::/\n", "sys/fs/cgroup/memory/job/memory.oom_control"),
    ("4:cpu,memory:/on/the/host\n", "sys/fs/cgroup/memory/memory.oom_control"),
    ("0::/\n", "proc/vmstat"),
    (None, "proc/vmstat"),
])
def test_the_groups_own_count_comes_first_and_then_the_machines(tmp_path, groups, counter):
    if groups:
        _file(tmp_path, "proc/self/cgroup", groups)
    _file(tmp_path, "proc/vmstat", COUNTS.format(7))
    _file(tmp_path, counter, COUNTS.format(3))
    assert oom_kills(tmp_path) == 3


def test_a_kernel_that_does_not_count_has_killed_nobody(tmp_path):
    _file(tmp_path, "proc/vmstat", "nr_free_pages 1\n")
    assert oom_kills(tmp_path) == 0


def test_this_kernel_answers():
    assert oom_kills() >= 0
