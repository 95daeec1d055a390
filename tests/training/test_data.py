import pytest
import torch

from varient.config import DataConfig
from varient.training.data import load_images

DIGITS = DataConfig(source="digits", image_size=8, num_classes=10, holdout=360)


def test_digits_are_split_without_overlap_and_with_equal_class_shares():
    train, holdout = load_images(DIGITS, "train"), load_images(DIGITS, "holdout")
    assert (len(train), len(holdout)) == (1437, 360)
    assert train.images.dtype == torch.uint8 and train.images.shape == (1437, 3, 8, 8)
    assert (train.images[:, 0] == train.images[:, 2]).all()
    assert train.images.max() == 255 and train.images.min() == 0
    counts = torch.bincount(holdout.labels)
    assert counts.min() >= 34 and counts.max() <= 38


@pytest.mark.parametrize(("change", "message"), [
    ({"image_size": 16}, "digits are 8 x 8"),
    ({"num_classes": 5}, "digits are 8 x 8 in 10 classes"),
    ({"holdout": 0}, "holdout = 0 must leave digits on each side"),
    ({"source": "imagenet"}, "training reads digits only"),
])
def test_settings_that_the_images_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        load_images(DIGITS.model_copy(update=change), "train")


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split 'test' is unknown; known: train, holdout"):
        load_images(DIGITS, "test")
