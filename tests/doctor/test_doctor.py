"""Faults planted into an experiment with small files in the released formats: each is named, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest
import torch
from conftest import ROOT, VAR_PARAMETERS
from PIL import Image
from typer.testing import CliRunner

from varient import devices
from varient.cli import app
from varient.config import parse_config
from varient.cost.sizes import GIB, MIB
from varient.doctor import blocking, examine
from varient.doctor.outlook import Outlook
from varient.experiment import keep_config, load_experiment
from varient.models import official
from varient.models.build import build_tokenizer, build_transformer
from varient.shipped import shipped
from varient.systems.var import KEY_CHANGE, KINDS_OF_HEADS

CLASSES = 3
RELEASED = shipped("config") / "imagenet256.yaml"


def _settings(folder):
    return {
        "name": "small", "data": {"source": "imagenet", "image_size": 8, "num_classes": CLASSES,
                                  "root": str(folder / "imagenet")},
        "patch_nums": [1, 2, 4],
        "tokenizer": {"weights": str(folder / "vae.pth"), "model": {
            "vocab_size": 32, "z_channels": 8, "ch": 8, "ch_mult": [1, 2], "num_res_blocks": 1, "norm_groups": 4}},
        "transformer": {"depth": 4, "embed_dim": 16, "num_heads": 2}, "base": {"weights": str(folder / "var.pth")},
        "supernet": {"depths": [2], "bridge": 1, "phases": {2: [1, 1, 1]},
                     "training": {"batch_size": 2, "learning_rate": 1e-4}},
        "sampling": {"num_images": 6000, "shards": 1, "batch_size": 8, "cfg": 1.5, "top_k": 0, "top_p": 0.96},
        "evaluation": {"protocol": "adm", "inception_weights": str(folder / "inception.pth"),
                       "reference": str(folder / "reference.npz")},
    }


def _write_reference(path, side=8, count=10_000):
    statistics = {f"{name}{part}": np.zeros(shape) for part, size in (("", 2048), ("_s", 2023))
                  for name, shape in (("mu", size), ("sigma", (size, size)))}
    np.savez_compressed(path, arr_0=np.zeros((count, side, side, 3), np.uint8), **statistics)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a sound experiment; its Inception is none, which every test sees."""
    folder = tmp_path_factory.mktemp("files")
    config = parse_config(_settings(folder), "test")
    torch.save(build_tokenizer(config).state_dict(), folder / "vae.pth")
    torch.save(build_transformer(config).state_dict(), folder / "var.pth")
    torch.save({"weight": torch.zeros(1)}, folder / "inception.pth")
    _write_reference(folder / "reference.npz")
    for number in range(CLASSES):
        (folder / f"imagenet/train/n{number}").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / f"imagenet/train/n{number}/0.JPEG")
    return folder


