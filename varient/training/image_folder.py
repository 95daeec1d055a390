"""Images in ImageNet's layout, ``<root>/<split>/<class>/<image>``, read one by one in a fixed order.

`varient.image_tree` defines which entries are classes and images, and how classes are numbered.  Listing 1.28 million
files takes minutes on a network disk, so the listing is cached in an index file.  The index is valid as long as the
modification times of all folders are unchanged; a file that was overwritten is detected by its size when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2.functional import pil_to_tensor

from varient.bit_depth import bits_a_channel
from varient.files import atomic_path
from varient.image_tree import (
    ImageTreeError,
    class_numbers,
    is_hidden,
    is_image,
    read_tree,
    require_classes,
    some,
    torchvision_differs,
)
from varient.npz import json_value, small_array
from varient.training.data import Skip

log = logging.getLogger(__name__)

FolderSplit = Literal["train", "val"]

# File systems store times with a resolution of up to two seconds: a folder that was modified less than that before it
# was listed may be modified again without a change of its time.
_SETTLED_NS = 2_000_000_000
_UNSETTLED = -1

_MOST_PIXELS = 89_478_485
"""Above this number PIL warns of files of a few bytes that unpack to very many; ImageNet's largest has 61 million."""


class ImageFolderError(ValueError):
    """A folder does not match the config, or an image cannot be read; the message names it."""


class ImageFolder:
    """`ImageSource` for one split of an image folder.

    Attributes:
        classes: names of the class folders, in the order of the labels.
        left_out: a sentence for each kind of skipped entries (hidden ones, files without an image suffix), with their
            number and the first of them, relative to the split's folder.
    """

    def __init__(self, root: Path, split: FolderSplit, *, num_classes: int, index: Path,
                 skip_log: Path | None = None) -> None:
        """Read the index file, or list the folder and write it.

        Args:
            num_classes: number of classes that the folder must have.
            index: path of the index file, outside the image folder, which may be read-only.
            skip_log: None: an unreadable image is an error.  A path: the next readable image of its class (cyclically)
                replaces it, and both are appended to this file, one JSON object per line.  Processes may share the
                file.

        Raises:
            ImageFolderError: the folder is missing, has another number of classes, an empty class folder, classes named
                by numbers other than 0..C-1, other classes than the train split, unsupported image formats, or broken
                or cyclic links.
        """
        self._folder, self._index_path, self._skip_log = root / split, index, skip_log
        listing = _read_index(index)
        try:
            if listing is None or not listing.is_current(self._folder):
                listing = _list_folder(self._folder)
                _check_classes(listing, self._folder, num_classes)
                _write_index(index, listing)
            _check_classes(listing, self._folder, num_classes)
        except ImageTreeError as error:
            raise ImageFolderError(str(error)) from None
        _say_what_is_odd(listing, self._folder)
        self._listing = listing
        self.classes, self.left_out = listing.classes, listing.left_out

    def __len__(self) -> int:
        return len(self._listing.sizes)

    @cached_property
    def labels(self) -> Tensor:
        """Class of each image (N,), int64."""
        return torch.from_numpy(np.repeat(np.arange(len(self.classes)), np.diff(self._listing.class_ends, prepend=0)))

    @property
    def identity(self) -> str:
        """SHA-256 over names of classes and images and file sizes; it does not depend on the folder's location."""
        return self._listing.digest

    @property
    def skips(self) -> tuple[Skip, ...]:
        """Images of this folder that were unreadable so far in any process that shares the log."""
        if self._skip_log is None or not self._skip_log.exists():
            return ()
        with self._skip_log.open(encoding="utf-8", errors="replace") as file:
            return tuple(sorted(self._logged(file)))

    def path(self, index: int) -> Path:
        """File of image ``index``.

        Raises:
            IndexError: no such image.
        """
        return self._folder / self._listing.name(index)

    def load(self, index: int) -> Tensor:
        """Image ``index`` (3, H, W), uint8, RGB.

        Grey, palette and CMYK images are converted by PIL, alpha is dropped and EXIF orientation is ignored, as in VAR.

        Raises:
            IndexError: no such image.
            ImageFolderError: the file is missing or its size differs from the index; or it is unreadable, truncated or
                has more than 8 bits per channel, and there is no ``skip_log`` or no readable image in its class.
        """
        try:
            return self._read(index)
        except _Undecodable as error:
            if self._skip_log is None:
                raise ImageFolderError(f"{self.path(index)}: unreadable ({error}); repair it, remove it, or set "
                                       "data.unreadable: skip") from None
            skip_log, reason = self._skip_log, str(error)
        for other in self._others_of_class(index):
            try:
                image = self._read(other)
            except _Undecodable:
                continue
            self._record(Skip(self._listing.name(index), self._listing.name(other), reason), skip_log)
            return image
        raise ImageFolderError(f"{self.path(index).parent}: no image of this class is readable")

    def _read(self, index: int) -> Tensor:
        path = self.path(index)
        try:
            data = path.read_bytes()
        except OSError as error:  # a failing disk is not a defect of the image, so the image is not skipped
            raise ImageFolderError(f"{path}: could not be read ({error.strerror or error})") from None
        if len(data) != self._listing.sizes[index]:
            raise ImageFolderError(f"{path} has {len(data)} bytes, {self._listing.sizes[index]} when it was listed: "
                                   f"the folder changed; delete {self._index_path} to list it again")
        return _decode(data)

    def _others_of_class(self, index: int) -> Iterator[int]:
        label = int(np.searchsorted(self._listing.class_ends, index, side="right"))
        first = int(self._listing.class_ends[label - 1]) if label else 0
        end = int(self._listing.class_ends[label])
        yield from range(index + 1, end)
        yield from range(first, index)

    def _record(self, skip: Skip, skip_log: Path) -> None:
        skip_log.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(skip_log.with_name(f".{skip_log.name}.lock")), skip_log.open(
                "a+", encoding="utf-8", errors="replace") as file:
            file.seek(0)
            lines = file.readlines()
            if skip not in self._logged(lines):
                begin = "\n" if lines and not lines[-1].endswith("\n") else ""  # a killed process left half a line
                file.write(begin + json.dumps({**skip._asdict(), "images": self.identity}) + "\n")
                log.warning("%s: unreadable (%s); %s takes its place (noted in %s)", self._folder / skip.path,
                            skip.reason, skip.replacement, skip_log)

    def _logged(self, lines: Iterable[str]) -> set[Skip]:
        """The skips of these images in a log; lines that are not whole are left aside."""
        found = set()
        for line in lines:
            try:
                entry = _LoggedSkip.model_validate_json(line)
            except ValidationError:
                continue
            if entry.images == self.identity:
                found.add(Skip(entry.path, entry.replacement, entry.reason))
        return found


