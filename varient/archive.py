"""Sample archives: the images of one shard with labels, indices and provenance ("origin"), in one .npz file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from varient.files import atomic_path
from varient.image_tree import MOST_SIDE
from varient.npz import SampleError, StoredArray, json_value, member_names, npz_array, small_array
from varient.yaml_file import shortened

ARRAYS = frozenset(("images", "labels", "indices", "origin"))


class ArchiveError(SampleError):
    """An archive is missing, damaged or from another run than the others; the message names the file."""


@dataclass(frozen=True)
class Archive:
    """Images of one system, ordered by index.

    Attributes:
        images: (N, 3, S, S), uint8.
        labels: (N,), int64, the class each image was asked for.
        indices: (N,), int64, ascending; an image is a function of (experiment seed, index).
        origin: JSON-able description: system, experiment, seed, settings digest, weights, versions, device.  No time
            stamp: generating a shard again on the same device gives the same bytes.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    origin: dict


class Shard(NamedTuple):
    """A sample archive on disk; its images are read lazily."""

    path: Path
    images: StoredArray
    labels: np.ndarray
    indices: np.ndarray
    origin: dict


def write_archive(path: Path, archive: Archive) -> None:
    """Write an archive atomically, uncompressed.

    Raises:
        ValueError: the numbers of images, labels and indices differ.
    """
    if len(archive.images) != len(archive.labels) or len(archive.images) != len(archive.indices):
        raise ValueError("an archive needs as many labels and indices as images")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=archive.images, labels=archive.labels, indices=archive.indices,
                 origin=np.array(json.dumps(archive.origin, sort_keys=True)))


def read_archive(path: Path) -> Archive:
    """Read one shard with all its images.

    Raises:
        ArchiveError: as `open_shard`.
    """
    shard = open_shard(path)
    return Archive(np.array(shard.images[:]), *shard[2:])


def open_shard(path: Path) -> Shard:
    """Open a shard: labels, indices and origin are read, images later.

    Raises:
        ArchiveError: the file is missing, truncated or not a sample archive, or its arrays have different lengths.
    """
    if not path.exists():
        raise ArchiveError(f"{path}: no such sample archive")
    try:
        if missing := ARRAYS - member_names(path):
            raise ArchiveError(f"{path}: not a sample archive, it has no array {', '.join(sorted(missing))}")
        images = npz_array(path, "images")
        labels, indices = (whole_numbers(path, name, small_array(path, name)) for name in ("labels", "indices"))
        origin = check_origin(path, json_value(path, "origin"))
    except ArchiveError:
        raise
    except SampleError as error:
        raise ArchiveError(f"{error}; if it was generated, delete it and generate the shard again") from None
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape \
            or shape[2] > MOST_SIDE:
        raise ArchiveError(f"{path}: images are {images.dtype} {shape}, expected uint8 (N, 3, S, S) with S up to "
                           f"{MOST_SIDE}")
    if not shape[0] == len(labels) == len(indices):
        raise ArchiveError(f"{path}: {shape[0]} images, {len(labels)} labels, {len(indices)} indices")
    return Shard(path, images, labels, indices, origin)


def whole_numbers(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Labels or indices read from a file, as int64 (N,).

    Raises:
        SampleError: not a one-dimensional array of non-negative integers; floats are not rounded.
    """
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SampleError(f"{path}: {name} are {array.dtype} {array.shape}, expected integers (N,)")
    if len(array) and not 0 <= int(array.min()) <= int(array.max()) < 2 ** 63:
        raise SampleError(f"{path}: {name} are {array.min()} to {array.max()}, expected no negative ones")
    return array.astype(np.int64)


class _Sampling(BaseModel):
    """The fields of an origin's sampling settings that are used."""

    model_config = ConfigDict(extra="allow", strict=True)

    num_images: Annotated[int, Field(ge=1, lt=2 ** 63)] | None = None


class _Origin(BaseModel):
    """The fields of an origin that are copied into records; other fields are allowed and not checked."""

    model_config = ConfigDict(extra="allow", strict=True, str_max_length=10_000)

    system: str | None = None
    experiment: str = "none"
    seed: Annotated[int, Field(gt=-2 ** 63, lt=2 ** 63)] | None = None
    settings: str = "none"
    weights_sha256: dict[str, str] = {}
    imported_sha256: dict[str, str] = {}
    device: str | None = None
    sampling: _Sampling = _Sampling()


def check_origin(path: Path, origin: Any) -> dict:
    """Validate the origin of a file, so that its fields can be copied into records.

    Raises:
        SampleError: a field has the wrong type, or text that is not valid Unicode.
    """
    try:
        _Origin.model_validate(origin)
        json.dumps(origin, ensure_ascii=False).encode()  # a lone surrogate cannot be written as UTF-8
    except ValidationError as error:
        first = error.errors()[0]
        key = shortened(".".join(map(str, first["loc"])) or type(origin).__name__)[1:-1]
        raise SampleError(f"{path}: its origin is damaged ({key}: {first['msg']})") from None
    except (UnicodeEncodeError, RecursionError) as error:
        raise SampleError(f"{path}: its origin is damaged ({shortened(str(error))})") from None
    return origin
