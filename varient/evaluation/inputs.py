"""Opens images to score: our sample archives, folders of PNGs, ADM batches (.npz); and references.

At most a batch of images is in memory, besides pages of mapped files.  Images that cannot be converted to uint8 RGB
without loss are refused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from varient.archive import ARRAYS, check_origin, open_shard, whole_numbers
from varient.evaluation.image_files import FORMATS, decode, image_size
from varient.evaluation.image_source import ImageSource, Reference
from varient.evaluation.labels import labels_from_names
from varient.image_tree import MOST_SIDE, ImageTreeError, is_image, read_tree, some
from varient.json_file import read_model
from varient.npz import SampleError, is_sequential, member_crc, member_names, npz_array, small_array

STATISTICS = (("mu", "sigma"), ("mu_s", "sigma_s"))
"""Names of mean and covariance in an ADM reference batch: of the pool features, and of the spatial ones (sFID)."""

_MANIFEST = "manifest.json"


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
            raise SampleError(f"{shard.path} and {first.path} differ in {some([f'{key:.60}' for key in differing])}: "
                              "not shards of one run")
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
    if len(images.shape) != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2] or 0 in images.shape \
            or images.shape[1] > MOST_SIDE:
        raise SampleError(f"{path}: arr_0 is {images.shape}; an ADM batch is (N, S, S, 3), channels last, with S up to "
                          f"{MOST_SIDE}")
    count, labels = images.shape[0], None
    if "arr_1" in member_names(path):
        found = small_array(path, "arr_1")
        if found.shape == (count,):
            labels = whole_numbers(path, "arr_1", found)
        else:
            remarks = (*remarks, f"{path}: arr_1 is {found.dtype} {found.shape}, not a label for each image; ignored")
    manifest = _manifest_of(path)
    if manifest is None and manifest_path(path).exists():
        remarks = (*remarks, f"{manifest_path(path)}: damaged, or describes another file than {path.name}; ignored")
    origin = check_origin(manifest_path(path), manifest.origin) if manifest else {}

    def read(begin: int, end: int) -> np.ndarray:
        return np.ascontiguousarray(images[begin:end].transpose(0, 3, 1, 2))

    return ImageSource("adm", str(path), (path,), images.shape[1], np.arange(count), labels, count, read, origin,
                       manifest.permutation_seed if manifest else None, remarks, is_sequential(images))


class _Manifest(BaseModel):
    """What `varient export` writes beside images: the fields that are read again."""

    model_config = ConfigDict(extra="allow")

    num_images: Annotated[int, Field(ge=1, lt=2 ** 63)]
    images_sha256: str
    origin: dict = {}
    arr_0_crc32: int | None = Field(None, description="of an ADM batch")
    permutation_seed: Annotated[int, Field(ge=0, lt=2 ** 32)] | None = Field(None, description="of an ADM batch")


def _read_manifest(path: Path) -> _Manifest | None:
    """A manifest; None if there is none, or none of ours."""
    try:
        return read_model(path, _Manifest, SampleError, "a manifest of an export")
    except (FileNotFoundError, SampleError):
        return None


def _manifest_of(path: Path) -> _Manifest | None:
    """The manifest of an ADM batch; None if there is none, or if it describes other images."""
    manifest = _read_manifest(manifest_path(path))
    return manifest if manifest and manifest.arr_0_crc32 == member_crc(path, "arr_0") else None


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
    manifest = _read_manifest(place / _MANIFEST)
    damaged: tuple[str, ...] = ()
    if manifest is None and (place / _MANIFEST).exists():
        damaged = (f"{place / _MANIFEST}: damaged, or of another program; ignored, so nothing tells whether images are "
                   "missing",)
    if manifest and manifest.num_images != len(images):
        raise SampleError(f"{place}: {len(images)} images, but its {_MANIFEST} speaks of {manifest.num_images}: some "
                          "are missing, or others came in")
    first = image_size(images[0])
    for path in images:
        if (size := image_size(path)) != first:
            raise SampleError(f"{path}: {_times(size)} pixels, but {images[0].name} has {_times(first)}; images of "
                              "mixed sizes cannot be scored together")
    if first[0] != first[1]:
        raise SampleError(f"{images[0]}: {_times(first)} pixels; images must be square")
    if first[0] > MOST_SIDE:
        raise SampleError(f"{images[0]}: {_times(first)} pixels; images may have a side up to {MOST_SIDE}")
    labels, remark = labels_from_names([path.relative_to(place).as_posix() for path in images],
                                       exported=manifest is not None)
    lossy = sum(FORMATS[path.suffix.lower()] == "JPEG" for path in images)
    remarks = (*([f"{place}: {lossy} JPEG files: lossy compression changes FID, and decoders differ"] if lossy else ()),
               *found.remarks, *damaged, *([f"{place}: {remark}"] if remark else ()))

    def read(begin: int, end: int) -> np.ndarray:
        return np.stack([decode(path, first[0]) for path in images[begin:end]])

    origin = check_origin(place / _MANIFEST, manifest.origin) if manifest else {}
    return ImageSource("folder", str(place), images, first[0], np.arange(len(images)), labels, len(images), read,
                       origin, remarks=remarks, labels_guessed=labels is not None and manifest is None)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
