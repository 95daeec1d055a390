"""Trainings on a folder of ImageNet's layout, small but real, which this file writes and, in two processes, reads."""

import json
import os
import shutil
import subprocess
import sys
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, tiny_transformer
from PIL import Image

from varient.config import NO_AUGMENTATION, ConfigError, DataConfig, load_config, parse_config
from varient.evaluation.held_out import measure_held_out
from varient.models.build import build_transformer, load_tokenizer, load_transformer
from varient.models.checkpoint import load_weights, save_weights
from varient.models.transformer import VAR
from varient.models.vqvae import from_uint8
from varient.systems.registry import resolve_system
from varient.training import tokens as tokens_module
from varient.training.augmentation import AugmentedImages, Preprocessing, random_numbers
from varient.training.base import train_base
from varient.training.curves import read_curves
from varient.training.data import Mix, batch_indices, load_images, successors
from varient.training.distributed import Part, is_main_process
from varient.training.image_folder import ImageFolder, ImageFolderError
from varient.training.recipes import Supernet
from varient.training.supernet import train_supernet
from varient.training.token_cache import TokenCacheError
from varient.training.tokens import Batch, TokenBatches, cache_tokens, drop_labels, mixed_classes
from varient.training.validation import held_out_losses

NUM_CLASSES, PER_CLASS, BATCH = 3, 9, 8
FLIP = {"random_crop": False, "randaugment": None, "mixup": 0}
PAPER = {}


def write_images(folder: Path, per_class: int, seed: int) -> None:
    """Images of several sizes, no two alike, in class folders."""
    generator = np.random.default_rng(seed)
    for name in ("n01", "n02", "n03"):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            height, width = generator.integers(12, 24, 2)
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def experiment(root: Path, augmentation: dict | None = None, **data: object):
    """The smoke experiment on a folder of images."""
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    settings["data"] = {"source": "imagenet", "image_size": 8, "num_classes": NUM_CLASSES, "root": str(root),
                        "augmentation": augmentation} | data
    settings["base"]["training"] |= {"epochs": 3, "batch_size": BATCH}
    settings["supernet"]["training"] |= {"batch_size": BATCH, "batches_per_epoch": 3}
    settings["sampling"]["num_images"] = 99
    settings["transformer"]["cond_drop_rate"] = 0.3
    for section in ("systems", "rows", "ablations"):
        del settings[section]
    return parse_config(settings, "test")


@pytest.fixture
def root(tmp_path):
    write_images(tmp_path / "data/train", PER_CLASS, seed=0)
    write_images(tmp_path / "data/val", 4, seed=1)
    return tmp_path / "data"


@pytest.fixture
def tokenizer(root):
    return write_networks(root)[0]