@pytest.fixture
def folder(files, tmp_path):
    return shutil.copytree(files, tmp_path / "files")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """As on a machine without GPUs, on any machine."""
    for name in ("VARIENT_DEVICE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "_installed_gpus", list)


def _problems(settings, run_dir):
    found = examine(parse_config(settings, "test"), run_dir).problems
    return {finding.subject: finding.text for finding in found if finding.subject != "evaluation.inception_weights"}


def test_nothing_is_wrong_with_what_is_sound(folder, tmp_path):
    assert _problems(_settings(folder), tmp_path / "run") == {}


def _another_hash(folder, settings, patch):
    patch.setitem(official.PUBLISHED_SHA256, "vae.pth", "0" * 64)
    return "tokenizer.weights", "SHA-256"


def _another_inception(folder, settings, patch):
    return "evaluation.inception_weights", "evaluation.weights_sha256"


def _another_layout(folder, settings, patch):
    state = torch.load(folder / "var.pth", weights_only=True)
    torch.save({f"encoder.{name}": value for name, value in state.items()}, folder / "var.pth")
    return "base.weights", "var.pth"


def _another_shape(folder, settings, patch):
    settings["transformer"]["depth"] = 6
    return "base.weights", "blocks.4"


def _a_missing_file(folder, settings, patch):
    (folder / "var.pth").rename(folder / "elsewhere")
    return "base.weights", "missing"


def _a_missing_class(folder, settings, patch):
    shutil.rmtree(folder / "imagenet/train/n1")
    return "data.root/train", "data.num_classes = 3"


def _an_empty_class(folder, settings, patch):
    (folder / "imagenet/train/n1/0.JPEG").unlink()
    return "data.root/train", "n1"


def _no_validation_images(folder, settings, patch):
    settings["supernet"]["recipes"] = {"p10": {"ratio": 0.1, "validate_every": 1}}
    return "data.root/val", "imagenet/val"


def _a_full_disk(folder, settings, patch):
    usage = namedtuple("usage", "total used free")(2 * GIB, 2 * GIB - 1000, 1000)
    patch.setattr(shutil, "disk_usage", lambda path: usage)
    return "disk", "too small"


def _a_reference_of_another_side(folder, settings, patch):
    _write_reference(folder / "reference.npz", side=16)
    return "evaluation.reference", "side 16"


def _a_reference_of_other_images(folder, settings, patch):
    _write_reference(folder / "reference.npz", count=9999)
    return "evaluation.reference", "9999 images"


def _half_precision(folder, settings, patch):
    settings["sampling"]["precision"] = "fp16"
    return "sampling.precision", "CPU"


def _no_nvml(folder, settings, patch):
    patch.setenv("VARIENT_DEVICE", "cuda")
    return "VARIENT_DEVICE", "NVML"


@pytest.mark.parametrize("plant", [
    _another_hash, _another_layout, _another_shape, _a_missing_file, _a_missing_class, _an_empty_class,
    _no_validation_images, _a_full_disk, _a_reference_of_another_side, _a_reference_of_other_images, _half_precision,
    _no_nvml])
def test_a_planted_fault_is_named_alone(folder, tmp_path, monkeypatch, plant):
    settings = _settings(folder)
    subject, words = plant(folder, settings, monkeypatch)
    found = _problems(settings, tmp_path / "run")
    assert list(found) == [subject] and words in found[subject]
    assert "\n" not in found[subject]


def test_another_inception_is_told_which_setting_would_allow_it(folder, tmp_path):
    (found,) = examine(parse_config(_settings(folder), "test"), tmp_path).problems
    assert found.subject == "evaluation.inception_weights" and "evaluation.weights_sha256" in found.text


@pytest.mark.parametrize(("protocol", "file"), [("fd-dinov2", "vit_large_patch14_dinov2"),
                                                ("cmmd", "open_clip_model.safetensors")])
def test_encoders_take_any_number_of_real_images_and_their_own_weights(folder, tmp_path, protocol, file):
    _write_reference(folder / "reference.npz", count=9000)
    settings = _settings(folder)
    settings["evaluation"]["protocol"] = protocol
    (found,) = examine(parse_config(settings, "test"), tmp_path).problems
    assert found.subject == "evaluation.inception_weights" and "1 unexpected: weight" in found.text
    assert file in found.text and "\n" not in found.text


@pytest.mark.parametrize(("key", "value", "words"), [
    ("name", "other", "another experiment, 'other'"), ("seed", 7, "other settings of seed"),
    ("patch_nums", [1, 4], "other settings of patch_nums")])
def test_a_run_folder_of_another_experiment_is_named(folder, tmp_path, key, value, words):
    settings = _settings(folder)
    keep_config(parse_config(settings | {key: value}, "test"), tmp_path)
    found = _problems(settings, tmp_path)
    assert list(found) == ["run folder"] and words in found["run folder"]


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """One GPU whose driver answers what a test lets it answer."""
    def found(uuid):
        if uuid != "GPU-1":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    built = int(torch.version.cuda.split(".")[0]) if torch.version.cuda else 13
    answers = {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByUUID": found,
               "nvmlDeviceGetComputeRunningProcesses": lambda handle: [],
               "nvmlDeviceGetMemoryInfo": lambda handle, version=None: SimpleNamespace(used=0, total=80 * GIB),
               "nvmlDeviceGetName": lambda handle: "NVIDIA H100 80GB HBM3",
               "nvmlSystemGetCudaDriverVersion_v2": lambda: 1000 * built,
               "nvmlSystemGetDriverVersion": lambda: "600.1"}
    monkeypatch.setattr(torch.version, "cuda", f"{built}.0")
    monkeypatch.setattr(devices, "_installed_gpus", lambda: ["GPU-1"])
    monkeypatch.setattr(devices, "LOCKS", tmp_path / "locks")
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)

    def with_answers(**changed):
        for name, answer in changed.items():
            monkeypatch.setattr(pynvml, name, answer)

    return with_answers


