"""Training batches of tokens: of a folder, augmented or from a cache, and of digits in memory."""

import shutil
from functools import partial

import pytest
import torch
from conftest import ROOT, tiny_transformer
from folder_experiment import BATCH, FLIP, NUM_CLASSES, PAPER, experiment, images_read, write_folder, write_networks

from varient.config import NO_AUGMENTATION, ConfigError, DataConfig, load_config, parse_config
from varient.evaluation.held_out import measure_held_out
from varient.models.build import load_tokenizer, load_transformer
from varient.models.checkpoint import save_weights
from varient.models.vqvae import from_uint8
from varient.systems.registry import resolve_system
from varient.training import tokens as tokens_module
from varient.training.augmentation import AugmentedImages, Preprocessing, random_numbers
from varient.training.data import Mix, batch_indices, load_images, successors
from varient.training.distributed import Part
from varient.training.image_folder import ImageFolder, ImageFolderError
from varient.training.token_cache import TokenCacheError
from varient.training.tokens import Batch, HeldOutTokens, TokenBatches, cache_tokens, drop_labels, mixed_classes
from varient.training.validation import held_out_losses


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "data")


@pytest.fixture
def tokenizer(root):
    return write_networks(root)[0]


def _equal(ours: Batch, theirs: Batch) -> bool:
    pairs = [*zip(ours[:3], theirs[:3], strict=True), *zip(ours.mix or (), theirs.mix or (), strict=True)]
    return all(torch.equal(a, b) for a, b in pairs)


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
                read = images_read(patch)
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


def test_a_batch_is_the_same_out_of_turn_and_asked_for_twice(root, tokenizer, monkeypatch):
    config = experiment(root, PAPER)
    batches = TokenBatches(config, tokenizer, BATCH)

    def at(step):
        torch.manual_seed(step)
        return batches.batch(step)

    in_turn = [at(step) for step in range(6)]
    for step in (5, 2, 3, 0):
        assert _equal(at(step), in_turn[step])
    read = images_read(monkeypatch)
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
    read = images_read(monkeypatch)
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
    some = config.model_copy(update={"held_out_images": 6})
    of_each_class = HeldOutTokens(some, load_tokenizer(config, tokenizer), tokenizer.parent, 6)
    assert torch.cat([batch.label_B for batch, _ in of_each_class.batches()]).tolist() == [0, 0, 1, 1, 2, 2]
    fewer = measure_held_out(some, ["var-d6"], tokenizer.parent, tmp_path / "fewer.json")
    assert fewer.num_images == 6 and fewer.images_sha256 == of_each_class.identity != record.images_sha256
    with pytest.raises(ValueError, match="held_out_images = 13 is above the 12"):
        measure_held_out(config.model_copy(update={"held_out_images": 13}), ["var-d6"], tokenizer.parent,
                         tmp_path / "again.json")
    shutil.rmtree(root / "val")
    with pytest.raises(ImageFolderError, match="val"):
        measure_held_out(config, ["var-d6"], tokenizer.parent, tmp_path / "again.json")
    assert not (tmp_path / "again.json").exists()


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
