"""A set of images to score, read a batch at a time, and the reference that it is compared with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from varient.archive import Archive
from varient.evaluation.labels import count_warnings, order_warnings
from varient.files import sha256_of, shown
from varient.npz import SampleError

DIGEST_BYTES = 32
"""Of a SHA-256."""
_BATCH_BYTES = 2 ** 28
_DARK = 16
"""Images with no value above this were probably saved on another scale, 0..1 or 4 bits."""


@dataclass(frozen=True, eq=False)
class ImageSource:
    """A set of square RGB images, read when asked for.

    Attributes:
        kind: archives, folder or adm.
        place: the file or folder, for messages.
        files: all files that hold the images, in their order.
        side: S, in pixels.
        indices: (N,), int64, number of each image within the whole set.
        labels: (N,), int64, or None where the source does not say.
        total: images of the whole set that this is, or is a part of; None if the source does not say.
        origin: JSON-able description that came with the images.
        permutation_seed: the images are stored in the fixed permutation of this seed (`scores.fixed_permutation`);
            None if they are not, or it is unknown.
        remarks: what was unusual about the files.
        labels_guessed: the labels are what names or folders suggest, without a manifest.
        sequential: reading earlier images again starts from the beginning.
        read: (begin, end) -> uint8 (B, 3, S, S).
    """

    kind: Literal["archives", "folder", "adm"]
    place: str
    files: tuple[Path, ...] = field(repr=False)
    side: int
    indices: np.ndarray
    labels: np.ndarray | None
    total: int | None
    read: Callable[[int, int], np.ndarray] = field(repr=False)
    origin: dict = field(default_factory=dict)
    permutation_seed: int | None = None
    remarks: tuple[str, ...] = ()
    sequential: bool = False
    labels_guessed: bool = False

    def __post_init__(self) -> None:
        # Both go into records, which are UTF-8; names of files need not be.
        object.__setattr__(self, "place", shown(self.place))
        object.__setattr__(self, "remarks", tuple(map(shown, self.remarks)))

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, begin: int, end: int) -> np.ndarray:
        """Images begin..end-1 in the order of the source, uint8 (B, 3, S, S); ``end`` may exceed their number.

        Raises:
            SampleError: a file that turns out to be damaged.
        """
        return self.read(begin, min(end, len(self)))

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order, at most ``size`` at once, and fewer of large ones."""
        size = min(size, max(1, _BATCH_BYTES // (3 * self.side ** 2)))
        return (self.batch(begin, begin + size) for begin in range(0, len(self), size))

    def part(self, begin: int, end: int) -> ImageSource:
        """Images begin..end-1 as a source of their own, with their indices within the whole set.

        Raises:
            SampleError: no such images.
        """
        end = min(end, len(self))
        if not 0 <= begin < end:
            raise SampleError(f"{self.place}: no images {begin}..{end - 1} among {len(self)}")
        return replace(self, indices=self.indices[begin:end],
                       labels=None if self.labels is None else self.labels[begin:end],
                       read=lambda first, last: self.read(begin + first, begin + last))

    @cached_property
    def digests(self) -> np.ndarray:
        """SHA-256 of each image's pixels, uint8 (N, 32): one pass over all images."""
        return np.concatenate([digests_of(images) for images in self.batches(64)])

    @property
    def sha256(self) -> str:
        """Hash of the pixels in order; it does not depend on the file format."""
        return content_hash(self.digests)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Properties of files and labels that affect scores; the images are not read."""
        labels = self.labels if self.labels is not None else np.empty(0, np.int64)
        # Archives are permuted before they are scored, and no other evaluator reads them.
        found = [*count_warnings(labels), *(order_warnings(labels) if self.kind != "archives" else ())]
        return self.remarks + tuple(f"{self.place}: {text}" for text in found)

    def describe(self) -> dict:
        """JSON-able: where the images come from."""
        return {"kind": self.kind, "place": self.place, "side": self.side, "total": self.total,
                "permutation_seed": self.permutation_seed, "origin": self.origin}

    def require_complete(self) -> None:
        """Raise unless all images of the set are here.

        Raises:
            SampleError: the first or last shards are missing.
        """
        if self.indices[0] != 0:
            raise SampleError(f"{self.place}: starts at image {self.indices[0]}: a shard is missing")
        if self.total is not None and len(self) != self.total:
            raise SampleError(f"{self.place}: {len(self)} images of {self.total}: a shard is missing")


@dataclass(frozen=True, eq=False)
class Reference:
    """The reference that samples are compared with.

    Attributes:
        place: the file or folder.
        images: the images, or None where the file has statistics alone.
        statistics: mu (D,), sigma (D, D), mu_s, sigma_s as stored; what the file does not hold is absent.
        file: where all of this is in one file.
    """

    place: str
    images: ImageSource | None
    statistics: dict[str, np.ndarray] = field(repr=False)
    file: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", shown(self.place))

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, or of the pixels where there is no single file."""
        if self.file:
            return sha256_of(self.file)
        assert self.images is not None  # statistics lie in a file
        return self.images.sha256


def digests_of(images: np.ndarray) -> np.ndarray:
    """SHA-256 of each image, uint8 (B, DIGEST_BYTES)."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(images), DIGEST_BYTES)


def content_hash(digests: np.ndarray) -> str:
    """Hash of a set of images, from the digests of the images in order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def repeated_images(digests: np.ndarray) -> int:
    """Number of images that are copies of an earlier one."""
    return len(digests) - len(np.unique(digests, axis=0))


def pixel_warnings(source: ImageSource, looked_at: int = 64) -> list[str]:
    """Warnings if the first images seem to be on another scale than 0..255, or are of one colour.

    Raises:
        SampleError: a damaged image.
    """
    images, found = next(source.batches(looked_at)), []
    if (images == images[:, :, :1, :1]).all():
        found.append(f"{source.place}: each of the first {len(images)} images is of one colour")
    if (largest := int(images.max())) < _DARK:
        found.append(f"{source.place}: no colour of the first {len(images)} images is above {largest}, expected is "
                     "0..255: were they saved on another scale, 0..1 say?")
    return found


def source_of(archive: Archive) -> ImageSource:
    """A whole archive in memory as a source."""
    return ImageSource(
        "archives", archive.origin.get("system", "memory"), (), archive.images.shape[2], archive.indices,
        archive.labels, len(archive.indices), lambda begin, end: archive.images[begin:end], archive.origin)