def write_networks(root: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    pipeline = resolve_system("var-d6", experiment(root)).load(None, "fp32")
    files = root.parent / "run/tokenizer.safetensors", root.parent / "run/base.safetensors"
    save_weights(files[0], pipeline.tokenizer, {})
    save_weights(files[1], pipeline.model, {})
    return files


def _weights(config, path):
    model = build_transformer(config)
    description = load_weights(path, model)
    return model.state_dict(), description


def _same(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def _supernet(config, files, output, recipe=None, cache=None):
    train_supernet(config, Supernet(2, recipe), *files, output, cache)
    return _weights(config, output)[0]


def _equal(ours: Batch, theirs: Batch) -> bool:
    pairs = [*zip(ours[:3], theirs[:3], strict=True), *zip(ours.mix or (), theirs.mix or (), strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


def _read(monkeypatch):
    """The images that are read from now on."""
    found, load = [], ImageFolder.load

    def noted(self, index):
        found.append(index)
        return load(self, index)

    monkeypatch.setattr(ImageFolder, "load", noted)
    return found


# -- trainings ---------------------------------------------------------------------------------------------------------

def test_base_and_supernet_learn_from_a_folder_with_the_papers_augmentation(root, tokenizer, tmp_path):
    config, base = experiment(root, PAPER), tmp_path / "run/base.safetensors"
    train_base(config, tokenizer, base)
    losses = json.loads((tmp_path / "run/training-base/losses.json").read_text())
    assert len(losses) == 9 and losses[-1] < losses[0]
    weights, description = _weights(config, base)
    assert description["settings"].endswith(TokenBatches(config, tokenizer, BATCH).digests()[0])
    learnt = _supernet(config, (tokenizer, base), tmp_path / "run/supernet-d2.safetensors")
    assert not _same(learnt, weights)


@pytest.mark.parametrize("augmentation", [None, FLIP, FLIP | {"flip": 0}])
def test_a_cache_gives_the_weights_of_encoding_on_the_fly(root, tokenizer, tmp_path, augmentation):
    config, cache = experiment(root, augmentation).model_copy(update={"seed": 3}), tmp_path / "tokens"
    cache_tokens(config, tokenizer, cache)
    for folder, options in {"live": {}, "cached": {"cache": cache}}.items():
        train_base(config, tokenizer, tmp_path / folder / "base.safetensors", **options)
    bases = [tmp_path / folder / "base.safetensors" for folder in ("live", "cached")]
    live, cached = (_weights(config, base)[0] for base in bases)
    assert _same(live, cached)
    live, cached = (_supernet(config, (tokenizer, bases[0]), tmp_path / name / "supernet.safetensors", cache=folder)
                    for name, folder in (("live", None), ("cached", cache)))
    assert _same(live, cached)


@pytest.mark.parametrize("recipe", [None, "auto"])
def test_a_training_that_was_stopped_goes_on_to_the_same_bits(root, tmp_path, monkeypatch, recipe):
    config, files = experiment(root, PAPER), write_networks(root)
    _supernet(config, files, tmp_path / "whole/s.safetensors", recipe)
    monkeypatch.setenv("VARIENT_SAVE_EVERY", "4")
    batch = TokenBatches.batch

    def stop(self, step, part):
        if step == 10:
            raise KeyboardInterrupt
        return batch(self, step, part)

    with monkeypatch.context() as patch:
        patch.setattr(TokenBatches, "batch", stop)
        with pytest.raises(KeyboardInterrupt):
            _supernet(config, files, tmp_path / "stopped/s.safetensors", recipe)
    config = experiment(root.rename(tmp_path / "elsewhere"), PAPER)  # the same images, mounted at another place
    monkeypatch.setattr(torch.Tensor, "backward", counted := _Counter(torch.Tensor.backward))
    _supernet(config, files, tmp_path / "stopped/s.safetensors", recipe)
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
    whole = _supernet(config, files, tmp_path / "whole/s.safetensors")
    monkeypatch.setenv("VARIENT_MICRO_BATCH", "2")
    read = _read(monkeypatch)
    parts = _supernet(config, files, tmp_path / "parts/s.safetensors")
    expected = [batch_indices(step, num_items=27, batch_size=BATCH, seed=0).tolist() for step in range(15)]
    assert read == list(chain(*expected))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=0.05 * config.supernet.training.learning_rate, rtol=0)


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
    one = _supernet(config, files, tmp_path / "one/s.safetensors", "auto")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__,
         str(tmp_path)], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}", "OMP_NUM_THREADS": "1",
             "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr[-4000:]
    tolerance = 0.05 * config.supernet.training.learning_rate
    curves = read_curves(tmp_path / "one/training-supernet-d2-auto/curves.npz")
    for folder in ("two", "sharded"):
        weights = _weights(config, tmp_path / folder / "s.safetensors")[0]
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


# -- batches -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("augmentation", [None, FLIP, PAPER])
def test_parts_of_a_batch_are_slices_of_the_whole_and_read_their_own_images(root, tokenizer, monkeypatch,
                                                                             augmentation):
    config = experiment(root, augmentation)
    whole, parts = (TokenBatches(config, tokenizer, BATCH, seed=3) for _ in range(2))
    for step in (0, 1, 4, 5):
        torch.manual_seed(step)
        expected = whole.batch(step)
        indices = batch_indices(step, num_items=27, batch_size=BATCH, seed=3)
        partners = successors(indices, step // 3, num_items=27, seed=3).tolist()
        for part in range(4):
            with monkeypatch.context() as patch:
                read = _read(patch)
                torch.manual_seed(step)
                found = parts.batch(step, Part(part, 4, seed=7))
            rows = slice(2 * part, 2 * part + 2)
            for ours, theirs in zip(found[:3], expected[:3], strict=True):
                assert torch.equal(ours, theirs[rows])
            assert (found.mix is None) == (expected.mix is None) == (augmentation != PAPER)
            if found.mix:
                assert all(torch.equal(a, b[rows]) for a, b in zip(found.mix, expected.mix, strict=True))
            assert read == indices[rows].tolist() + (partners[rows][-1:] if augmentation == PAPER else [])
        assert (expected.label_B == NUM_CLASSES).any() or step != 0


def test_a_batch_holds_the_mixed_pixels_tokens_and_both_labels(root, tokenizer):
    config = experiment(root, PAPER)
    network = load_tokenizer(config, tokenizer)
    folder = ImageFolder(root, "train", num_classes=3, index=root.parent / "own.npz")
    pixels = AugmentedImages(folder, Preprocessing(image_size=8), config.data.augmentation, num_classes=3, seed=0)
    batches, step = TokenBatches(config, tokenizer, BATCH), 4
    torch.manual_seed(1)
    batch = batches.batch(step)
    indices = batch_indices(step, num_items=27, batch_size=BATCH, seed=0)
    partners = successors(indices, 1, num_items=27, seed=0)
    torch.manual_seed(1)
    dropped = drop_labels(torch.zeros(BATCH, dtype=torch.int64), 0.3, 3) == 3
    assert 0 < dropped.sum() < BATCH
    assert torch.equal(batch.label_B, torch.where(dropped, 3, folder.labels[indices]))
    assert torch.equal(batch.mix.labels, torch.where(dropped, 3, folder.labels[partners]))
    weight = torch.tensor([random_numbers(0, 1, index, 0.2).weight for index in indices.tolist()], dtype=torch.float32)
    assert torch.equal(batch.mix.weight, weight)
    first, second = (from_uint8(torch.stack([pixels.image(index, 1) for index in chosen.tolist()]))
                     for chosen in (indices, partners))
    weight = weight.view(-1, 1, 1, 1)
    assert torch.equal(batch.idx_BL, network.encode(weight * first + (1 - weight) * second))
    assert torch.equal(batch.x_BLv, network.quantize.teacher_input(batch.idx_BL))


def test_class_vectors_are_mixed_by_definition():
    model, table = tiny_transformer(), tiny_transformer().class_emb.weight
    mix = Mix(torch.tensor([1, 5, 0]), torch.tensor([0.25, 0.7, 1.0]))
    found = mixed_classes(model, torch.tensor([2, 5, 4]), mix)
    expected = torch.stack([0.25 * table[2] + 0.75 * table[1], table[5], table[4]])
    torch.testing.assert_close(found, expected)
    assert mixed_classes(model, torch.tensor([2]), None) is None


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
    _supernet(parse_config(settings, "test"), write_networks(root), tmp_path / "mixed/s.safetensors", "distil")
    assert set(seen) == {(True, True), (True, False)} and len(seen) > 15 + 5
    seen.clear()
    _supernet(experiment(root, FLIP), write_networks(root), tmp_path / "plain/s.safetensors")
    assert set(seen) == {(False, True)}


def test_a_batch_is_the_same_out_of_turn_and_asked_for_twice(root, tokenizer, monkeypatch):
    config = experiment(root, PAPER)
    batches = TokenBatches(config, tokenizer, BATCH)

    def at(step):
        torch.manual_seed(step)
        return batches.batch(step)

    in_turn = [at(step) for step in range(6)]
    for step in (5, 2, 3, 0):
        assert _equal(at(step), in_turn[step])
    read = _read(monkeypatch)
    assert _equal(at(0), in_turn[0]) and read == []


def test_a_process_streams_its_own_parts_alone(monkeypatch):
    monkeypatch.setattr(tokens_module, "_place", lambda: (1, 2))
    turns = tokens_module._turns(tokens_module._Turn(4, 3, 4))
    assert [next(turns)[:2] for _ in range(4)] == [(4, 3), (5, 2), (5, 3), (6, 2)]


def test_workers_change_nothing(root, tokenizer, monkeypatch):
    config = experiment(root, PAPER)
    alone = [TokenBatches(config, tokenizer, BATCH).batch(0, Part(index, 2)) for index in (0, 1)]
    monkeypatch.setenv("VARIENT_WORKERS", "2")
    helped = TokenBatches(config, tokenizer, BATCH)
    torch.manual_seed(0)
    drawn = torch.rand(BATCH + 1)[-1]
    torch.manual_seed(0)
    for index in (0, 1):
        found = helped.batch(0, Part(index, 2))
        assert torch.equal(found.idx_BL, alone[index].idx_BL)
    torch.manual_seed(0)
    helped.batch(1)
    assert torch.rand(()) == drawn  # one draw an image and no other
    monkeypatch.setenv("VARIENT_WORKERS", "many")
    with pytest.raises(ValueError, match="VARIENT_WORKERS: .*'many'"):
        helped.batch(0)


def test_tokens_do_not_hang_on_the_precision_of_the_training(root, tokenizer):
    config = experiment(root, PAPER)
    torch.manual_seed(0)
    expected = TokenBatches(config, tokenizer, BATCH).batch(0)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = TokenBatches(config, tokenizer, BATCH).batch(0)
    assert _equal(found, expected) and found.x_BLv.dtype == torch.float32


def test_parts_must_be_equal_and_batches_not_above_the_images(root, tokenizer):
    config = experiment(root)
    with pytest.raises(ValueError, match="a batch of 8 rows cannot be cut into 3 equal parts"):
        TokenBatches(config, tokenizer, BATCH).batch(0, Part(0, 3))
    with pytest.raises(ValueError, match="batch_size = 28 is above the 27 images"):
        TokenBatches(config, tokenizer, 28)


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


def test_a_cache_is_made_on_the_device_that_is_asked_for(root, tokenizer, tmp_path, monkeypatch, caplog, capsys):
    config = experiment(root, FLIP)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        cache_tokens(config, tokenizer, tmp_path / "tokens")
    assert "runs on the CPU although there is a GPU; VARIENT_DEVICE=cuda takes it" in caplog.text
    assert "tokens on cpu" in capsys.readouterr().err
    caplog.clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cache_tokens(config, tokenizer, tmp_path / "tokens")
    assert not caplog.records
    monkeypatch.setenv("VARIENT_DEVICE", "cuda")
    with pytest.raises(ValueError, match="device = cuda: torch sees no GPU here"):
        cache_tokens(config, tmp_path / "nowhere", tmp_path / "tokens")


def test_held_out_images_are_those_of_val_in_the_centre(root, tokenizer, monkeypatch):
    config = experiment(root, PAPER)
    monkeypatch.setattr(tokens_module, "_HELD_OUT_AT_ONCE", 5)
    batches = TokenBatches(config, tokenizer, BATCH)
    whole, counts = zip(*batches.held_out(), strict=True)
    assert [len(batch.idx_BL) for batch in whole] == [5, 5, 2] == [*counts]
    assert torch.cat([batch.label_B for batch in whole]).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    folder = ImageFolder(root, "val", num_classes=3, index=root.parent / "own.npz")
    pixels = AugmentedImages(folder, Preprocessing(image_size=8), NO_AUGMENTATION, num_classes=3, seed=0)
    image_N3SS = from_uint8(torch.stack([pixels.image(index, 0) for index in range(12)]))
    assert torch.equal(torch.cat([batch.idx_BL for batch in whole]),
                       load_tokenizer(config, tokenizer).encode(image_N3SS))
    read = _read(monkeypatch)
    assert all(_equal(again, batch) for (again, _), batch in zip(batches.held_out(), whole, strict=True)) and read == []
    shares = []
    for rank in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(tokens_module, "_place", lambda rank=rank: (rank, 2))
            shares.append(list(TokenBatches(config, tokenizer, BATCH).held_out()))
    assert [[images for _, images in share] for share in shares] == [[5, 2], [5, 0]]  # equally many, for fsdp
    assert _equal(shares[0][1][0], whole[2]) and _equal(shares[1][0][0], whole[1])


def test_the_record_of_losses_is_of_val_and_a_folder_without_it_is_refused(root, tokenizer, tmp_path):
    config = experiment(root, PAPER)
    record = measure_held_out(config, ["var-d6", "free-d2"], tokenizer.parent, tmp_path / "record.json")
    batches = TokenBatches(config, tokenizer, BATCH)
    losses = held_out_losses(load_transformer(config, tokenizer.parent / "base.safetensors"), batches.held_out(),
                             [config.plan(), config.plan(2)])
    assert [loss.loss for loss in record.losses] == [loss.mean for loss in losses] and record.num_images == 12
    assert record.images_sha256 == batches.digests(held_out=True)[1]
    shutil.rmtree(root / "val")
    with pytest.raises(ImageFolderError, match="val"):
        measure_held_out(config, ["var-d6"], tokenizer.parent, tmp_path / "again.json")
    assert not (tmp_path / "again.json").exists()


# -- digits ------------------------------------------------------------------------------------------------------------

def test_digits_are_encoded_once_and_given_out_in_order(smoke, tmp_path):
    torch.manual_seed(0)
    pipeline = resolve_system("var-d6", smoke).load(None, "fp32")
    save_weights(tmp_path / "t.safetensors", pipeline.tokenizer, {})
    batches, images = TokenBatches(smoke, tmp_path / "t.safetensors", 32), load_images(smoke.data, "train")
    idx_NL = tokens_module.encode_images(pipeline.tokenizer, images.images)
    x_NLv = pipeline.tokenizer.quantize.teacher_input(idx_NL)
    assert batches.per_epoch == 44 and batches.digests() == batches.digests(held_out=True) == []
    for step in (0, 50):
        chosen = batch_indices(step, num_items=1437, batch_size=32, seed=0)
        torch.manual_seed(step)
        label_B, after = drop_labels(images.labels[chosen], 0.1, 10), torch.rand(())
        torch.manual_seed(step)
        batch = batches.batch(step)
        assert torch.equal(batch.label_B, label_B) and torch.rand(()) == after
        assert torch.equal(batch.idx_BL, idx_NL[chosen]) and torch.equal(batch.x_BLv, x_NLv[chosen])
        assert batch.mix is None
    ((held_out, images),) = batches.held_out()
    assert images == 360 == len(held_out.label_B)
    assert torch.equal(held_out.label_B, load_images(smoke.data, "holdout").labels)
    assert list(tmp_path.iterdir()) == [tmp_path / "t.safetensors"]


def test_many_images_held_out_come_in_several_batches(smoke, tmp_path):
    config = smoke.model_copy(update={"data": smoke.data.model_copy(update={"holdout": 1100})})
    tokenizer = resolve_system("var-d6", config).load(None, "fp32").tokenizer
    save_weights(tmp_path / "t.safetensors", tokenizer, {})
    held_out, images = list(TokenBatches(config, tmp_path / "t.safetensors", 32).held_out()), load_images(
        config.data, "holdout")
    assert [count for _, count in held_out] == [512, 512, 76]
    assert torch.equal(torch.cat([batch.label_B for batch, _ in held_out]), images.labels)
    assert torch.equal(torch.cat([batch.idx_BL for batch, _ in held_out]),
                       tokens_module.encode_images(tokenizer, images.images))


def test_settings_of_folders_are_no_part_of_digits(smoke):
    assert set(smoke.data.model_dump()) == {"source", "image_size", "num_classes", "holdout", "root"}
    with pytest.raises(ConfigError, match="data: augmentation, resize: for imagenet only; data.source is digits"):
        parse_config(smoke.model_dump(mode="json") | {"data": smoke.data.model_dump(mode="json") | {
            "resize": 1, "augmentation": None}}, "test")
    imagenet = load_config(ROOT / "workflow/config/imagenet256.yaml").data
    assert imagenet.model_dump()["augmentation"] == {"random_crop": True, "flip": 0.5, "mixup": 0.2, "randaugment": {
        "num_ops": 2, "magnitude": 9}}
    assert DataConfig.model_validate(imagenet.model_dump(mode="json")) == imagenet
    assert not imagenet.cacheable and not smoke.data.cacheable


# -- what goes wrong ---------------------------------------------------------------------------------------------------

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
    live, cached = (_weights(config, tmp_path / name / "base.safetensors")[0] for name in ("live", "cached"))
    assert _same(live, cached)


def test_an_empty_class_no_val_and_no_root_are_said_before_training(root, tokenizer, tmp_path):
    config, files = experiment(root), (tokenizer, tmp_path / "run/base.safetensors")
    for path in (root / "val").rglob("*.png"):
        path.unlink()
    with pytest.raises(ImageFolderError, match=r"val: no image in class folder n01, n02, n03"):
        _supernet(config, files, tmp_path / "s.safetensors", "auto")
    for path in (root / "train/n02").iterdir():
        path.unlink()
    with pytest.raises(ImageFolderError, match="train: no image in class folder n02"):
        train_base(config, tokenizer, tmp_path / "base.safetensors")
    nowhere = config.model_copy(update={"data": config.data.model_copy(update={"root": None})})
    with pytest.raises(ValueError, match="data.root is missing"):
        TokenBatches(nowhere, tokenizer, BATCH)


def test_caches_that_do_not_fit_are_refused(root, tokenizer, smoke, tmp_path):
    config, cache = experiment(root, FLIP), tmp_path / "tokens"
    with pytest.raises(TokenCacheError, match=r"tokens/manifest.json: no such token cache"):
        TokenBatches(config, tokenizer, BATCH, cache=cache)
    with pytest.raises(ValueError, match="data.augmentation changes images in more ways than a cache"):
        cache_tokens(experiment(root, PAPER), tokenizer, cache)
    cache_tokens(config, tokenizer, cache)
    cache_tokens(config, tokenizer, cache)  # nothing is left to do
    with pytest.raises(ValueError, match="data.augmentation changes images in more ways than a cache"):
        TokenBatches(experiment(root, PAPER), tokenizer, BATCH, cache=cache)
    with pytest.raises(ValueError, match="digits are encoded when a training starts"):
        TokenBatches(smoke, tokenizer, BATCH, cache=cache)
    with pytest.raises(TokenCacheError, match=r"holds other tokens: preprocessing is .*1\.125.*, expected .*1\.5"):
        TokenBatches(experiment(root, FLIP, resize=1.5), tokenizer, BATCH, cache=cache)
    save_weights(tokenizer, load_tokenizer(config, tokenizer), {"another": "file"})
    for use in (partial(TokenBatches, batch_size=BATCH, cache=cache), partial(cache_tokens, output=cache)):
        with pytest.raises(TokenCacheError, match="holds other tokens: tokenizer_sha256 is"):
            use(config, tokenizer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    in_one_of_two_processes(Path(sys.argv[1]))
