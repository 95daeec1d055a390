"""Folders of images: which files are images, and how class folders are numbered.

The same rules hold wherever images or shards are read from folders: scoring, export, training, the token cache, and
the workflow's check before the first job.

- Links to files and folders are followed.  A broken link is an error, and so is a folder that is reached twice (for
  example by a link to a parent folder), because its images would count twice.  Device and inode identify a folder.
- Hidden entries (`is_hidden`) are skipped with everything in them, and reported.
- The suffix of a file decides whether it is an image (`IMAGE_SUFFIXES`).  A reader that supports only some of these
  formats raises an error for the others, so that no image is skipped silently.
- A folder that cannot be listed is an error.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

IMAGE_SUFFIXES = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".jxl", ".avif", ".heic", ".heif", ".tga", ".exr", ".psd", ".qoi")
"""Suffixes of image files, in lower case."""

MOST_SIDE = 2 ** 12
"""Largest side in pixels of images to generate or to score; larger ones are refused before memory is allocated."""

_SYSTEM_NAMES = ("__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information", "thumbs.db",
                 "desktop.ini")
"""Names of files and folders that operating systems create, in lower case; they are skipped like hidden ones."""

_THREADS = 16  # listing is bound by disk latency, above all on a network disk
_DECIMAL = re.compile(r"[0-9]{1,18}")  # fits into int64; str.isdecimal would accept digits of all scripts
_WORDNET_ID = re.compile(r"n[0-9]{8}")
_SHOWN = 6


class ImageTreeError(ValueError):
    """A folder of images cannot be read; the message is one line that names the entry."""


class Folder(NamedTuple):
    """The entries of one folder, without those of its subfolders.

    Attributes:
        name: relative to the root; "." for the root itself.
        identity: device and inode.
        changed_ns: modification time in ns: when an entry was last added, removed or renamed.
        files, folders, hidden: names of the entries, sorted.
        sizes: sizes of the files in bytes; empty unless requested.
    """

    name: str
    identity: tuple[int, int]
    changed_ns: int
    files: tuple[str, ...]
    folders: tuple[str, ...]
    hidden: tuple[str, ...]
    sizes: tuple[int, ...] = ()

    def inside(self, names: Iterable[str]) -> list[str]:
        """Names of entries, relative to the root."""
        prefix = "" if self.name == "." else f"{self.name}/"
        return [prefix + name for name in names]


def is_hidden(name: str) -> bool:
    """Whether an entry is skipped because its name begins with a dot or is one of `_SYSTEM_NAMES`."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_image(name: str, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> bool:
    """Whether the suffix of a file is one of ``suffixes``."""
    return name.lower().endswith(suffixes)


