"""Devices of processes, on machines that only this file believes in; the locks are real."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
import torch
import yaml
from conftest import ROOT

from varient import devices, launch
from varient.config import ConfigError
from varient.devices import VisibleGpu, settle_device, take_gpus, visible_gpus, wanted_device
from varient.launch import launched_processes, training_gpus
from varient.systems.pipeline import default_device
from varient.training.hardware import Hardware

UUIDS = ("GPU-aaaa", "GPU-bbbb", "GPU-cccc")
CHILD = """
import os, sys
from pathlib import Path
from varient import devices, launch
from varient.config import ConfigError
devices.LOCKS, devices.POLL_S = Path(sys.argv.pop(1)), 0.05
devices._installed_gpus = lambda: {uuids}
{then}
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Three GPUs, nothing said in the environment."""
    for name in ("VARIENT_DEVICE", "VARIENT_LAUNCH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "LOCAL_RANK",
                 "VARIENT_GPUS_TAKEN"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards, whatever happens to it meanwhile
        monkeypatch.delenv(name)
    monkeypatch.setattr(devices, "_installed_gpus", lambda: list(UUIDS))
    monkeypatch.setattr(devices, "LOCKS", tmp_path / "locks")
    monkeypatch.setattr(devices, "_held", [])
    yield monkeypatch
    for lock in devices._held:
        os.close(lock)


@pytest.fixture
def start(machine):
    """Starts processes that share the locks: what they run -> process; the GPUs that they got are its first line."""
    started = []

    def starter(then: str, uuids=UUIDS, **environment: str) -> subprocess.Popen:
        program = CHILD.format(uuids=list(uuids), then=then)
        started.append(subprocess.Popen(
            [sys.executable, "-c", program, str(devices.LOCKS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)} | environment))
        return started[-1]

    yield starter
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()


@pytest.fixture
def driver(monkeypatch):
    """NVML with three GPUs: in one piece, in two slices of seven possible ones, and one that tells nothing."""
    def refuse(*_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)

    def slice_of(gpu, number):
        if number > 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return f"MIG-{gpu}{number}"

    def mode(gpu):
        if gpu == "GPU-0":  # of a kind that has no slices
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [gpu == "GPU-1"] * 2

    for name, answer in {
            "nvmlInit": lambda: None, "nvmlDeviceGetCount": lambda: 3,
            "nvmlDeviceGetHandleByIndex": lambda number: f"GPU-{number}" if number < 2 else refuse(),
            "nvmlDeviceGetUUID": str, "nvmlDeviceGetMigMode": mode, "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": slice_of}.items():
        monkeypatch.setattr(pynvml, name, answer)


@pytest.mark.usefixtures("driver")
def test_slices_stand_for_their_gpu_and_a_silent_gpu_goes_by_its_number():
    names = ["GPU-0", "MIG-GPU-10", "MIG-GPU-11", "2"]
    assert [gpu.uuid for gpu in devices.visible_gpus({})] == names
    assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-GPU-11"}) == [("MIG-GPU-11", "MIG-GPU-11")]


@pytest.mark.parametrize(("named", "expected"), [
    (None, [(uuid, uuid) for uuid in UUIDS]),
    ("2,0", [("2", "GPU-cccc"), ("0", "GPU-aaaa")]),
    ("GPU-bb", [("GPU-bb", "GPU-bbbb")]),
    ("MIG-1/2", [("MIG-1/2", "MIG-1/2")]),
    ("1,7,0", [("1", "GPU-bbbb")]),
    ("1,GPU-dddd,0", [("1", "GPU-bbbb")]),
    (" 2 , 0 ", [("2", "GPU-cccc"), ("0", "GPU-aaaa")]),
    ("0,", [("0", "GPU-aaaa")]),
    ("-1", []),
    ("-1,0,0", []),
    ("", []),
    ("NoDevFiles", []),
])
def test_visible_gpus_are_read_as_cuda_reads_them(machine, named, expected):
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    assert visible_gpus(environment) == [VisibleGpu(*gpu) for gpu in expected]


@pytest.mark.parametrize(("named", "said"), [
    ("0,0", "0"), ("1,0,1", "1"), ("0,GPU-aaaa", "GPU-aaaa"), ("GPU-bbbb,GPU-bb", "GPU-bb"), (" 2 ,2", "2"),
    ("00,0", "00"), ("MIG-1/2,MIG-1/2", "MIG-1/2"), ("0,1,0,NoDevFiles", "0"),
    ("GPU-", "GPU-cccc"), ("0,GPU-", "GPU-aaaa, GPU-bbbb"),
])
def test_a_gpu_named_twice_or_by_letters_of_several_is_refused(machine, named, said):
    """To wait for it would be to wait for ever: the process itself holds the lock."""
    machine.setenv("CUDA_VISIBLE_DEVICES", named)
    for start_of_work in (settle_device, lambda: take_gpus(2)):
        with pytest.raises(ValueError) as error:
            start_of_work()
        assert "CUDA_VISIBLE_DEVICES" in str(error.value) and said in str(error.value)
        assert "\n" not in str(error.value)
    assert not devices.LOCKS.exists()


def test_a_machine_without_a_driver_has_no_gpus(machine):
    machine.setattr(devices, "_installed_gpus", list)
    settle_device()
    assert visible_gpus() == [] and "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("environment", [
    {"VARIENT_DEVICE": "cpu"}, {"LOCAL_RANK": "1"}, {"VARIENT_GPUS_TAKEN": "1", "CUDA_VISIBLE_DEVICES": "2"}])
def test_a_process_that_was_placed_takes_nothing(machine, environment):
    for name, value in environment.items():
        machine.setenv(name, value)
    settle_device()
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == environment.get("CUDA_VISIBLE_DEVICES")
    assert not devices.LOCKS.exists()


def test_a_gpu_that_the_environment_names_has_to_be_free_too(start):
    first = start("devices.settle_device()", CUDA_VISIBLE_DEVICES="2")
    assert first.stdout.readline() == "2\n"
    second = start("devices.settle_device()", CUDA_VISIBLE_DEVICES="GPU-cccc")
    assert _waiting(second) == (1, 1, {"GPU-cccc": first.pid})
    first.kill()
    assert second.stdout.readline() == "GPU-cccc\n"


def test_what_a_process_with_a_gpu_starts_shares_it(machine):
    settle_device()
    child = CHILD.format(uuids=["GPU-aaaa"], then="devices.settle_device()")  # it would wait for ever
    result = subprocess.run([sys.executable, "-c", child, str(devices.LOCKS)], input="", capture_output=True, text=True,
                            cwd=ROOT, timeout=60)
    assert (result.stdout, result.stderr) == ("GPU-aaaa\n", "")


def test_a_gpu_that_torch_cannot_use_is_left_to_others(machine):
    machine.setattr(torch.cuda, "is_available", lambda: False)
    settle_device()
    assert devices._locked("GPU-aaaa") is None
    assert default_device() == torch.device("cpu")
    devices._held.append(devices._locked("GPU-aaaa"))
    assert None not in devices._held


@pytest.mark.parametrize("said", ["", "auto"])
def test_a_training_takes_a_gpu_only_where_one_is_asked_for(machine, said):
    machine.setenv("VARIENT_DEVICE", said)
    settle_device("cpu")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert Hardware.from_environment().device == "cpu" and training_gpus() == 0
    machine.setenv("VARIENT_DEVICE", "cuda")
    settle_device("cpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa"


def test_a_second_call_keeps_what_the_first_took(machine):
    settle_device()
    settle_device()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa" and len(devices._held) == 1


@pytest.fixture
def computing(machine):
    """Other users' processes: UUID of a GPU -> pids, as NVML tells them."""
    found = {}
    machine.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
    machine.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses",
                    lambda uuid: [SimpleNamespace(pid=pid) for pid in found.get(uuid, ())])
    return found


