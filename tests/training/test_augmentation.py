import shutil
import subprocess
import sys
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer, visits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import transforms

from varient.config import NO_AUGMENTATION, Augmentation, RandAugment
from varient.models.vqvae import from_uint8
from varient.training.augmentation import AugmentedImages, EncodedImages, Preprocessing, augment, random_numbers
from varient.training.data import LabeledImages, Visit
from varient.training.image_folder import ImageFolder

SIZE = Preprocessing(image_size=16)
PAPER = Augmentation()
SAME_SIZE = Preprocessing(image_size=8, resize=1)


def _photo(height=40, width=33, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def _source(num=12, side=20):
    images = torch.stack([_photo(side, side, seed) for seed in range(num)])
    return LabeledImages(images, torch.arange(num) % 4)


def _augmented(augmentation=PAPER, num=12, seed=0):
    return AugmentedImages(_source(num), SIZE, augmentation, num_classes=4, seed=seed)


def test_the_papers_values_are_the_defaults():
    defaults = Augmentation()
    assert (defaults.flip, defaults.mixup, defaults.random_crop) == (0.5, 0.2, True)
    assert (defaults.randaugment.num_ops, defaults.randaugment.magnitude) == (2, 9)
    assert not defaults.cacheable and NO_AUGMENTATION.cacheable
    assert Augmentation(random_crop=False, randaugment=None, mixup=0).cacheable


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"mixup": -1}, {"randaugment": {"magnitude": 31}}, {"cutmix": 1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match="1 validation error for Augmentation\n" + next(iter(wrong))):
        Augmentation(**wrong)


@pytest.mark.parametrize(("height", "width"), [(40, 33), (20, 61), (9, 9), (18, 18)])
def test_evaluation_pixels_are_those_of_vars_pipeline(height, width):
    theirs = transforms.Compose([transforms.Resize(18, interpolation=transforms.InterpolationMode.LANCZOS),
                                 transforms.CenterCrop((16, 16)), transforms.PILToTensor()])
    photo = _photo(height, width)
    ours = augment(photo, SIZE, NO_AUGMENTATION, random_numbers(0, 0, 0))
    assert torch.equal(ours, theirs(Image.fromarray(photo.permute(1, 2, 0).numpy())))


def test_images_of_the_right_size_are_left_alone():
    photo = _photo(8, 8)
    assert torch.equal(augment(photo, SAME_SIZE, NO_AUGMENTATION, random_numbers(0, 0, 0)), photo)


def test_random_crops_are_windows_of_the_resized_image_and_all_occur():
    photo = _photo(18, 20)
    crop_only = Augmentation(flip=0, randaugment=None)
    windows = {photo[:, top:top + 16, left:left + 16].numpy().tobytes(): (top, left)
               for top in range(3) for left in range(5)}
    found = {windows[augment(photo, SIZE, crop_only, random_numbers(0, 0, index)).numpy().tobytes()]
             for index in range(200)}
    assert len(found) == 15


def test_half_of_the_images_are_mirrored():
    photo = _photo(8, 8)
    flip_only = Augmentation(random_crop=False, randaugment=None)
    results = [augment(photo, SAME_SIZE, flip_only, random_numbers(0, 0, index)) for index in range(400)]
    mirrored = [torch.equal(result, photo.flip(-1)) for result in results]
    assert all(same or torch.equal(result, photo) for same, result in zip(mirrored, results, strict=True))
    assert 160 < sum(mirrored) < 240


def test_randaugment_changes_pixels_and_is_a_switch():
    photo = _photo(18, 18)
    without = Augmentation(random_crop=False, flip=0, randaugment=None)
    with_it = Augmentation(random_crop=False, flip=0)
    plain = augment(photo, SIZE, without, random_numbers(0, 0, 0))
    changed = [not torch.equal(augment(photo, SIZE, with_it, random_numbers(0, 0, index)), plain)
               for index in range(40)]
    assert sum(changed) > 30
    gentle = Augmentation(random_crop=False, flip=0, randaugment=RandAugment(num_ops=1, magnitude=0))
    assert any(torch.equal(augment(photo, SIZE, gentle, random_numbers(0, 0, index)), plain) for index in range(20))


