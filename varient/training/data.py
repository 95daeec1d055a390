"""Training data: images with labels, their order in training, and batches of tokens.

`ImageSource` provides single images: from memory for digits and Fashion-MNIST (`LabeledImages`), or from a folder in
ImageNet's layout (`varient.training.image_folder`).  `TrainingImages` provides tokens and labels to the training of a
transformer.  It has three implementations: `TokensInMemory`, images that are augmented and encoded on the fly
(`varient.training.augmentation.EncodedImages`), and `varient.training.token_cache.TokenCache`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from varient.config import DataConfig, Split
from varient.training.fashion_mnist import read_fashion_mnist

# The seed of the split is fixed and not the experiment's, so that runs with different seeds are comparable.
_SPLIT_SEED = 0


class Skip(NamedTuple):
    """An unreadable image and the image that takes its place; paths are relative to the split's folder."""

    path: str
    replacement: str
    reason: str


class ImageSource(Protocol):
    """Random access to single images in a fixed order."""

    @property
    def labels(self) -> Tensor:
        """Class of each image (N,), int64."""

    @property
    def identity(self) -> str:
        """SHA-256 that identifies these images and their order."""

    @property
    def skips(self) -> tuple[Skip, ...]:
        """Images found unreadable so far, in order of their paths."""

    def __len__(self) -> int:
        """N."""

    def load(self, index: int) -> Tensor:
        """Image ``index`` (3, H, W), uint8 0..255, RGB."""


@dataclass(frozen=True)
class LabeledImages:
    """Images (N, 3, S, S), uint8 0..255, with labels (N,), int64: an `ImageSource` in memory."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, index: int) -> Tensor:
        """Image ``index`` (3, S, S), uint8."""
        return self.images[index]

    @property
    def identity(self) -> str:
        """SHA-256 of shape, pixels and labels."""
        digest = hashlib.sha256(str(tuple(self.images.shape)).encode())
        for tensor in (self.images, self.labels):
            digest.update(tensor.contiguous().numpy())
        return digest.hexdigest()

    @property
    def skips(self) -> tuple[Skip, ...]:
        """Empty: images in memory were read already."""
        return ()


def load_images(data: DataConfig, split: str) -> LabeledImages:
    """The images of one split, all in memory.

    Raises:
        ValueError: the source has no such split, or its images do not fit into memory.
    """
    if not data.in_memory:
        raise ValueError(f"data.source = {data.source!r} does not fit in memory: only digits and fashion-mnist are "
                         "trained on this way")
    if split not in data.splits:
        raise ValueError(f"split {split!r} is unknown; known: {', '.join(data.splits)}")
    grey, labels = _digits(data) if data.source == "digits" else _fashion_mnist(data, split)
    if split != "test":
        chosen = _chosen(data, labels, split)
        grey, labels = grey[chosen], labels[chosen]
    return LabeledImages(grey.unsqueeze(1).repeat(1, 3, 1, 1), labels)


def _digits(data: DataConfig) -> tuple[Tensor, Tensor]:
    """scikit-learn's 1797 handwritten digits, 8 x 8 with 17 grey levels; grey (N, 8, 8), uint8, and labels (N,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return torch.from_numpy(grey), torch.from_numpy(digits.target.astype(np.int64))


def _fashion_mnist(data: DataConfig, split: Split) -> tuple[Tensor, Tensor]:
    """The 60,000 images that are divided into train and holdout, or the 10,000 of the test set."""
    return read_fashion_mnist(data.folder, "t10k" if split == "test" else "train", data.checksums)


def _chosen(data: DataConfig, labels: Tensor, split: Split) -> Tensor:
    """Indices of the images in a split, ascending; ``data.holdout`` images are held out, stratified by class."""
    from sklearn.model_selection import train_test_split

    if not data.holdout < len(labels):  # possible with files that are not the published ones
        raise ValueError(f"data.holdout = {data.holdout} must leave {data.source} on each side, of {len(labels)}")
    train, held_out = train_test_split(np.arange(len(labels)), test_size=data.holdout, stratify=labels.numpy(),
                                       random_state=_SPLIT_SEED)
    return torch.from_numpy(np.sort(train if split == "train" else held_out))


def halves_of(images: LabeledImages, number: int) -> tuple[LabeledImages, LabeledImages]:
    """Two random halves, stratified by class, which depend only on the images and on ``number``, 1, 2, ..."""
    from sklearn.model_selection import train_test_split

    halves = train_test_split(np.arange(len(images)), test_size=0.5, stratify=images.labels.numpy(),
                              random_state=number)
    first, second = (torch.from_numpy(np.sort(half)) for half in halves)
    return (LabeledImages(images.images[first], images.labels[first]),
            LabeledImages(images.images[second], images.labels[second]))


