"""What networks learn from, whatever its size: images with labels, the order of visits, and batches of tokens.

`ImageSource` is where images come from one by one: memory, for digits and Fashion-MNIST (`LabeledImages`), or a folder
of ImageNet's layout (`varient.training.image_folder`).  `TrainingImages` is what a trainer of transformers reads:
tokens and labels of the images it visits.  Three things are that: `TokensInMemory`, pixels that are augmented and
encoded on the fly (`varient.training.augmentation.EncodedImages`) and a `varient.training.token_cache.TokenCache`.
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

# The split belongs to the data set, not to the experiment: runs with other seeds stay comparable.
_SPLIT_SEED = 0


class Skip(NamedTuple):
    """An unreadable image and the image that takes its place; paths are relative to the split's folder."""

    path: str
    replacement: str
    reason: str


class ImageSource(Protocol):
    """Images one by one, in an order that never changes."""

    @property
    def labels(self) -> Tensor:
        """Class of each image (N,), int64."""

    @property
    def identity(self) -> str:
        """SHA-256 that tells these images, in this order, from others."""

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
        """None: what is in memory has been read."""
        return ()


def load_images(data: DataConfig, split: str) -> LabeledImages:
    """The images of one split, all in memory.

    Raises:
        ValueError: the source has no such images, or too many for memory.
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
    """The 60,000 images that are divided, or the 10,000 of the test set."""
    return read_fashion_mnist(data.folder, "t10k" if split == "test" else "train", data.checksums)


def _chosen(data: DataConfig, labels: Tensor, split: Split) -> Tensor:
    """Which images are of a split, in their order; ``data.holdout`` are held out, with the same class shares."""
    from sklearn.model_selection import train_test_split

    if not data.holdout < len(labels):  # of files that are not the published ones
        raise ValueError(f"data.holdout = {data.holdout} must leave {data.source} on each side, of {len(labels)}")
    train, held_out = train_test_split(np.arange(len(labels)), test_size=data.holdout, stratify=labels.numpy(),
                                       random_state=_SPLIT_SEED)
    return torch.from_numpy(np.sort(train if split == "train" else held_out))


def check_labels(labels: Tensor, num_classes: int, origin: str) -> None:
    """Hold labels (N,) to int64 in 0..num_classes-1; ``origin`` opens the message.

    Raises:
        ValueError: another type or shape, or the first label that is out of range.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise ValueError(f"{origin}: labels are {labels.dtype} {tuple(labels.shape)}, expected int64 (N,)")
    wrong = ((labels < 0) | (labels >= num_classes)).nonzero().flatten()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(f"{origin}: label {int(labels[first])} of image {first} is outside 0..{num_classes - 1} "
                         f"({len(wrong)} such labels)")


class Visit(NamedTuple):
    """The images of one training step.

    Attributes:
        epoch: passes over the data before this one; augmentation differs from epoch to epoch.
        indices: (B,), int64.
    """

    epoch: int
    indices: Tensor


class Mix(NamedTuple):
    """How images were mixed: pixels = weight * first + (1 - weight) * second; class embeddings must follow.

    Attributes:
        labels: of the second images (B,), int64.
        weight: of the first images (B,), float32, 0..1.
    """

    labels: Tensor
    weight: Tensor


class TokenBatch(NamedTuple):
    """What is known of the images of a visit.

    Attributes:
        tokens: (B, L), int64.
        labels: (B,), int64.
        mix: None where no images are mixed.
        inputs: the quantizer's `teacher_input` (B, L - tokens of scale 1, v), where it was kept.
    """

    tokens: Tensor
    labels: Tensor
    mix: Mix | None = None
    inputs: Tensor | None = None


class TrainingImages(Protocol):
    """The images of a training as tokens; what a batch holds depends on its visit alone."""

    @property
    def labels(self) -> Tensor:
        """Class of each image (N,), int64, checked against ``num_classes``."""

    @property
    def num_classes(self) -> int:
        """Labels are 0..num_classes-1."""

    @property
    def identity(self) -> str:
        """SHA-256 of the images and all that is done to them before the trainer sees them; part of a run's own."""

    def __len__(self) -> int:
        """Images of an epoch."""

    def batches(self, visits: Iterable[Visit]) -> Iterator[TokenBatch]:
        """A batch for each visit, in order; ``visits`` may be endless and is read ahead."""


class TokensInMemory:
    """Tokens (N, L), int64, with labels (N,), int64: `TrainingImages` that were encoded once.

    Args:
        inputs: of the transformer (N, L - tokens of scale 1, v), to be given out with the tokens.

    Raises:
        ValueError: not as many labels as tokens, or a label out of range.
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


def successors(indices: Tensor, epoch: int, *, num_items: int, seed: int) -> Tensor:
    """For each item (B,) the one that `batch_indices` visits after it in that epoch (B,), the first after the last.

    All but the last of a batch have theirs in the same batch.
    """
    order = _epoch_order(num_items, seed, epoch)
    return order[(_epoch_positions(num_items, seed, epoch)[indices] + 1) % num_items]


@lru_cache(maxsize=2)
def _epoch_order(num_items: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(num_items))


@lru_cache(maxsize=2)
def _epoch_positions(num_items: int, seed: int, epoch: int) -> Tensor:
    """Where each item stands in the order of an epoch."""
    positions = torch.empty(num_items, dtype=torch.int64)
    positions[_epoch_order(num_items, seed, epoch)] = torch.arange(num_items)
    return positions
