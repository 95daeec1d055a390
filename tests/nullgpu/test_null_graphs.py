"""Generations of VAR-d30 captured as CUDA graphs on a GPU that does nothing.

During a capture it refuses whatever makes the host wait, as CUDA does.
"""

import json

import pytest
from nullgpu.machine import HERE


@pytest.fixture(scope="module")
def calls(null_machine):
    done = null_machine.start(HERE / "replays.py", 4, 4, 3, 4, 3)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_each_batch_size_is_captured_once(calls):
    assert [row["graphs"] for row in calls] == [1, 1, 2, 2, 2]
    first, *_ = calls
    assert first["launches"] > 10_000  # two generations before the capture


def test_a_replay_is_one_launch_between_two_inputs_and_one_answer(calls):
    for row in (calls[1], calls[3], calls[4]):
        assert row["replays"] == 1 and row["launches"] < 10
        assert (row["to_device"], row["to_host"], row["waits"]) == (2, 1, 3)


def test_a_replay_takes_no_memory(calls):
    """The graph's pool is there; what comes new are the copies of inputs and results."""
    for row in (calls[3], calls[4]):
        assert row["peak_mib"] - row["live_mib"] < 1
