"""Trainings on a folder of ImageNet's layout, small but real, in one process and in two."""

import json
import os
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from folder_experiment import (
    BATCH,
    FLIP,
    PAPER,
    experiment,
    images_read,
    same_weights,
    trained_supernet,
    weights_of,
    write_folder,
    write_networks,
)
from PIL import Image

from varient.config import parse_config
from varient.models.transformer import VAR
from varient.training.base import train_base
from varient.training.curves import read_curves
from varient.training.data import batch_indices
from varient.training.distributed import is_main_process
from varient.training.image_folder import ImageFolder, ImageFolderError
from varient.training.recipes import Supernet
from varient.training.supernet import train_supernet
from varient.training.tokens import TokenBatches, cache_tokens


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "data")


@pytest.fixture
def tokenizer(root):
    return write_networks(root)[0]


def test_base_and_supernet_learn_from_a_folder_with_the_papers_augmentation(root, tokenizer, tmp_path):
    config, base = experiment(root, PAPER), tmp_path / "run/base.safetensors"
    train_base(config, tokenizer, base)
    losses = json.loads((tmp_path / "run/training-base/losses.json").read_text())
    assert len(losses) == 9 and losses[-1] < losses[0]
    weights, description = weights_of(config, base)
    assert description["settings"].endswith(TokenBatches(config, tokenizer, BATCH).digests()[0])
    learnt = trained_supernet(config, (tokenizer, base), tmp_path / "run/supernet-d2.safetensors")
    assert not same_weights(learnt, weights)


@pytest.mark.parametrize("augmentation", [None, FLIP, FLIP | {"flip": 0}])
def test_a_cache_gives_the_weights_of_encoding_on_the_fly(root, tokenizer, tmp_path, augmentation):
    config, cache = experiment(root, augmentation).model_copy(update={"seed": 3}), tmp_path / "tokens"
    cache_tokens(config, tokenizer, cache)
    for folder, options in {"live": {}, "cached": {"cache": cache}}.items():
        train_base(config, tokenizer, tmp_path / folder / "base.safetensors", **options)
    bases = [tmp_path / folder / "base.safetensors" for folder in ("live", "cached")]
    live, cached = (weights_of(config, base)[0] for base in bases)
    assert same_weights(live, cached)
    live, cached = (
        trained_supernet(config, (tokenizer, bases[0]), tmp_path / name / "supernet.safetensors", cache=folder)
        for name, folder in (("live", None), ("cached", cache)))
    assert same_weights(live, cached)


@pytest.mark.parametrize("recipe", [None, "auto"])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(root, tmp_path, monkeypatch, recipe):
    config, files = experiment(root, PAPER), write_networks(root)
    trained_supernet(config, files, tmp_path / "whole/s.safetensors", recipe)
    monkeypatch.setenv("VARIENT_SAVE_EVERY", "4")
    batch = TokenBatches.batch

    def stop(self, step, part):
        if step == 10:
            raise KeyboardInterrupt
        return batch(self, step, part)

    with monkeypatch.context() as patch:
        patch.setattr(TokenBatches, "batch", stop)
        with pytest.raises(KeyboardInterrupt):
            trained_supernet(config, files, tmp_path / "stopped/s.safetensors", recipe)
    config = experiment(root.rename(tmp_path / "elsewhere"), PAPER)  # the same images, mounted at another place
    monkeypatch.setattr(torch.Tensor, "backward", counted := _Counter(torch.Tensor.backward))
    trained_supernet(config, files, tmp_path / "stopped/s.safetensors", recipe)
    assert counted.calls < 10  # of 15 steps: it did go on
    assert (tmp_path / "whole/s.safetensors").read_bytes() == (tmp_path / "stopped/s.safetensors").read_bytes()


class _Counter:
    def __init__(self, function):
        self.function, self.calls = function, 0

    def __get__(self, instance, owner):
        return partial(self, instance)

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs)