class _LoggedSkip(BaseModel):
    """A line of the log of skips."""

    model_config = ConfigDict(strict=True)

    path: str
    replacement: str
    reason: str
    images: str


class _Undecodable(Exception):
    """The bytes are not an image that can be used."""


def _decode(data: bytes) -> Tensor:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise _Undecodable(f"{image.width} x {image.height} pixels, more than {_MOST_PIXELS:,}")
            if (bits := bits_a_channel(image)) > 8:  # PIL would clip 16 bits to 8, which changes the image
                raise _Undecodable(f"mode {image.mode}: more than 8 bits a channel, namely {bits}")
            return pil_to_tensor(image.convert("RGB"))
    except (_Undecodable, MemoryError):
        raise
    except Exception as error:  # decoders raise many types for damaged bytes (SyntaxError, struct.error, ...)
        # PIL's message contains the address of the buffer, which would make the logs of two runs differ.
        reason = "no image format that PIL knows" if isinstance(error, UnidentifiedImageError) else str(error)
        raise _Undecodable(reason) from None


@dataclass(frozen=True, eq=False)
class _Listing:
    """Classes, images and folders of a split.

    Names are stored as one array of bytes instead of a million strings, so that forked workers share it without
    copying.

    Attributes:
        names: concatenated names of the images, relative to the split's folder, uint8.
        name_ends: (N,), int64, end of each name in ``names``.
        sizes: file sizes in bytes (N,), int64.
        class_ends: (C,), int64, number of images up to and including each class.
        folders: each folder, relative to the split's folder -> its modification time in ns, or `_UNSETTLED`.
    """

    classes: tuple[str, ...]
    left_out: tuple[str, ...]
    folders: dict[str, int]
    names: np.ndarray
    name_ends: np.ndarray
    sizes: np.ndarray
    class_ends: np.ndarray

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for array in (self.names, self.name_ends, self.sizes, self.class_ends):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def name(self, index: int) -> str:
        if not 0 <= index < len(self.name_ends):
            raise IndexError(f"image {index} is outside 0..{len(self.name_ends) - 1}")
        start = self.name_ends[index - 1] if index else 0
        return os.fsdecode(self.names[start:self.name_ends[index]].tobytes())

    def is_current(self, folder: Path) -> bool:
        try:
            return all((folder / name).stat().st_mtime_ns == changed for name, changed in self.folders.items())
        except OSError:
            return False


