"""Images to score, whatever they come as: our sample archives, a folder of PNGs, an ADM .npz.

Nothing here holds more than a batch of images in memory (except pages of mapped files, which the system takes back).
Nothing is converted with loss: what cannot be taken to uint8 RGB exactly is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from varient.archive import ARRAYS, Archive, check_origin, open_shard, whole_numbers
from varient.evaluation.image_files import FORMATS, decode, image_size
from varient.evaluation.labels import count_warnings, labels_from_names, order_warnings
from varient.files import sha256_of, shown
from varient.image_tree import ImageTreeError, is_image, read_tree, some
from varient.npz import SampleError, member_crc, member_names, npz_array, small_array

STATISTICS = (("mu", "sigma"), ("mu_s", "sigma_s"))
"""Names of mean and covariance in an ADM reference batch: of the pool features, and of the spatial ones (sFID)."""


_MANIFEST = "manifest.json"
_DARK = 16
"""Pictures of colours below this are none that anybody would see: scales of 0..1, or of 4 bits."""


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
            None if they are not, or nobody says so.
        remarks: what was odd about the files.
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

    def __post_init__(self) -> None:
        # Both go into records, which are UTF-8; names of files need not be.
        object.__setattr__(self, "place", shown(self.place))
        object.__setattr__(self, "remarks", tuple(map(shown, self.remarks)))

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, begin: int, end: int) -> np.ndarray:
        """Images begin..end-1 in the order of the source, uint8 (B, 3, S, S); ``end`` may lie behind the last.

        Raises:
            SampleError: a file that turns out to be damaged.
        """
        return self.read(begin, min(end, len(self)))

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order, at most ``size`` at once."""
        return (self.batch(begin, begin + size) for begin in range(0, len(self), size))

    def part(self, begin: int, end: int) -> ImageSource:
        """Images begin..end-1 as a source of their own, with their numbers in the whole."""
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
        """Hash of the pixels in order, the same for the same images in the same order in another container."""
        return content_hash(self.digests)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What may make scores of this set mean something else, from files and labels alone (no pass over images)."""
        labels = self.labels if self.labels is not None else np.empty(0, np.int64)
        # Nobody else reads our archives in their own order; the classes take turns there.
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
    """What samples are compared with.

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
    """SHA-256 of each image, uint8 (B, 32)."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in images]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(images), 32)


def content_hash(digests: np.ndarray) -> str:
    """One hash of a set of images, from theirs in order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def repeated_images(digests: np.ndarray) -> int:
    """How many images are copies of an earlier one."""
    return len(digests) - len(np.unique(digests, axis=0))


def pixel_warnings(source: ImageSource, looked_at: int = 64) -> list[str]:
    """Signs in the first images that they were saved on another scale than 0..255, or hold no picture.

    Raises:
        SampleError: a damaged image.
    """
    images, found = source.batch(0, looked_at), []
    if (images == images[:, :, :1, :1]).all():
        found.append(f"{source.place}: each of the first {len(images)} images is of one colour")
    if (largest := int(images.max())) < _DARK:
        found.append(f"{source.place}: no colour of the first {len(images)} images is above {largest}, expected is "
                     "0..255: were they saved on another scale, 0..1 say?")
    return found


def open_samples(paths: Sequence[Path]) -> ImageSource:
    """Open samples: shards of one run, images, or one ADM .npz; as files or as the folder that holds them.

    Folders are read with all folders below (`varient.image_tree` says what counts), images in order of their paths.
    JPEGs are taken with a warning, other formats than PNG and JPEG are refused.  Labels come from the archive, from
    arr_1, or from names and folders (`labels_from_names`).

    Raises:
        SampleError: nothing there, damage, float or non-square images, mixed sizes, images with more than 8 bits or
            with transparency, other image formats, labels that are no whole numbers, links that lead nowhere or in
            circles, shards that do not fit each other, an .npz that holds statistics beside its images, an exported
            folder that is not whole.
    """
    if not paths:
        raise SampleError("no samples were given")
    try:
        found = _found(paths)
        return _open_images(found) if found.images else _open_npz(found)
    except ImageTreeError as error:
        raise SampleError(str(error)) from None