@pytest.mark.parametrize(("busy", "count", "got"), [
    ({"GPU-aaaa": [7]}, 1, "GPU-bbbb"), ({"GPU-aaaa": [7], "GPU-bbbb": [8, 9]}, 1, "GPU-cccc"),
    ({"GPU-bbbb": [7]}, 2, "GPU-aaaa,GPU-cccc")])
def test_a_gpu_that_others_compute_on_is_not_taken_while_one_is_free(machine, computing, capsys, busy, count, got):
    computing.update(busy)
    take_gpus(count)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == got and len(capsys.readouterr().err.splitlines()) == 1


def test_a_gpu_that_others_compute_on_is_taken_last_and_they_are_named(machine, computing, capsys):
    computing.update({"GPU-aaaa": [7], "GPU-bbbb": [8, 9], "GPU-cccc": []})
    take_gpus(2)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-cccc,GPU-aaaa"
    (told,) = capsys.readouterr().err.splitlines()[1:]
    assert "GPU-aaaa" in told and "pid 7" in told


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_NO_PERMISSION])
def test_a_driver_that_does_not_tell_who_computes_is_no_hindrance(machine, computing, code):
    def refuse(handle):
        raise pynvml.NVMLError(code)

    machine.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", refuse)
    take_gpus(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-aaaa"


def test_numbers_of_gpus_count_for_cuda_as_they_were_read(machine):
    machine.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    machine.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    settle_device()
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]) == ("2", "PCI_BUS_ID")


