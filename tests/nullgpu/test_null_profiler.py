"""The profiler's command on GPUs that do nothing: records, running out of memory, and who may take which GPU."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from varient.profile_records import ProfileRecord
from varient.records import read_record

SMOKE = ROOT / "workflow/config/smoke.yaml"
pytestmark = pytest.mark.slow


@pytest.fixture
def profile(null_machine, tmp_path):
    """Runs `varient profile` of VAR in float16 with random weights; what it printed, and its record or None."""
    def run(*arguments, **environment):
        output = tmp_path / "profile.json"
        done = null_machine.start("-m", "varient", "profile", "--config", SMOKE, "--system", "var-d6", "--precision",
                                  "fp16", "--random-weights", "--output", output, *arguments, **environment)
        return done, read_record(output, ProfileRecord) if output.exists() else None

    return run


@pytest.fixture
def neighbour(null_machine):
    """Another process that computes on the first null GPU."""
    program = "import sys, torch; held = torch.empty(1, device='cuda'); print('there', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          env=null_machine.environment(gpus=2)) as process:
        assert process.stdout.readline() == "there\n"
        yield process
        process.stdin.close()


def test_a_profile_says_how_it_was_made(profile):
    done, record = profile()
    assert done.returncode == 0, done.stderr
    assert record.status == "ok" and record.provenance.device == "null GPU" and record.gpu_driver == "0.0.null"
    assert record.allocator == "expandable_segments:True" and record.attention and not record.unanswered
    assert record.weights == f"random, seed 0, drawn by torch {torch.__version__} on cuda"
    assert record.idle_w == pytest.approx(100, rel=0.01)
    launches = 1000 * record.energy_j_per_image * record.batch_size  # a millijoule each
    assert 10 * 6 * 20 < launches < 10 * 6 * 40  # scales, layers, and kernels of one
    assert len(record.latency_by_scale_s) == 10
    memory = record.memory
    assert 0 < memory.parameters_mib + memory.kv_cache_mib < memory.allocator_allocated_mib
    assert memory.allocator_allocated_mib <= memory.allocator_reserved_mib and memory.nvml_process_mib == 1024


def test_a_card_that_is_too_small_is_a_result(profile):
    done, record = profile("--memory-cap", "1MiB")
    assert done.returncode == 0, done.stderr
    assert record.status == "out_of_memory" and "out of memory" in record.reason


def test_a_gpu_with_a_neighbour_is_left_for_a_free_one_and_not_profiled(profile, neighbour):
    done, record = profile(gpus=1)
    assert done.returncode == 1 and record is None
    assert [line for line in done.stderr.splitlines() if f"pid {neighbour.pid}" in line and "busy" in line]
    done, record = profile(gpus=2)
    assert done.returncode == 0, done.stderr
    assert record.status == "ok" and "of 2 visible GPUs" in done.stderr