def source_of(archive: Archive) -> ImageSource:
    """A whole archive in memory as a source."""
    return ImageSource(
        "archives", archive.origin.get("system", "memory"), (), archive.images.shape[2], archive.indices,
        archive.labels, len(archive.indices), lambda begin, end: archive.images[begin:end], archive.origin)


def open_reference(paths: Sequence[Path]) -> Reference:
    """Open a reference: an ADM batch (arr_0, mu, sigma, mu_s, sigma_s; each may lack), or images as `open_samples`.

    Raises:
        SampleError: as `open_samples`, or statistics that are not finite or of no matching shapes.
    """
    if len(paths) == 1 and paths[0].is_file() and not is_image(paths[0].name):
        names = member_names(paths[0])
        statistics = _read_statistics(paths[0], names)
        if statistics or "arr_0" in names:
            images = _open_adm(paths[0], ()) if "arr_0" in names else None
            return Reference(str(paths[0]), images, statistics, paths[0])
    images = open_samples(paths)
    if len(paths) == 1:
        return Reference(str(paths[0]), images, {}, paths[0] if paths[0].is_file() else None)
    return Reference(images.place, images, {})


def manifest_path(path: Path) -> Path:
    """Where `varient export` describes an exported .npz."""
    return path.with_suffix(".manifest.json")


class _Found(NamedTuple):
    """The files that samples consist of.

    Attributes:
        place: the folder or file that was named, or the folder around all that were.
        images: files of one image each, in order; if there are any, there is no .npz.
        shards: .npz files.
        remarks: what was left out.
    """

    place: Path
    images: tuple[Path, ...]
    shards: tuple[Path, ...]
    remarks: tuple[str, ...]


def _found(paths: Sequence[Path]) -> _Found:
    """All files that the paths stand for.

    Raises:
        SampleError, ImageTreeError: nothing there, or something that does not belong together.
    """
    files, remarks = [], []
    for path in paths:
        if not path.exists():
            raise SampleError(f"{path}: no such file or folder")
        if path.is_dir():
            inside, left_out = _files_in(path)
            files += inside
            remarks += left_out
        else:
            files.append(path)
    if len(set(map(os.path.abspath, files))) < len(files):
        raise SampleError(f"{some(list(map(str, paths)))}: one of these files was given twice")
    images = [path for path in files if is_image(path.name)]
    if not images:
        return _Found(paths[0], (), tuple(files), tuple(remarks))
    if len(images) < len(files):
        raise SampleError(f"{some(list(map(str, paths)))}: holds .npz files and images; say which")
    if len(paths) > 1 and any(path.is_dir() for path in paths):
        raise SampleError(f"{sum(path.is_dir() for path in paths)} folders were given; give one folder of images")
    place = paths[0] if paths[0].is_dir() else Path(os.path.commonpath([path.parent for path in images]))
    if foreign := [path for path in images if path.suffix.lower() not in FORMATS]:
        raise SampleError(f"{place}: {len(foreign)} images are neither PNG nor JPEG, as "
                          f"{foreign[0].relative_to(place)}: convert them to PNG, which keeps every pixel")
    return _Found(place, tuple(sorted(images, key=lambda path: path.relative_to(place).as_posix())), (), tuple(remarks))


