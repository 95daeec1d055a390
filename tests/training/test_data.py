from itertools import islice

import pytest
import torch
from conftest import visits
from hypothesis import given
from hypothesis import strategies as st

from varient.config import DataConfig
from varient.training.data import (
    LabeledImages,
    TokensInMemory,
    batch_indices,
    check_labels,
    halves_of,
    load_images,
    successors,
)

DIGITS = DataConfig(source="digits", image_size=8, num_classes=10, holdout=360)


def test_digits_are_split_without_overlap_and_with_equal_class_shares():
    train, holdout = load_images(DIGITS, "train"), load_images(DIGITS, "holdout")
    assert (len(train), len(holdout)) == (1437, 360)
    assert train.images.dtype == torch.uint8 and train.images.shape == (1437, 3, 8, 8)
    assert (train.images[:, 0] == train.images[:, 2]).all()
    assert train.images.max() == 255 and train.images.min() == 0
    counts = torch.bincount(holdout.labels)
    assert counts.min() >= 34 and counts.max() <= 38
    check_labels(train.labels, 10, "digits")


def test_random_halves_share_no_image_and_hold_each_class_equally_often():
    train = load_images(DIGITS, "train")
    seen = set()
    for number in (1, 2, 3):
        first, second = halves_of(train, number)
        assert {len(first), len(second)} == {718, 719}
        together = torch.cat([first.images, second.images]).flatten(1).sort(dim=0).values
        assert torch.equal(together, train.images.flatten(1).sort(dim=0).values)
        assert (torch.bincount(first.labels) - torch.bincount(second.labels)).abs().max() <= 1
        assert halves_of(train, number)[0].identity == first.identity
        seen.add(first.identity)
    assert len(seen) == 3


def test_digits_are_an_image_source():
    train, holdout = load_images(DIGITS, "train"), load_images(DIGITS, "holdout")
    assert torch.equal(train.load(7), train.images[7]) and train.skips == ()
    assert train.identity == load_images(DIGITS, "train").identity != holdout.identity
    assert LabeledImages(train.images, train.labels.flip(0)).identity != train.identity


def test_a_folder_of_images_is_not_taken_into_memory():
    with pytest.raises(ValueError, match="'imagenet' does not fit in memory: only digits"):
        load_images(DataConfig(source="imagenet", image_size=8, num_classes=10), "train")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split 'test' is unknown; known: train, holdout"):
        load_images(DIGITS, "test")


@pytest.mark.parametrize(("labels", "message"), [
    ([0, 4, 5, 9], r"here: label 5 of image 2 is outside 0\.\.4 \(2 such labels\)"),
    ([0, -1], r"label -1 of image 1 is outside 0\.\.4"),
    ([[0]], r"labels are torch.int64 \(1, 1\), expected int64 \(N,\)"),
    ([0.0], "labels are torch.float32"),
])
def test_labels_out_of_range_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(torch.tensor(labels), 5, "here")


def test_tokens_in_memory_are_given_out_by_visit():
    tokens, labels = torch.randint(0, 32, (20, 31)), torch.arange(20) % 5
    images = TokensInMemory(tokens, labels, 5)
    for batch, visit in zip(islice(images.batches(visits(3, num_items=20, batch_size=6, seed=1)), 4),
                            visits(3, num_items=20, batch_size=6, seed=1), strict=False):
        assert torch.equal(batch.tokens, tokens[visit.indices]) and torch.equal(batch.labels, labels[visit.indices])
        assert batch.mix is None
    assert images.identity != TokensInMemory(tokens.flip(0), labels, 5).identity
    with pytest.raises(ValueError, match="tokens of 20 images, but 19 labels"):
        TokensInMemory(tokens, labels[:19], 5)
    with pytest.raises(ValueError, match="label 4 of image 4"):
        TokensInMemory(tokens, labels, 4)


@given(num_items=st.integers(1, 60), epoch=st.integers(0, 40), seed=st.integers(0, 9), data=st.data())
def test_successors_go_once_round_all_items_in_the_order_of_visits(num_items, epoch, seed, data):
    everything = torch.arange(num_items)
    after = successors(everything, epoch, num_items=num_items, seed=seed)
    assert torch.equal(after.sort().values, everything)
    walk = [0]
    while (following := int(after[walk[-1]])) != 0:
        walk.append(following)
    assert len(walk) == num_items
    batch_size = data.draw(st.integers(1, num_items))
    batch = batch_indices(epoch * (num_items // batch_size), num_items=num_items, batch_size=batch_size, seed=seed)
    assert torch.equal(after[batch][:-1], batch[1:])