def test_more_gpus_than_there_are_is_an_error(machine):
    with pytest.raises(ValueError, match="4 GPUs are asked for, 3 visible here"):
        take_gpus(4)


def test_processes_take_different_gpus_and_wait_for_a_free_one(start):
    first, second = (start("devices.settle_device()", UUIDS[:2]) for _ in range(2))
    got = [process.stdout.readline().strip() for process in (first, second)]
    assert sorted(got) == list(UUIDS[:2])
    third = start("devices.settle_device()", UUIDS[:2])
    assert _waiting(third) == (1, 2, {got[0]: first.pid, got[1]: second.pid})
    first.kill()  # what a killed process held is free again
    assert third.stdout.readline().strip() == got[0]


def test_who_wants_several_gpus_is_not_overtaken(start):
    first = start("devices.settle_device()", UUIDS[:2])
    taken = first.stdout.readline().strip()
    both = start("devices.take_gpus(2)", UUIDS[:2])
    assert _waiting(both) == (2, 2, {taken: first.pid})
    late = start("devices.settle_device()", UUIDS[:2])
    assert f"waiting behind process {both.pid}," in late.stderr.readline()
    first.kill()
    assert sorted(both.stdout.readline().strip().split(",")) == list(UUIDS[:2])
    assert _waiting(late) == (1, 2, dict.fromkeys(UUIDS[:2], both.pid))


def _waiting(process: subprocess.Popen) -> tuple[int, int, dict[str, int]]:
    """What the next line of a process that waits says: GPUs it wants, GPUs it sees, and who holds which."""
    line = process.stderr.readline()
    wanted, visible = re.search(r"waiting for (\d+) free of (\d+) visible", line).groups()
    return int(wanted), int(visible), {gpu: int(pid) for gpu, pid in re.findall(r"(GPU-\w+) by process (\d+)", line)}


def _link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize("plant", [
    _link,
    lambda folder: folder.symlink_to(folder.parent / "nowhere"),
    lambda folder: folder.touch(mode=0o700),
    os.mkfifo,
    lambda folder: (folder.mkdir(), folder.chmod(0o777)),
    lambda folder: (folder.mkdir(), folder.chmod(0o1770)),
    lambda folder: (folder.mkdir(), folder.chmod(0o755)),
], ids=["link", "broken link", "file", "pipe", "open to all", "open to a group", "open to see"])
def test_a_folder_of_locks_that_is_not_ours_alone_is_refused(machine, plant):
    plant(devices.LOCKS)
    with pytest.raises(ValueError, match=f"^{re.escape(str(devices.LOCKS))} .*mode 700.*$"):
        settle_device()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not devices.LOCKS.is_dir() or not any(devices.LOCKS.iterdir())


def test_a_folder_of_locks_of_another_user_is_refused(machine):
    devices.LOCKS.mkdir(mode=0o700)
    machine.setattr(os, "getuid", lambda: devices.LOCKS.stat().st_uid + 1)
    with pytest.raises(ValueError, match=f"^{re.escape(str(devices.LOCKS))} "):
        settle_device()


@pytest.mark.parametrize("name", ["queue", "GPU-aaaa"])
def test_a_lock_is_not_followed_to_a_file_elsewhere(machine, tmp_path, name):
    (tmp_path / "precious").write_text("text")
    devices.LOCKS.mkdir(mode=0o700)
    (devices.LOCKS / name).symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=f"^{re.escape(str(devices.LOCKS / name))}"):
        settle_device()
    assert (tmp_path / "precious").read_text() == "text"


def test_a_launcher_keeps_its_gpus_when_it_takes_the_place_of_the_process(start, tmp_path):
    script = tmp_path / "launcher.py"
    script.write_text("import os, sys\nprint(os.environ['CUDA_VISIBLE_DEVICES'], *sys.argv[1:], flush=True)\n"
                      "sys.stdin.readline()\n")
    launched = start("sys.argv[1:] = ['train', 'base']; launch.main()", VARIENT_DEVICE="cuda",
                     VARIENT_LAUNCH=f"{sys.executable} {script} --nproc-per-node 2")
    assert launched.stdout.readline() == "GPU-aaaa,GPU-bbbb --nproc-per-node 2 -m varient train base\n"
    assert devices._locked("GPU-aaaa") is None and devices._locked("GPU-bbbb") is None
    take_gpus(1)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-cccc"


@pytest.mark.parametrize(("launcher", "processes"), [
    ("", 1), ("torchrun --standalone --nproc-per-node 8", 8), ("torchrun --nproc_per_node=4 --standalone", 4),
    ("accelerate launch --multi_gpu --num_processes 2", 2)])