def _files_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Images and .npz files of a folder, and remarks on what was left out."""
    files, others, hidden = [], [], []
    for part in read_tree(folder):
        for name in part.inside(part.files):
            if is_image(name) or name.lower().endswith(".npz"):
                files.append(name)
            elif not name.endswith(_MANIFEST):
                others.append(name)
        hidden += part.inside(part.hidden)
    if not files:
        raise SampleError(f"{folder}: no .png files in this folder, and no .npz files")
    remarks = []
    if others:
        remarks.append(f"{folder}: {len(others)} files are no images and were ignored, as {others[0]}")
    if hidden:
        remarks.append(f"{folder}: {len(hidden)} hidden entries were ignored: {some(hidden)}")
    return [folder / name for name in files], remarks


def _open_npz(found: _Found) -> ImageSource:
    names = [member_names(path) for path in found.shards]
    for path, members in zip(found.shards, names, strict=True):
        if "arr_0" not in members and not members >= ARRAYS:
            raise SampleError(f"{path}: neither a sample archive (no {', '.join(sorted(ARRAYS - members))}) nor an ADM "
                              "batch (no arr_0)")
    batches = [path for path, members in zip(found.shards, names, strict=True) if "arr_0" in members]
    if not batches:
        return _open_archives(found.shards, found.remarks)
    if len(names) > 1:
        raise SampleError(f"{batches[-1]}: a second ADM batch, or one beside sample archives; give one")
    if "mu" in names[0]:
        raise SampleError(f"{found.shards[0]}: holds mu beside its images; ADM's evaluator would silently score that "
                          "instead of the images: give it as reference, or pack the images alone")
    return _open_adm(found.shards[0], found.remarks)


def _open_archives(paths: Sequence[Path], remarks: tuple[str, ...]) -> ImageSource:
    """Shards of one run, by index; they may be a part of it, but without gaps."""
    shards = sorted(map(open_shard, paths), key=lambda shard: int(shard.indices[0]))
    first = shards[0]
    expected, side = int(first.indices[0]), first.images.shape[2]
    for shard in shards:
        if differing := sorted(key for key in shard.origin | first.origin
                               if key != "device" and shard.origin.get(key) != first.origin.get(key)):
            raise SampleError(f"{shard.path} and {first.path} differ in {', '.join(differing)}: not shards of one run")
        if shard.indices[0] != expected or (np.diff(shard.indices) != 1).any():
            raise SampleError(f"{shard.path}: starts at index {shard.indices[0]}, expected {expected} (a shard is "
                              "missing, doubled or out of order)")
        if shard.images.shape[2] != side:
            raise SampleError(f"{shard.path}: side {shard.images.shape[2]}, but {first.path} has {side}")
        expected = int(shard.indices[-1]) + 1
    # Shards of one run may come from several machines.
    devices = sorted({shard.origin["device"] for shard in shards if shard.origin.get("device")})
    origin = first.origin | ({"device": ", ".join(devices)} if devices else {})
    starts = np.cumsum([0] + [len(shard.indices) for shard in shards])

    def read(begin: int, end: int) -> np.ndarray:
        return np.concatenate([shard.images[max(begin - start, 0):end - start]
                               for shard, start, stop in zip(shards, starts[:-1], starts[1:], strict=True)
                               if start < end and begin < stop])

    return ImageSource(
        "archives", str(first.path if len(shards) == 1 else first.path.parent), tuple(shard.path for shard in shards),
        side, np.concatenate([shard.indices for shard in shards]), np.concatenate([shard.labels for shard in shards]),
        origin.get("sampling", {}).get("num_images"), read, origin, remarks=remarks)


def _open_adm(path: Path, remarks: tuple[str, ...]) -> ImageSource:
    """arr_0 of an ADM batch: NHWC, uint8."""
    images = npz_array(path, "arr_0")
    if images.dtype != np.uint8:
        raise SampleError(f"{path}: arr_0 is {images.dtype}; an ADM batch is uint8, 0..255: convert it and say "
                          "how you rounded")
    if len(images.shape) != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2] or 0 in images.shape:
        raise SampleError(f"{path}: arr_0 is {images.shape}; an ADM batch is (N, S, S, 3), channels last")
    count, labels = images.shape[0], None
    if "arr_1" in member_names(path):
        found = small_array(path, "arr_1")
        if found.shape == (count,):
            labels = whole_numbers(path, "arr_1", found)
        else:
            remarks = (*remarks, f"{path}: arr_1 is {found.dtype} {found.shape}, not a label for each image; ignored")
    manifest = _manifest_of(path)
    if manifest is None:
        remarks = (*remarks, f"{manifest_path(path)}: describes another file than {path.name}; ignored")
    manifest = manifest or {}

    def read(begin: int, end: int) -> np.ndarray:
        return np.ascontiguousarray(images[begin:end].transpose(0, 3, 1, 2))

    return ImageSource("adm", str(path), (path,), images.shape[1], np.arange(count), labels, count, read,
                       check_origin(manifest_path(path), manifest.get("origin", {})), manifest.get("permutation_seed"),
                       remarks)


def _manifest_of(path: Path) -> dict | None:
    """What `varient export` wrote about an ADM batch; {} if nothing is there, None if it is about other images."""
    if not manifest_path(path).exists():
        return {}
    try:
        manifest = json.loads(manifest_path(path).read_text("utf-8"))
        return manifest if manifest["arr_0_crc32"] == member_crc(path, "arr_0") else None
    except (ValueError, KeyError, TypeError):
        return None


def _read_statistics(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    statistics: dict[str, np.ndarray] = {}
    for mean, covariance in STATISTICS:
        if (mean in names) != (covariance in names):
            raise SampleError(f"{path}: has only one of {mean} and {covariance}")
        if mean not in names:
            continue
        mu_F, sigma_FF = small_array(path, mean), small_array(path, covariance)
        if mu_F.ndim != 1 or sigma_FF.shape != (len(mu_F),) * 2 or mu_F.dtype.kind != "f" or sigma_FF.dtype.kind != "f":
            raise SampleError(f"{path}: {mean} {mu_F.dtype} {mu_F.shape} and {covariance} {sigma_FF.dtype} "
                              f"{sigma_FF.shape} are no mean and covariance")
        if not (np.isfinite(mu_F).all() and np.isfinite(sigma_FF).all()):
            raise SampleError(f"{path}: {mean} or {covariance} is not finite")
        statistics |= {mean: mu_F, covariance: sigma_FF}
    return statistics


def _open_images(found: _Found) -> ImageSource:
    """PNGs (and JPEGs, with a warning); sizes and depths are checked from the headers now."""
    images, place = found.images, found.place
    exported = _exported_images(place)
    if exported not in (None, len(images)):
        raise SampleError(f"{place}: {len(images)} images, but its {_MANIFEST} speaks of {exported}: some are missing, "
                          "or others came in")
    first = image_size(images[0])
    for path in images:
        if (size := image_size(path)) != first:
            raise SampleError(f"{path}: {_times(size)} pixels, but {images[0].name} has {_times(first)}; images of "
                              "mixed sizes cannot be scored together")
    if first[0] != first[1]:
        raise SampleError(f"{images[0]}: {_times(first)} pixels; images must be square")
    labels, remark = labels_from_names([path.relative_to(place).as_posix() for path in images],
                                       exported=exported is not None)
    lossy = sum(FORMATS[path.suffix.lower()] == "JPEG" for path in images)
    remarks = (*([f"{place}: {lossy} JPEG files: lossy compression changes FID, and decoders differ"] if lossy else ()),
               *found.remarks, *([f"{place}: {remark}"] if remark else ()))

    def read(begin: int, end: int) -> np.ndarray:
        return np.stack([decode(path, first[0]) for path in images[begin:end]])

    return ImageSource("folder", str(place), images, first[0], np.arange(len(images)), labels, len(images), read,
                       remarks=remarks)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _exported_images(folder: Path) -> int | None:
    """How many images `varient export` wrote into a folder, by its manifest; None where it wrote none."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text("utf-8"))
        return int(manifest["num_images"]) if "images_sha256" in manifest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
