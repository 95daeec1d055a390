"""Sample archives: the images of one shard with labels, indices and where they came from, as one .npz file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from varient.files import atomic_path

_ARRAYS = ("images", "labels", "indices", "origin")


class ArchiveError(ValueError):
    """An archive that is missing, damaged or does not belong with the others; the message names the file."""


@dataclass(frozen=True)
class Archive:
    """Images of one system, ordered by index.

    Attributes:
        images: (N, 3, S, S), uint8.
        labels: (N,), int64, the class each image was asked for.
        indices: (N,), int64, ascending; an image is a function of (experiment seed, index).
        origin: JSON-able description: system, experiment, seed, settings digest, weights, versions.  No time stamp:
            generating a shard again gives the same bytes.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    origin: dict


def write_archive(path: Path, archive: Archive) -> None:
    """Write atomically, uncompressed."""
    if len(archive.images) != len(archive.labels) or len(archive.images) != len(archive.indices):
        raise ValueError("an archive needs as many labels and indices as images")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=archive.images, labels=archive.labels, indices=archive.indices,
                 origin=np.array(json.dumps(archive.origin, sort_keys=True)))


def read_archive(path: Path) -> Archive:
    """Read one shard.

    Raises:
        ArchiveError: no such file, a truncated or foreign file, or arrays that do not fit each other.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels, indices, origin = (file[name] for name in _ARRAYS)
    except FileNotFoundError:
        raise ArchiveError(f"{path}: no such sample archive") from None
    except KeyError as error:
        raise ArchiveError(f"{path}: not a sample archive, it has no array {error}") from None
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        raise ArchiveError(f"{path}: truncated or damaged ({error}); delete it and generate the shard again") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise ArchiveError(f"{path}: images are {images.dtype} {images.shape}, expected uint8 (N, 3, S, S)")
    if not len(images) == len(labels) == len(indices):
        raise ArchiveError(f"{path}: {len(images)} images, {len(labels)} labels, {len(indices)} indices")
    return Archive(images, labels, indices, json.loads(str(origin)))


def read_archives(paths: Sequence[Path]) -> Archive:
    """Read and merge shards; the result does not depend on their order.

    Raises:
        ArchiveError: as `read_archive`, or shards of different origin, or indices that overlap or leave gaps.
    """
    shards = sorted(((read_archive(path), path) for path in paths), key=lambda shard: int(shard[0].indices[0]))
    first, first_path = shards[0]
    expected = 0
    for archive, path in shards:
        if archive.origin != first.origin:
            differing = sorted(key for key in archive.origin | first.origin
                               if archive.origin.get(key) != first.origin.get(key))
            raise ArchiveError(f"{path} and {first_path} differ in {', '.join(differing)}: not shards of one run")
        if archive.indices[0] != expected or (np.diff(archive.indices) != 1).any():
            raise ArchiveError(f"{path}: starts at index {archive.indices[0]}, expected {expected} "
                               "(a shard is missing, doubled or out of order)")
        expected = int(archive.indices[-1]) + 1
    merged = (np.concatenate([getattr(archive, name) for archive, _ in shards]) for name in _ARRAYS[:3])
    return Archive(*merged, origin=first.origin)
