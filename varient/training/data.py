"""Images to learn from, as one uint8 tensor with labels, and the order in which training visits them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from varient.config import DataConfig

Split = Literal["train", "holdout"]

# The split belongs to the data set, not to the experiment: runs with other seeds stay comparable.
_DIGITS_SPLIT_SEED = 0


@dataclass(frozen=True)
class LabeledImages:
    """Images (N, 3, S, S), uint8 0..255, with labels (N,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def load_images(data: DataConfig, split: Split) -> LabeledImages:
    """The images of one split.

    Raises:
        ValueError: the source has no such images.
    """
    if split not in get_args(Split):
        raise ValueError(f"split {split!r} is unknown; known: {', '.join(get_args(Split))}")
    if data.source != "digits":
        raise ValueError(f"data.source = {data.source!r}: training reads digits only so far")
    return _load_digits(data, split)


def _load_digits(data: DataConfig, split: Split) -> LabeledImages:
    """scikit-learn's 1797 handwritten digits, 8 x 8 with 17 grey levels, as three equal channels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    if data.image_size != 8 or data.num_classes != 10:
        raise ValueError(f"digits are 8 x 8 in 10 classes; data says image_size = {data.image_size}, "
                         f"num_classes = {data.num_classes}")
    if not 0 < data.holdout < len(digits.target):
        raise ValueError(f"data.holdout = {data.holdout} must leave digits on each side, of {len(digits.target)}")
    train, holdout = train_test_split(np.arange(len(digits.target)), test_size=data.holdout,
                                      stratify=digits.target, random_state=_DIGITS_SPLIT_SEED)
    chosen = np.sort(train if split == "train" else holdout)
    grey = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(grey).unsqueeze(1).repeat(1, 3, 1, 1)
    return LabeledImages(images, torch.from_numpy(digits.target[chosen].astype(np.int64)))


def batch_indices(step: int, *, num_items: int, batch_size: int, seed: int) -> Tensor:
    """Items of training step ``step`` (B,): each epoch a new permutation, the incomplete last batch left out.

    A pure function of its arguments, so a resumed run visits what an unbroken one would have.

    Raises:
        ValueError: fewer items than a batch.
    """
    steps_per_epoch = num_items // batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"batch_size = {batch_size} is above the {num_items} images there are")
    epoch, position = divmod(step, steps_per_epoch)
    order = _epoch_order(num_items, seed, epoch)
    return order[position * batch_size:(position + 1) * batch_size]


@lru_cache(maxsize=2)
def _epoch_order(num_items: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_items))
