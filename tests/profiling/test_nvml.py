import os
from types import SimpleNamespace

import pynvml
import pytest
import torch

from varient.profiling.nvml import Gpu, GpuBusyError, NvmlError


def _has_nvml():
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


@pytest.mark.skipif(_has_nvml(), reason="needs a machine without an NVIDIA driver")
def test_a_machine_without_nvml_is_told_what_is_missing():
    with pytest.raises(NvmlError, match=r"NVML cannot be used for GPU-1.*Not Found.*libnvidia-ml"):
        Gpu("GPU-1")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU whose driver tells what a test lets it tell."""
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: None)

    def lists(**processes):
        told = [SimpleNamespace(pid=int(pid[1:]), usedGpuMemory=used) for pid, used in processes.items()]
        monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: told)
        return Gpu("GPU-1")

    return lists


OWN = f"p{os.getpid()}"


def test_other_processes_are_named(gpu):
    gpu().require_idle()
    gpu(**{OWN: 5}).require_idle()
    with pytest.raises(GpuBusyError, match=r"GPU-1 is busy with other processes \(pid 2, 31\)"):
        gpu(**{OWN: 5, "p31": 7, "p2": 7}).require_idle()


def test_a_process_that_comes_later_voids_the_measurement(gpu):
    gpu(p7=1).require_undisturbed()  # in a container this process may have another pid
    with pytest.raises(GpuBusyError, match=r"second process.*pids 7, 8"):
        gpu(p7=1, p8=1).require_undisturbed()


def test_memory_of_this_process(gpu):
    assert gpu(**{OWN: 5, "p2": 7}).process_bytes() == 5
    assert gpu(p2=7).process_bytes() == 7
    assert gpu(p2=None).process_bytes() is None
    assert gpu().process_bytes() is None
    assert gpu(p2=7, p3=8).process_bytes() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU with its driver (any)")
def test_a_real_gpu_answers():
    real = Gpu(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    held = torch.zeros(2 ** 28, dtype=torch.uint8, device="cuda")
    assert real.device_bytes() > held.numel() and real.driver()
    assert real.process_bytes() is None or real.process_bytes() > held.numel()