def test_states_of_other_images_are_not_resumed(root, tokenizer):
    config = experiment(root, FLIP)
    before = TokenBatches(config, tokenizer, BATCH).digests(held_out=True)
    Image.new("RGB", (9, 9)).save(root / "val/n01/more.png")
    after = TokenBatches(config, tokenizer, BATCH).digests(held_out=True)
    assert before[0] == after[0] and before[1] != after[1]
    Image.new("RGB", (9, 9)).save(root / "train/n01/more.png")
    assert TokenBatches(config, tokenizer, BATCH).digests() not in ([], before[:1])
    assert TokenBatches(config, tokenizer, BATCH, seed=1).digests() != TokenBatches(config, tokenizer, BATCH).digests()


def test_each_image_of_a_step_is_read_once_in_a_training_of_micro_batches(root, tmp_path, monkeypatch):
    """Also where the curves' probe asks for the first part before the training does."""
    config, files = experiment(root, FLIP), write_networks(root)
    whole = trained_supernet(config, files, tmp_path / "whole/s.safetensors")
    monkeypatch.setenv("VARIENT_MICRO_BATCH", "2")
    read = images_read(monkeypatch)
    parts = trained_supernet(config, files, tmp_path / "parts/s.safetensors")
    expected = [batch_indices(step, num_items=27, batch_size=BATCH, seed=0).tolist() for step in range(15)]
    assert read == list(chain(*expected))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=0.05 * config.supernet.training.learning_rate, rtol=0)


def test_the_trainer_conditions_on_the_mixed_classes(root, tmp_path, monkeypatch):
    """Also in the probe of the curves and for the teacher of a distillation; without mixing it gives labels alone."""
    seen, forward = [], VAR.forward

    def noted(self, label_B, x_BLv, plan=None, class_BC=None):
        seen.append((class_BC is not None, torch.is_grad_enabled()))
        return forward(self, label_B, x_BLv, plan, class_BC)

    monkeypatch.setattr(VAR, "forward", noted)
    config = experiment(root, PAPER)
    settings = config.model_dump(mode="json")
    settings["supernet"]["recipes"]["distil"] = {"distillation": 0.5, "ratio": 0.9}
    trained_supernet(parse_config(settings, "test"), write_networks(root), tmp_path / "mixed/s.safetensors", "distil")
    assert set(seen) == {(True, True), (True, False)} and len(seen) > 15 + 5
    seen.clear()
    trained_supernet(experiment(root, FLIP), write_networks(root), tmp_path / "plain/s.safetensors")
    assert set(seen) == {(False, True)}


def in_one_of_two_processes(out: Path) -> None:
    """What each of the two processes does."""
    config, files = experiment(out / "data", PAPER), (out / "run/tokenizer.safetensors", out / "run/base.safetensors")
    read, load = [], ImageFolder.load

    def noted(self, index):
        read.append((len(self), index))
        return load(self, index)

    ImageFolder.load = noted
    train_supernet(config, Supernet(2, "auto"), *files, out / "two/s.safetensors")
    (out / f"read-{os.environ['RANK']}.json").write_text(json.dumps([read, is_main_process()]))
    os.environ["VARIENT_STRATEGY"] = "fsdp"
    train_supernet(config, Supernet(2, "auto"), *files, out / "sharded/s.safetensors")


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_share_the_reading(root, tmp_path):
    config, files = experiment(root, PAPER), write_networks(root)
    one = trained_supernet(config, files, tmp_path / "one/s.safetensors", "auto")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__,
         str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", "OMP_NUM_THREADS": "1",
             "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-4000:]
    tolerance = 0.05 * config.supernet.training.learning_rate
    curves = read_curves(tmp_path / "one/training-supernet-d2-auto/curves.npz")
    for folder in ("two", "sharded"):
        weights = weights_of(config, tmp_path / folder / "s.safetensors")[0]
        for name, tensor in one.items():
            torch.testing.assert_close(weights[name], tensor, atol=tolerance, rtol=0)
        theirs = read_curves(tmp_path / folder / "training-supernet-d2-auto/curves.npz")
        for name in ("validation/full", "validation/subnet"):  # of other images in each process, and of none in one
            assert theirs[name][0].tolist() == curves[name][0].tolist() != []
            np.testing.assert_allclose(theirs[name][1], curves[name][1], atol=1e-5, rtol=0)
    reads = [json.loads((tmp_path / f"read-{rank}.json").read_text())[0] for rank in (0, 1)]
    for read in reads:  # 4 of a batch of 8, and the one that the last is mixed with
        assert 15 * 4 <= sum(total == 27 for total, _ in read) <= 15 * 5
    assert sorted(index for read in reads for total, index in read if total == 12) == list(range(12))