def some(names: Sequence[str]) -> str:
    """The first few of several names as text, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read_tree(root: Path, *, sized: bool = False) -> Iterator[Folder]:
    """Yield the root and all folders below it that are not hidden.

    The root's subfolders come in order of their names, and the folders within each in order of their paths, as in
    torchvision.

    Args:
        sized: also look up the sizes of the files.

    Raises:
        ImageTreeError: a folder is missing or cannot be listed; a broken link; an entry that is neither file nor
            folder; a folder that is reached twice.
    """
    top = read_folder(root, sized=sized)
    yield top
    found = {top.identity: top.name}
    with ThreadPoolExecutor(_THREADS) as pool:
        for folders in pool.map(lambda name: _read_below(root, name, top, sized), top.folders):
            for folder in folders:
                _note(root, found, folder)
                yield folder


def read_folder(root: Path, name: str = ".", *, sized: bool = False) -> Folder:
    """One folder of a tree.

    Raises:
        ImageTreeError: see `read_tree`.
    """
    kinds: dict[str, list[str]] = {"file": [], "folder": [], "hidden": []}
    bytes_of: dict[str, int] = {}
    place = root / name
    try:
        status = place.stat()
        with os.scandir(place) as entries:
            for entry in entries:
                kind = _kind(entry)
                kinds[kind].append(entry.name)
                if sized and kind == "file":
                    bytes_of[entry.name] = entry.stat().st_size
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageTreeError(f"{place}: not a folder of images ({error.strerror})") from None
    except OSError as error:
        raise ImageTreeError(f"{place}: could not be listed ({error.strerror or error})") from None
    files, folders, hidden = (tuple(sorted(names)) for names in kinds.values())
    return Folder(name, (status.st_dev, status.st_ino), status.st_mtime_ns, files, folders, hidden,
                  tuple(bytes_of[file] for file in files) if sized else ())


def _kind(entry: os.DirEntry) -> str:
    if is_hidden(entry.name):
        return "hidden"
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
    except OSError as error:  # for example, a link to itself
        raise ImageTreeError(f"{entry.path}: could not be read ({error.strerror})") from None
    if entry.is_symlink() and not os.path.exists(entry.path):
        raise ImageTreeError(f"{entry.path}: a broken link ({os.readlink(entry.path)})")
    raise ImageTreeError(f"{entry.path}: neither a file nor a folder")


def _read_below(root: Path, name: str, top: Folder, sized: bool) -> list[Folder]:
    """A subfolder and all below it, by path."""
    found = {top.identity: top.name}
    folders, left = [], [name]
    while left:
        folder = read_folder(root, left.pop(), sized=sized)
        _note(root, found, folder)  # before descending: a link to a parent folder would never end
        folders.append(folder)
        left += folder.inside(folder.folders)
    return sorted(folders, key=lambda folder: folder.name)


def _note(root: Path, found: dict[tuple[int, int], str], folder: Folder) -> None:
    other = found.setdefault(folder.identity, folder.name)
    if other != folder.name:
        raise ImageTreeError(f"{root / folder.name} and {root / other} are the same folder, reached twice through a "
                             "link: its images would count twice")


# Classes

def class_numbers(names: Collection[str]) -> dict[str, int]:
    """Class index of each class folder, in order of the indices.

    If all names are decimal numbers (ASCII digits), each name is its index.  Otherwise classes are numbered in sorted
    order of their names, as in torchvision and other ImageNet code.  The two rules differ for numbers without leading
    zeros: torchvision sorts them as text (0, 1, 10, 11, 2), so that folder "2" would have index 4.

    Raises:
        ImageTreeError: two names of the same number, such as 1 and 01.
    """
    if not names or not all(map(_DECIMAL.fullmatch, names)):
        return {name: rank for rank, name in enumerate(sorted(names))}
    by_number: dict[int, str] = {}
    for name in sorted(names):
        if (other := by_number.setdefault(int(name), name)) != name:
            raise ImageTreeError(f"class folders {other} and {name} have the same number")
    return {by_number[number]: number for number in sorted(by_number)}


def torchvision_differs(numbers: dict[str, int]) -> bool:
    """Whether torchvision would number these classes differently."""
    return list(numbers) != sorted(numbers)


def check_class_folders(split: Path, num_classes: int) -> None:
    """Check that a split in ImageNet's layout, ``<split>/<class>/<image>``, has a folder with images for each class.

    Each folder is searched only until its first image is found.

    Raises:
        ImageTreeError: see `require_classes`.
    """
    if not split.is_dir():
        require_classes(split, (), num_classes, empty=())
    top = read_folder(split)
    found, empty = {top.identity: top.name}, []
    with ThreadPoolExecutor(_THREADS) as pool:
        for folder, has_image in pool.map(lambda name: _look_into(split, name, top), top.folders):
            _note(split, found, folder)
            if not has_image:
                empty.append(folder.name)
    require_classes(split, top.folders, num_classes, empty)


def require_classes(split: Path, names: Sequence[str], num_classes: int, empty: Sequence[str]) -> None:
    """Check that the class folders of a split match the config and those of the train split.

    Args:
        names: names of the class folders.
        empty: those without an image.

    Raises:
        ImageTreeError: a wrong number of folders, an empty folder, names that are numbers but not 0..C-1, or classes
            that differ from those of train; it names the wrong folders if they can be identified.
    """
    if len(names) != num_classes:
        hints = _odd_folders(split, names, num_classes, empty)
        raise ImageTreeError(f"{split} has {len(names)} class folders, data.num_classes = {num_classes}"
                             + (f" ({'; '.join(hints)})" if hints else ""))
    if empty:
        raise ImageTreeError(f"{split}: no image in class folder {some(empty)}")
    numbers = class_numbers(names)
    if sorted(numbers.values()) != list(range(num_classes)):
        raise ImageTreeError(f"{split}: class folders that are named by numbers must be 0..{num_classes - 1}; "
                             + "; ".join(_odd_numbers(numbers, num_classes)))
    train = split.parent / "train"
    if split != train and train.is_dir() and (differing := set(names) ^ set(read_folder(train).folders)):
        raise ImageTreeError(f"{split} and {train} have different classes, so their labels would not agree: "
                             f"{some(sorted(differing))}")


def _look_into(root: Path, name: str, top: Folder) -> tuple[Folder, bool]:
    """A subfolder, and whether it or one below it holds an image."""
    first = folder = read_folder(root, name)
    found, left = {top.identity: top.name}, []
    while not any(map(is_image, folder.files)):
        _note(root, found, folder)
        left += folder.inside(folder.folders)
        if not left:
            return first, False
        folder = read_folder(root, left.pop())
    return first, True


def _odd_folders(split: Path, names: Sequence[str], num_classes: int, empty: Sequence[str]) -> list[str]:
    """Hints which folders are superfluous or missing, judged by names, images and the other split."""
    if not names:
        return ["the images of val must be sorted into a folder for each class"] if split.is_dir() else []
    hints = [f"without images: {some(empty)}"] if empty else []
    if all(map(_DECIMAL.fullmatch, names)):
        return [*hints, *_odd_numbers(class_numbers(names), num_classes)]
    ids = [name for name in names if _WORDNET_ID.fullmatch(name)]
    if 2 * len(ids) > len(names) > len(ids):
        hints.append(f"not WordNet ids like the others: {some(sorted(set(names) - set(ids)))}")
    other = split.parent / ("val" if split.name == "train" else "train")
    if other.is_dir() and (theirs := set(read_folder(other).folders)):
        for title, odd in (("missing", theirs - set(names)), ("extra", set(names) - theirs)):
            if odd:
                hints.append(f"{title} beside {other}: {some(sorted(odd))}")
    return hints


def _odd_numbers(numbers: dict[str, int], num_classes: int) -> list[str]:
    missing = [str(number) for number in sorted(set(range(num_classes)) - set(numbers.values()))]
    extra = [name for name, number in numbers.items() if number >= num_classes]
    return [f"{title}: {some(odd)}" for title, odd in (("missing", missing), ("extra", extra)) if odd]