def test_pixels_hang_on_seed_epoch_and_index_alone():
    forwards, backwards = _augmented(), _augmented()
    first = {index: forwards.image(index, 3) for index in range(12)}
    torch.manual_seed(99)
    second = {}
    for index in reversed(range(12)):
        backwards.image(index, 1)  # other work in between
        second[index] = backwards.image(index, 3)
        torch.rand(index)
    assert all(torch.equal(first[index], second[index]) for index in first)
    assert not torch.equal(first[0], forwards.image(0, 4))
    assert not torch.equal(first[0], _augmented(seed=1).image(0, 3))


def test_the_generators_of_the_training_step_are_left_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the GPU's generator was seeded"))
    visit = next(visits(0, num_items=12, batch_size=4, seed=0))
    torch.default_generator.manual_seed(5)
    expected = torch.rand(3)
    torch.default_generator.manual_seed(5)
    next(iter(_augmented().batches([visit])))
    assert torch.equal(torch.rand(3), expected)


def test_draws_of_flip_do_not_hang_on_mixup():
    assert random_numbers(1, 2, 3, mixup=0.2)[:2] == random_numbers(1, 2, 3)[:2] and random_numbers(1, 2, 3).weight == 1
    assert len({random_numbers(*key).torch_seed for key in [(0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 0, 0)]}) == 4


def test_weights_follow_beta():
    weights = np.array([random_numbers(0, 0, index, mixup=0.2).weight for index in range(4000)])
    assert weights.min() >= 0 and weights.max() <= 1
    assert abs(weights.mean() - 0.5) < 0.02
    assert abs(weights.var() - 0.25 / 1.4) < 0.01  # Beta(a, a) has variance 1 / (4 (2a + 1))


@settings(max_examples=20, deadline=None)
@given(batch_size=st.integers(1, 12), step=st.integers(0, 30))
def test_pixels_and_labels_are_mixed_with_the_same_weight(batch_size, step):
    images = _augmented()
    visit = next(visits(step, num_items=12, batch_size=batch_size, seed=0))
    batch = images.pixels(visit)
    assert len(batch.images) <= batch_size + 1  # all but one partner are in the batch
    mixed = batch.mixed()
    assert mixed.shape == (batch_size, 3, 16, 16) and mixed.dtype == torch.float32 and mixed.abs().max() <= 1
    for row, index in enumerate(visit.indices.tolist()):
        weight = random_numbers(0, visit.epoch, index, 0.2).weight
        assert float(batch.mix.weight[row]) == pytest.approx(weight)
        second = batch.images[batch.partners[row]]
        partner = next(other for other in range(12) if torch.equal(images.image(other, visit.epoch), second))
        assert partner != index and batch.labels[row] == index % 4 and batch.mix.labels[row] == partner % 4
        expected = weight * from_uint8(images.image(index, visit.epoch)) + (1 - weight) * from_uint8(second)
        torch.testing.assert_close(mixed[row], expected)


def test_an_image_is_mixed_alike_in_batches_of_any_size():
    images = _augmented()
    order = next(visits(0, num_items=12, batch_size=12, seed=0)).indices
    together, mix = images.pixels(Visit(0, order)).mixed(), images.pixels(Visit(0, order)).mix
    shuffled = torch.randperm(12)
    for part in shuffled.split(5):
        batch = images.pixels(Visit(0, order[part]))
        assert torch.equal(batch.mixed(), together[part])
        assert torch.equal(batch.mix.labels, mix.labels[part]) and torch.equal(batch.mix.weight, mix.weight[part])


def test_without_mixup_nothing_is_mixed():
    batch = _augmented(Augmentation(mixup=0)).pixels(Visit(0, torch.tensor([3, 1])))
    assert batch.mix is None and batch.partners is None and len(batch.images) == 2


def test_an_image_visited_twice_is_there_twice():
    batch = _augmented().pixels(Visit(0, torch.tensor([3, 3, 1])))
    assert torch.equal(batch.mixed()[0], batch.mixed()[1]) and batch.labels.tolist() == [3, 3, 1]