@pytest.mark.parametrize(("environment", "precision", "message"), [
    ({"VARIENT_MICRO_BATCH": "many"}, "fp32", "VARIENT_MICRO_BATCH: .*'many'"),
    ({"VARIENT_WORKERS": "-1"}, "fp32", "VARIENT_WORKERS: .*'-1'"),
    ({"VARIENT_STRATEGY": "fsdp"}, "fp32", "strategy = fsdp needs at least 2 processes"),
    ({"WORLD_SIZE": "3"}, "fp32", r"a batch of 8 cannot be shared equally by 3 processes; start 2 of them"),
    ({}, "fp16", "precision = fp16 needs a GPU"),
    pytest.param({"VARIENT_DEVICE": "cuda"}, "fp32", "device = cuda: torch sees no GPU here",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU"))])
def test_what_cannot_be_trained_is_refused_before_a_file_is_opened(root, tmp_path, monkeypatch, environment, precision,
                                                                    message):
    settings = experiment(root).model_dump(mode="json")
    settings["base"]["training"]["precision"] = settings["supernet"]["training"]["precision"] = precision
    config, nowhere = parse_config(settings, "test"), tmp_path / "nowhere"
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        train_base(config, nowhere, tmp_path / "base.safetensors")
    with pytest.raises(ValueError, match=message):
        train_supernet(config, Supernet(2), nowhere, nowhere, tmp_path / "s.safetensors")


def test_an_unreadable_image_ends_a_training_that_goes_on_once_it_is_repaired(root, tokenizer, tmp_path):
    config, broken = experiment(root, FLIP), root / "train/n02/3.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50].ljust(len(whole), b"\0"))
    with pytest.raises(ImageFolderError, match=rf"^{broken}: unreadable .*; repair it, remove it, or set "
                                               r"data.unreadable: skip$"):
        train_base(config, tokenizer, tmp_path / "run/base.safetensors")
    broken.write_bytes(whole)
    train_base(config, tokenizer, tmp_path / "run/base.safetensors")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unreadable_image_is_skipped_and_written_down(root, tokenizer, tmp_path, monkeypatch, workers):
    monkeypatch.setenv("VARIENT_WORKERS", workers)
    (root / "train/n02/3.png").write_bytes(b"broken")
    config, cache = experiment(root, FLIP, unreadable="skip"), tmp_path / "tokens"
    train_base(config, tokenizer, tmp_path / "live/base.safetensors")
    entry = json.loads((tmp_path / "run/unreadable-train.jsonl").read_text())
    assert (entry["path"], entry["replacement"]) == ("n02/3.png", "n02/4.png")
    cache_tokens(config, tokenizer, cache, workers=int(workers))
    train_base(config, tokenizer, tmp_path / "cached/base.safetensors", cache)
    live, cached = (weights_of(config, tmp_path / name / "base.safetensors")[0] for name in ("live", "cached"))
    assert same_weights(live, cached)


def test_an_empty_class_no_val_and_no_root_are_said_before_training(root, tokenizer, tmp_path):
    config, files = experiment(root), (tokenizer, tmp_path / "run/base.safetensors")
    for path in (root / "val").rglob("*.png"):
        path.unlink()
    with pytest.raises(ImageFolderError, match=r"val: no image in class folder n01, n02, n03"):
        trained_supernet(config, files, tmp_path / "s.safetensors", "auto")
    for path in (root / "train/n02").iterdir():
        path.unlink()
    with pytest.raises(ImageFolderError, match="train: no image in class folder n02"):
        train_base(config, tokenizer, tmp_path / "base.safetensors")
    nowhere = config.model_copy(update={"data": config.data.model_copy(update={"root": None})})
    with pytest.raises(ValueError, match="data.root is missing"):
        TokenBatches(nowhere, tokenizer, BATCH)


if __name__ == "__main__":
    torch.set_num_threads(1)
    in_one_of_two_processes(Path(sys.argv[1]))