def test_a_launcher_says_how_many_gpus_a_training_needs(machine, launcher, processes):
    machine.setenv("VARIENT_LAUNCH", launcher)
    assert (launched_processes(), training_gpus()) == (processes, 0)
    machine.setenv("VARIENT_DEVICE", "cuda")
    assert training_gpus() == processes


@pytest.mark.parametrize("launcher", ["torchrun --standalone", "torchrun --nproc-per-node gpu", "torchrun --nproc-per"])
def test_a_launcher_that_does_not_say_how_many_is_refused(machine, launcher):
    machine.setenv("VARIENT_LAUNCH", launcher)
    with pytest.raises(ValueError, match="must give the number of processes"):
        launched_processes()


@pytest.mark.parametrize(("launcher", "said"), [
    ("no-such-launcher --nproc-per-node 2", "no-such-launcher"), ("/nowhere/run --nproc-per-node 2", "/nowhere/run"),
    ("/ --nproc-per-node 2", "'/'"), ("/etc/passwd --nproc-per-node 2", "/etc/passwd"),
    ('torchrun --nproc-per-node 2 "', "No closing quotation")])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_launcher_that_cannot_be_started_is_named(launcher, said, device):
    environment = os.environ | {"VARIENT_LAUNCH": launcher, "VARIENT_DEVICE": device}
    result = subprocess.run([sys.executable, "-m", "varient.launch", "train", "base"], cwd=ROOT, env=environment,
                            capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("varient: VARIENT_LAUNCH") and said in result.stderr


def test_a_launcher_that_is_no_program_of_this_machine_is_named(tmp_path):
    (tmp_path / "launcher").write_bytes(b"\x7fELF")
    (tmp_path / "launcher").chmod(0o755)
    environment = os.environ | {"VARIENT_LAUNCH": "launcher --nproc-per-node 2", "VARIENT_DEVICE": "cpu",
                                "PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-m", "varient.launch"], cwd=ROOT, env=environment, capture_output=True,
                            text=True)
    assert result.returncode == 1 and result.stderr.count("\n") == 1
    assert "VARIENT_LAUNCH" in result.stderr and str(tmp_path / "launcher") in result.stderr


def test_a_launcher_beside_this_python_is_found_whatever_path_says(machine):
    machine.setenv("VARIENT_LAUNCH", "torchrun --nproc-per-node 2")
    machine.setenv("PATH", "/nowhere")
    assert launch.launcher() == [
        str(Path(sys.executable).parent / "torchrun"), "--nproc-per-node", "2"]


def test_without_a_launcher_a_training_is_plain_python(machine):
    assert launch.command(["train", "base"]) == [sys.executable, "-m", "varient", "train", "base"]


def test_sixteen_bits_on_a_cpu_have_to_be_asked_for(machine):
    machine.setattr(torch.cuda, "is_available", lambda: False)
    assert default_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="fp16 needs a GPU, and torch sees none here .*VARIENT_DEVICE=cpu"):
        default_device("fp16")
    machine.setenv("VARIENT_DEVICE", "cpu")
    assert default_device("fp16") == torch.device("cpu")
    machine.setenv("VARIENT_DEVICE", "cuda")
    with pytest.raises(ValueError, match="VARIENT_DEVICE = cuda, but torch sees no GPU here"):
        default_device()


def test_a_gpu_is_used_unless_the_cpu_is_asked_for(machine):
    machine.setattr(torch.cuda, "is_available", lambda: True)
    machine.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert default_device("fp16") == default_device() == torch.device("cuda", 0)
    assert not torch.backends.cudnn.allow_tf32  # tokens would be others than on a CPU
    with devices.wanting("cpu"):
        assert default_device() == torch.device("cpu")
    assert "VARIENT_DEVICE" not in os.environ


def test_a_word_that_means_nothing_is_refused(machine):
    machine.setenv("VARIENT_DEVICE", "tpu")
    with pytest.raises(ConfigError, match="VARIENT_DEVICE: .*'auto', 'cpu' or 'cuda' .*'tpu'"):
        wanted_device()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_command_refuses_before_it_reads_weights(tmp_path):
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    settings["sampling"]["precision"] = "fp16"
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(settings))
    environment = {key: value for key, value in os.environ.items() if key != "VARIENT_DEVICE"}
    result = subprocess.run(
        [sys.executable, "-m", "varient", "generate", "--config", str(config), "--system", "var-d6", "--shard", "0",
         "--run-dir", str(tmp_path / "nothing"), "-o", str(tmp_path / "shard.npz")],
        capture_output=True, text=True, cwd=Path(ROOT), env=environment)
    assert result.returncode == 1 and "fp16 needs a GPU, and torch sees none here" in result.stderr