def _list_folder(folder: Path) -> _Listing:
    """List a split with the sizes of its images, classes in order of their numbers.

    Raises:
        ImageTreeError: see `read_tree` and `class_numbers`.
        ImageFolderError: images of a format that is not read.
    """
    now_ns = time.time_ns()
    images: dict[str, list[tuple[bytes, int]]] = {}
    ignored: list[str] = []
    foreign: list[str] = []
    folders: dict[str, int] = {}
    for part in read_tree(folder, sized=True):
        folders[part.name] = part.changed_ns
        ignored += part.inside(part.hidden)
        if part.name == ".":
            images = {name: [] for name in class_numbers(part.folders)}
            ignored += part.files
            continue
        of_class = images[Path(part.name).parts[0]]
        for name, size in zip(part.inside(part.files), part.sizes, strict=True):
            if is_image(name, IMG_EXTENSIONS):
                of_class.append((os.fsencode(name), size))
            else:
                (foreign if is_image(name) else ignored).append(name)
    if foreign:
        raise ImageFolderError(f"{folder}: {len(foreign)} images are of formats that are not read: {some(foreign)}; "
                               f"convert or remove them (read are {' '.join(IMG_EXTENSIONS)})")
    settled = {name: changed if changed < now_ns - _SETTLED_NS else _UNSETTLED for name, changed in folders.items()}
    names = [name for of_class in images.values() for name, _ in of_class]
    name_ends = np.cumsum(np.fromiter(map(len, names), np.int64, len(names)), dtype=np.int64)
    return _Listing(classes=tuple(images), left_out=_left_out(ignored), folders=settled,
                    names=np.frombuffer(b"".join(names), dtype=np.uint8), name_ends=name_ends,
                    sizes=np.array([size for of_class in images.values() for _, size in of_class], dtype=np.int64),
                    class_ends=np.cumsum([len(of_class) for of_class in images.values()], dtype=np.int64))


def _check_classes(listing: _Listing, folder: Path, num_classes: int) -> None:
    counts = np.diff(listing.class_ends, prepend=0)
    require_classes(folder, listing.classes, num_classes, empty=[
        name for name, images in zip(listing.classes, counts, strict=True) if not images])


def _left_out(ignored: Iterable[str]) -> tuple[str, ...]:
    """See `ImageFolder`; without all the names, which may be as many as the images (macOS adds one for each)."""
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(ignored):
        kinds[is_hidden(os.path.basename(name))].append(name)
    return tuple(f"{len(names)} entries {reason} and were left out: {some(names)}"
                 for names, reason in ((kinds[True], "are hidden"), (kinds[False], "are no images by their names"))
                 if names)


def _say_what_is_odd(listing: _Listing, folder: Path) -> None:
    for sentence in listing.left_out:
        log.warning("%s: %s", folder, sentence)
    if torchvision_differs(class_numbers(listing.classes)):
        log.warning("%s: class folders are numbered by their names as numbers; torchvision would sort these as "
                    "text and number the classes otherwise", folder)


_ARRAYS = {"names": np.uint8, "name_ends": np.int64, "sizes": np.int64, "class_ends": np.int64}


_RULE = 2
"""Version of the listing rules; an index made by other rules is rebuilt."""


def _write_index(path: Path, listing: _Listing) -> None:
    described = {"rule": _RULE, "classes": listing.classes, "left_out": listing.left_out, "folders": listing.folders,
                 "digest": listing.digest}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, described=np.array(json.dumps(described)),
                 **{name: getattr(listing, name) for name in _ARRAYS})


def _read_index(path: Path) -> _Listing | None:
    """The listing in an index file, or None if it is missing, damaged or was made by other rules."""
    try:
        described = json_value(path, "described")
        if described.pop("rule") != _RULE:
            return None
        digest = described.pop("digest")
        listing = _Listing(classes=tuple(described["classes"]), left_out=tuple(described["left_out"]),
                           folders=described["folders"], **{name: small_array(path, name) for name in _ARRAYS})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    if any((getattr(listing, name).dtype, getattr(listing, name).ndim) != (kind, 1) for name, kind in _ARRAYS.items()):
        return None
    return listing if listing.digest == digest else None