def test_workers_change_nothing_and_may_read_endless_visits():
    images = _augmented()
    endless = visits(1, num_items=12, batch_size=4, seed=0)
    torch.manual_seed(0)
    with_workers = list(islice(images.batches(endless, workers=2), 5))
    assert torch.equal(torch.rand(2), torch.rand(2, generator=torch.Generator().manual_seed(0)))
    here = list(islice(images.batches(visits(1, num_items=12, batch_size=4, seed=0)), 5))
    for ours, theirs in zip(with_workers, here, strict=True):
        assert torch.equal(ours.images, theirs.images) and torch.equal(ours.labels, theirs.labels)
        assert torch.equal(ours.mix.weight, theirs.mix.weight) and torch.equal(ours.partners, theirs.partners)


IN_SMALL_SHARED_MEMORY = """
import torch
from varient.config import NO_AUGMENTATION
from varient.training.augmentation import AugmentedImages, Preprocessing
from varient.training.data import LabeledImages, Visit
source = LabeledImages(torch.zeros(64, 3, 64, 64, dtype=torch.uint8), torch.zeros(64, dtype=torch.long))
images = AugmentedImages(source, Preprocessing(image_size=64), NO_AUGMENTATION, num_classes=1, seed=0)
try:
    list(images.batches([Visit(0, torch.arange(64))] * 4, workers=2))
except OSError as error:
    print(error)
"""


def test_too_little_shared_memory_is_said_in_one_line():
    """As in a container: Docker gives 64 MB."""
    small = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("needs unshare and the right to mount (root)")
    found = subprocess.run([*small, sys.executable, "-c", IN_SMALL_SHARED_MEMORY], capture_output=True, text=True,
                           timeout=120)
    assert "/dev/shm has 0 MiB free" in found.stdout and "VARIENT_WORKERS" in found.stdout, found.stdout + found.stderr
    assert len(found.stdout.splitlines()) == 1


@pytest.mark.parametrize("missing", [0, 1])
def test_batches_that_workers_read_ahead_have_to_fit_into_shared_memory(monkeypatch, missing):
    images, step = _augmented(), [Visit(0, torch.arange(4))]
    needed = 2 * 2 * 4 * 3 * SIZE.image_size ** 2  # two batches for each of two workers
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - missing))
    if missing:
        with pytest.raises(OSError, match="/dev/shm"):
            list(images.batches(step, workers=2))
    else:
        assert len(list(images.batches(step, workers=2))) == 1
    assert len(list(images.batches(step))) == 1 and list(images.batches([], workers=2)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_an_error_that_says_nothing_but_the_file(tmp_path, workers):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.fromarray(_photo().permute(1, 2, 0).numpy()).save(tmp_path / "train" / name / "x.png")
    (tmp_path / "train/b/y.png").write_bytes(b"broken")
    folder = ImageFolder(tmp_path, "train", num_classes=2, index=tmp_path / "index.npz")
    images = AugmentedImages(folder, SIZE, NO_AUGMENTATION, num_classes=2, seed=0)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/train/b/y.png: unreadable .*skip$"):
        list(images.batches([Visit(0, torch.tensor([0, 2]))], workers))


def test_labels_are_checked():
    with pytest.raises(ValueError, match="label 3 of image 3"):
        AugmentedImages(_source(), SIZE, Augmentation(), num_classes=3, seed=0)


def test_images_encoded_on_the_fly_are_training_images():
    tokenizer = tiny_tokenizer()
    source = LabeledImages(torch.stack([_photo(8, 8, seed) for seed in range(12)]), torch.arange(12) % 4)
    pixels = AugmentedImages(source, SAME_SIZE, Augmentation(), num_classes=4, seed=0)
    images = EncodedImages(pixels, tokenizer.encode, at_once=3)
    assert len(images) == 12 and images.num_classes == 4 and torch.equal(images.labels, source.labels)
    plan = list(islice(visits(0, num_items=12, batch_size=4, seed=0), 3))
    for visit, batch in zip(plan, images.batches(plan), strict=True):
        expected = pixels.pixels(visit)
        assert torch.equal(batch.tokens, tokenizer.encode(expected.mixed())) and not batch.tokens.requires_grad
        assert torch.equal(batch.labels, source.labels[visit.indices])
        assert torch.equal(batch.mix.weight, expected.mix.weight)


def test_identities_tell_settings_and_images_apart():
    identities = [_augmented().identity, _augmented(seed=1).identity, _augmented(num=11).identity,
                  _augmented(NO_AUGMENTATION).identity]
    assert len(set(identities)) == 4 and _augmented().identity == identities[0]