def check_labels(labels: Tensor, num_classes: int, origin: str) -> None:
    """Check that labels (N,) are int64 in 0..num_classes-1; error messages begin with ``origin``.

    Raises:
        ValueError: another dtype or shape, or a label out of range.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"{origin}: labels are {labels.dtype} {tuple(labels.shape)}, expected int64 (N,)")
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(f"{origin}: label {int(labels[first])} of image {first} is outside 0..{num_classes - 1} "
                         f"({len(wrong)} such labels)")


class Visit(NamedTuple):
    """The images of one training step, or of a part of it.

    Attributes:
        epoch: epoch, counted from 0; the augmentation depends on it.
        indices: (B,), int64.
    """

    epoch: int
    indices: Tensor


class Mix(NamedTuple):
    """Mixup of a batch: pixels = weight * first + (1 - weight) * second; class embeddings are mixed in the same way.

    Attributes:
        labels: labels of the second images (B,), int64.
        weight: weights of the first images (B,), float32, 0..1.
    """

    labels: Tensor
    weight: Tensor


class TokenBatch(NamedTuple):
    """Tokens and labels of the images of a visit.

    Attributes:
        tokens: (B, L), int64.
        labels: (B,), int64.
        mix: Mixup of the images, or None.
        inputs: the quantizer's `teacher_input` (B, L - tokens of scale 1, v) if it is cached, else None.
    """

    tokens: Tensor
    labels: Tensor
    mix: Mix | None = None
    inputs: Tensor | None = None


class TrainingImages(Protocol):
    """The training images as tokens; a batch depends only on its visit."""

    @property
    def labels(self) -> Tensor:
        """Class of each image (N,), int64, checked against ``num_classes``."""

    @property
    def num_classes(self) -> int:
        """Labels are 0..num_classes-1."""

    @property
    def identity(self) -> str:
        """SHA-256 of the images and their preprocessing; part of the identity of a training."""

    def __len__(self) -> int:
        """Number of images."""

    def batches(self, visits: Iterable[Visit]) -> Iterator[TokenBatch]:
        """A batch for each visit, in order; ``visits`` may be infinite and is read ahead."""


class TokensInMemory:
    """`TrainingImages` that were encoded once: tokens (N, L), int64, with labels (N,), int64.

    Args:
        inputs: inputs of the transformer (N, L - tokens of scale 1, v), returned with the tokens.

    Raises:
        ValueError: the numbers of labels and tokens differ, or a label is out of range.
    """

    def __init__(self, tokens: Tensor, labels: Tensor, num_classes: int, inputs: Tensor | None = None) -> None:
        check_labels(labels, num_classes, "tokens in memory")
        if len(tokens) != len(labels):
            raise ValueError(f"tokens of {len(tokens)} images, but {len(labels)} labels")
        self.tokens, self.labels, self.num_classes, self.inputs = tokens, labels, num_classes, inputs

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> str:
        """SHA-256 of shape, tokens and labels."""
        digest = hashlib.sha256(str(tuple(self.tokens.shape)).encode())
        for tensor in (self.tokens, self.labels):
            digest.update(tensor.cpu().contiguous().numpy())
        return digest.hexdigest()

    def batches(self, visits: Iterable[Visit]) -> Iterator[TokenBatch]:
        """A batch for each visit."""
        for visit in visits:
            inputs = None if self.inputs is None else self.inputs[visit.indices]
            yield TokenBatch(self.tokens[visit.indices], self.labels[visit.indices], inputs=inputs)


def batch_indices(step: int, *, num_items: int, batch_size: int, seed: int) -> Tensor:
    """Item indices (B,) of a training step: a new permutation in each epoch, without the incomplete last batch.

    A pure function of its arguments, so that a resumed run uses the same batches as an uninterrupted one.

    Raises:
        ValueError: there are fewer items than a batch needs.
    """
    steps_per_epoch = num_items // batch_size
    if steps_per_epoch == 0:
        raise ValueError(f"batch_size = {batch_size} is above the number of images, {num_items}")
    epoch, position = divmod(step, steps_per_epoch)
    order = _epoch_order(num_items, seed, epoch)
    return order[position * batch_size:(position + 1) * batch_size]


def successors(indices: Tensor, epoch: int, *, num_items: int, seed: int) -> Tensor:
    """For each item (B,), the next one (B,) in the epoch's order of `batch_indices`; the last is followed by the first.

    Within a batch, the successors of all items but the last are in the same batch.
    """
    order = _epoch_order(num_items, seed, epoch)
    return order[(_epoch_positions(num_items, seed, epoch)[indices] + 1) % num_items]


@lru_cache(maxsize=2)
def _epoch_order(num_items: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_items))


@lru_cache(maxsize=2)
def _epoch_positions(num_items: int, seed: int, epoch: int) -> Tensor:
    """Position of each item in the order of an epoch."""
    positions = torch.empty(num_items, dtype=torch.int64)
    positions[_epoch_order(num_items, seed, epoch)] = torch.arange(num_items)
    return positions