def test_a_gpu_is_fine_for_16_bits(folder, tmp_path, gpu):
    settings = _settings(folder)
    settings["sampling"]["precision"] = "fp16"
    assert _problems(settings, tmp_path / "run") == {}


@pytest.mark.parametrize(("answers", "subject", "words"), [
    ({"nvmlSystemGetCudaDriverVersion_v2": lambda: 11080}, "driver", "11.8"),
    ({"nvmlDeviceGetComputeRunningProcesses": lambda handle: [SimpleNamespace(pid=7, usedGpuMemory=1)]}, "GPU-1",
     "pid 7"),
])
def test_a_fault_of_the_gpu_is_named(folder, tmp_path, gpu, answers, subject, words):
    gpu(**answers)
    found = _problems(_settings(folder), tmp_path / "run")
    assert list(found) == [subject] and words in found[subject]


def test_a_gpu_that_nvml_does_not_know_is_named(folder, tmp_path, gpu, monkeypatch):
    monkeypatch.setattr(devices, "_installed_gpus", lambda: ["GPU-2"])
    found = _problems(_settings(folder), tmp_path / "run")
    assert "NVML" in found["GPU-2"]


def test_a_gpu_that_a_process_of_ours_has_locked_is_named(folder, tmp_path, gpu):
    (tmp_path / "locks").mkdir(mode=0o700)
    holder = subprocess.Popen([sys.executable, "-c", (
        "import sys, time\nfrom pathlib import Path\nfrom varient import devices\n"
        f"devices.LOCKS = Path({str(tmp_path / 'locks')!r})\n"
        "devices._installed_gpus = lambda: ['GPU-1']\ndevices.take_gpus(1)\nprint('held', flush=True)\n"
        "time.sleep(60)\n")],
        stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert holder.stdout.readline() == "held\n"
        found = _problems(_settings(folder), tmp_path / "run")
        assert list(found) == ["GPU-1"] and f"locked by process {holder.pid}" in found["GPU-1"]
    finally:
        holder.kill()
        holder.wait()
    assert _problems(_settings(folder), tmp_path / "run") == {}  # and asking left it unlocked


def _paper(tmp_path):
    """The paper's experiment without a file of it, on the GPU that there is."""
    return examine(load_experiment(RELEASED), tmp_path / "run")


def test_a_gpu_that_is_too_small_is_named_with_what_does_not_fit(tmp_path, gpu):
    gpu(nvmlDeviceGetMemoryInfo=lambda handle, version=None: SimpleNamespace(used=0, total=4096 * MIB))
    texts = [finding.text for finding in _paper(tmp_path).problems if finding.subject == "memory"]
    assert any("var-d30 in batches of 64" in text and "4,096" in text for text in texts)
    assert any("training supernet-d16" in text and "VARIENT_RECOMPUTE=1" in text for text in texts)


def test_hours_and_bytes_of_the_paper_are_those_of_the_cost_model(tmp_path, gpu, monkeypatch):
    monkeypatch.setenv("VARIENT_RECOMPUTE", "1")
    monkeypatch.setenv("VARIENT_MICRO_BATCH", "64")
    of = {target.name: target for target in _paper(tmp_path).targets}
    table1, everything = of["results/imagenet256/table1.csv"], of["all"]
    assert (len(table1.trainings), len(table1.rows), table1.training_hours) == (0, 4, 0.0)
    assert len(everything.trainings) == 10 and everything.training_hours > 1000  # on one GPU
    eight = Outlook(load_experiment(RELEASED), tmp_path, "h100", 8).targets[-1]
    assert eight.training_hours == pytest.approx(everything.training_hours / 8)
    assert everything.sample_bytes == len(everything.rows) * 50_000 * (3 * 256 ** 2 + 4 * (2048 + 1008 + 2023))
    # The base, and three of each training; files of other systems are not there to be counted.
    assert everything.weight_bytes == (1 + 3 * 10) * VAR_PARAMETERS[30] * 4


def test_the_documented_table_is_the_doctors(tmp_path, monkeypatch):
    monkeypatch.setenv("VARIENT_RECOMPUTE", "1")
    monkeypatch.setenv("VARIENT_MICRO_BATCH", "64")
    config = load_experiment(RELEASED.with_name("imagenet256_var.yaml"))
    trained, sampled = (Outlook(config, tmp_path, gpu, count).targets for gpu, count in (("h100", 8), ("l20", 1)))
    rows = [f"| `{one.name}` | {len(one.trainings)} | {one.training_hours:.0f} h | {len(one.rows)} "
            f"| {other.sampling_hours:.1f} h | {one.sample_bytes / 1e9:.0f} GB | {one.weight_bytes / 1e9:.0f} GB |"
            for one, other in zip(trained, sampled, strict=True)]
    assert "\n".join(rows) in (ROOT / "docs/running-at-scale.md").read_text()


def test_rivals_are_a_target_where_the_experiment_has_some(tmp_path):
    config = load_experiment(RELEASED.with_name("digits.yaml"))
    of = {target.name: target for target in Outlook(config, tmp_path, None).targets}
    assert set(config.rivals) < set(of["results/rivals.csv"].rows) <= set(of["all"].rows)
    assert set(of["results/rivals.csv"].trainings) <= {KEY_CHANGE, KINDS_OF_HEADS, *of["results/table2.csv"].trainings}
    names = [target.name for target in Outlook(load_experiment(RELEASED), tmp_path, None).targets]
    assert not any("rivals" in name for name in names)


def test_what_is_there_is_not_counted_again(tmp_path, gpu):
    config, run_dir = load_experiment(RELEASED), tmp_path / "run"
    before = Outlook(config, run_dir, "h100").targets[-1]
    (run_dir / "records").mkdir(parents=True)
    (run_dir / "supernet-d16.safetensors").touch()
    (run_dir / "records/score-var-d30.json").touch()
    after = Outlook(config, run_dir, "h100").targets[-1]
    assert set(before.trainings) - set(after.trainings) == {"supernet-d16"}
    assert set(before.rows) - set(after.rows) == {"var-d30"}


def test_the_real_experiment_without_files_prints_a_complete_shopping_list(tmp_path):
    config = load_experiment(RELEASED)
    missing = {finding.text.split()[0]: finding.text for finding in examine(config, tmp_path / "run").problems
               if "is missing" in finding.text}
    assert set(missing) == {str(path) for path in (
        config.data.root, config.tokenizer.weights, config.base.weights, config.evaluation.inception_weights,
        config.evaluation.reference, *(f"weights/{name}" for name in (
            "var_d16.pth", "drafter_6.pth", "refiner_6.pth", "DiT-XL-2-256x256.pt", "c2i_XXL_384.pt", "vq_ds16_c2i.pt",
            "sd-vae-ft-ema/config.json", "sd-vae-ft-ema/diffusion_pytorch_model.safetensors")))}
    assert all("get it from" in text for text in missing.values())


def test_the_command_says_so_in_json_and_by_its_exit_code(folder, tmp_path):
    (tmp_path / "small.json").write_text(json.dumps(_settings(folder)))
    run = ["--run-dir", str(tmp_path / "run")]
    result = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "small.json"), "--json", *run])
    told = json.loads(result.stdout)
    assert result.exit_code == 1 and not told["ready"] and told["experiment"] == "small"
    assert [it["subject"] for it in told["findings"] if it["level"] == "problem"] == ["evaluation.inception_weights"]
    ready = CliRunner().invoke(app, ["doctor", "--config", "digits", *run])
    assert ready.exit_code == 0 and ready.stdout.endswith("ready\n")


def test_the_workflow_stops_before_the_first_job_for_files_that_it_reads_only(folder):
    config = parse_config(_settings(folder), "test")
    assert blocking(config, {str(folder / "var.pth")}) == []
    (line,) = blocking(config, {str(folder / "inception.pth")})
    assert line.startswith("evaluation.inception_weights: ")


def test_large_files_are_looked_at_by_names_and_shapes(folder, tmp_path):
    """A file whose tensors' bytes are damaged is still of the right layout; its import compares checksums."""
    content = (folder / "var.pth").read_bytes()
    state = torch.load(folder / "var.pth", weights_only=True)
    needle = state["head.weight"].numpy().tobytes()
    at = content.index(needle)
    (folder / "var.pth").write_bytes(content[:at] + b"\x01" + content[at + 1:])
    assert _problems(_settings(folder), tmp_path / "run") == {}
    with pytest.raises(ValueError, match="damaged"):
        official.read_state_dict(folder / "var.pth")
