import os
from types import SimpleNamespace

import pynvml
import pytest
import torch

from varient.profiling import nvml
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


@pytest.fixture
def driver(monkeypatch):
    """NVML with a GPU of UUID GPU-1 and its slice MIG-2, and any of its functions as a test wants them."""
    def found(uuid):
        if uuid not in ("GPU-1", "MIG-2"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuid

    taken = {"GPU-1": 900, "MIG-2": 100}
    answers = {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": found,
               "nvmlDeviceGetComputeRunningProcesses": lambda handle: [],
               "nvmlDeviceGetMemoryInfo": lambda handle, version: SimpleNamespace(used=taken[handle]),
               "nvmlSystemGetDriverVersion": lambda: "550.1"}

    def with_answers(**changed):
        for name, answer in (answers | changed).items():
            monkeypatch.setattr(pynvml, name, answer)

    with_answers()
    return with_answers


def _raises(code):
    def ask(*arguments, **named):
        raise pynvml.NVMLError(code)

    return ask


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION,
                                  pynvml.NVML_ERROR_UNKNOWN, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                                  pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH])
@pytest.mark.parametrize(("function", "what", "ask"), [
    ("nvmlDeviceGetComputeRunningProcesses", "processes", Gpu.process_bytes),
    ("nvmlDeviceGetComputeRunningProcesses", "processes", Gpu.processes),
    ("nvmlDeviceGetMemoryInfo", "memory", Gpu.device_bytes),
    ("nvmlSystemGetDriverVersion", "driver", Gpu.driver),
    ("nvmlDeviceGetTotalEnergyConsumption", "energy", Gpu.energy_mj),
])
def test_what_the_driver_does_not_answer_is_none_with_the_reason(driver, function, what, ask, code):
    driver(**{function: _raises(code)})
    gpu = Gpu("GPU-1")
    gpu.require_idle()
    assert ask(gpu) is None and gpu.unanswered == {what: str(pynvml.NVMLError(code))}
    gpu.require_undisturbed()


def test_bindings_without_the_second_version_of_memory_answer_the_rest(driver, monkeypatch):
    monkeypatch.delattr(pynvml, "nvmlMemory_v2")
    gpu = Gpu("GPU-1")
    assert gpu.device_bytes() is None and set(gpu.unanswered) == {"memory"} and gpu.driver() == "550.1"


def test_a_slice_is_asked_by_its_own_handle_under_torchs_names_for_it(driver):
    for name in ("MIG-2", "2"):
        assert (Gpu(name).uuid, Gpu(name).device_bytes()) == ("MIG-2", 100)
    assert (Gpu("1").uuid, Gpu("1").device_bytes()) == ("GPU-1", 900)
    with pytest.raises(NvmlError, match="GPU-3"):
        Gpu("3")


def test_this_process_under_a_pid_of_the_host_is_no_other_one(driver):
    """As in a container: nobody is there before it touches the GPU, afterwards somebody whose pid means nothing."""
    gpu = Gpu("GPU-1")
    driver(nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=4_000_001, usedGpuMemory=7)])
    gpu.require_idle()
    gpu.require_undisturbed()
    assert gpu.process_bytes() == 7


def test_who_was_there_before_is_refused_also_in_a_container(driver):
    driver(nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=4_000_001, usedGpuMemory=7)])
    with pytest.raises(GpuBusyError, match="4000001"):
        Gpu("GPU-1").require_idle()


def test_pids_of_all_namespaces_are_its_own(driver, monkeypatch, tmp_path):
    assert nvml._own_pids() >= {os.getpid()}
    monkeypatch.setattr(nvml, "_own_pids", lambda: {os.getpid(), 77})
    driver(nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=77, usedGpuMemory=7)])
    Gpu("GPU-1").require_idle()


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
    assert gpu(p2=7, p3=8).process_bytes() is None
    alone = gpu()
    assert alone.process_bytes() is None and "process memory" in alone.unanswered
    gpu(p2=7)
    assert alone.process_bytes() == 7  # has come since, so it is this one


@pytest.mark.gpu
def test_a_real_gpu_answers():
    real = Gpu(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    held = torch.zeros(2 ** 28, dtype=torch.uint8, device="cuda")
    assert real.device_bytes() > held.numel() and real.driver()
    assert real.process_bytes() is None or real.process_bytes() > held.numel()
