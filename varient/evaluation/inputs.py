"""Images to score, whatever they come as: our sample archives, a folder of PNGs, an ADM .npz.

Nothing here holds more than a batch of images in memory (except pages of mapped files, which the system takes back).
Nothing is converted with loss: what cannot be taken to uint8 RGB exactly is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from varient.archive import Archive
from varient.evaluation.npz import DAMAGED, SampleError, StoredArray, member_names, npz_array, small_array
from varient.files import sha256_of

STATISTICS = (("mu", "sigma"), ("mu_s", "sigma_s"))
"""Names of mean and covariance in an ADM reference batch: of the pool features, and of the spatial ones (sFID)."""

_ARCHIVE_ARRAYS = ("images", "labels", "indices", "origin")
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


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
        found = [*_count_warnings(labels), *(_order_warnings(labels) if self.kind != "archives" else ())]
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
    """

    place: str
    images: ImageSource | None
    statistics: dict[str, np.ndarray] = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Hash of the file, or of the pixels where there is no single file."""
        path = Path(self.place)
        return sha256_of(path) if path.is_file() else self.images.sha256


def digests_of(images: np.ndarray) -> np.ndarray:
    """SHA-256 of each image, uint8 (B, 32)."""
    digests = [hashlib.sha256(np.ascontiguousarray(image)).digest() for image in images]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(len(images), 32)


def content_hash(digests: np.ndarray) -> str:
    """One hash of a set of images, from theirs in order."""
    return hashlib.sha256(digests.tobytes()).hexdigest()


def repeated_images(digests: np.ndarray) -> int:
    """How many images are copies of an earlier one."""
    return len(digests) - len(np.unique(digests, axis=0))


def open_samples(paths: Sequence[Path]) -> ImageSource:
    """Open samples: shards of one run, a folder of PNGs (or of shards), or one ADM .npz.

    Folders are read recursively, sorted by path; JPEGs are taken with a warning.  Labels come from the archive, from
    arr_1, from names like ``{class}_{j}.png``, or from the folders (their number, else their rank).

    Raises:
        SampleError: nothing there, damage, float or non-square images, mixed sizes, images with more than 8 bits or
            with transparency, shards that do not fit each other, an .npz that holds statistics beside its images.
    """
    if not paths:
        raise SampleError("no samples were given")
    files = [shard for path in paths for shard in _shards_in(path)]
    if not files:
        if len(paths) > 1:
            raise SampleError(f"{len(paths)} folders were given; give one folder of images")
        return _open_folder(paths[0])
    names = [member_names(path) for path in files]
    if all("arr_0" in members for members in names):
        if len(files) > 1:
            raise SampleError(f"{files[1]}: a second ADM batch; give one")
        if "mu" in names[0]:
            raise SampleError(f"{files[0]}: holds mu beside its images; ADM's evaluator would silently score that "
                              "instead of the images: give it as reference, or pack the images alone")
        return _open_adm(files[0])
    return _open_archives(files)


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
    if len(paths) == 1 and paths[0].is_file():
        names = member_names(paths[0])
        statistics = _read_statistics(paths[0], names)
        if statistics or "arr_0" in names:
            return Reference(str(paths[0]), _open_adm(paths[0]) if "arr_0" in names else None, statistics)
    images = open_samples(paths)
    return Reference(str(paths[0]) if len(paths) == 1 else images.place, images, {})


def manifest_path(path: Path) -> Path:
    """Where `varient export` describes an exported .npz."""
    return path.with_suffix(".manifest.json")


def _shards_in(path: Path) -> list[Path]:
    """The .npz files that a path stands for; none for a folder of images."""
    if not path.exists():
        raise SampleError(f"{path}: no such file or folder")
    if path.is_file():
        return [path]
    shards = sorted(path.glob("*.npz"))
    if shards and any(file.suffix.lower() in _IMAGE_SUFFIXES for file in path.rglob("*")):
        raise SampleError(f"{path}: holds .npz files and images; say which")
    return shards


class _Shard(NamedTuple):
    path: Path
    images: StoredArray
    labels: np.ndarray
    indices: np.ndarray
    origin: dict


def _open_shard(path: Path) -> _Shard:
    missing = set(_ARCHIVE_ARRAYS) - member_names(path)
    if missing:
        raise SampleError(f"{path}: neither a sample archive (no {', '.join(sorted(missing))}) nor an ADM batch (no "
                          "arr_0)")
    images = npz_array(path, "images")
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or 0 in shape:
        raise SampleError(f"{path}: images are {images.dtype} {shape}, expected uint8 (N, 3, S, S)")
    labels, indices = (small_array(path, name).astype(np.int64) for name in ("labels", "indices"))
    if not shape[0] == len(labels) == len(indices):
        raise SampleError(f"{path}: {shape[0]} images, {len(labels)} labels, {len(indices)} indices")
    try:
        origin = json.loads(str(small_array(path, "origin")))
    except ValueError as error:
        raise SampleError(f"{path}: its origin is damaged ({error})") from None
    if not isinstance(origin, dict):
        raise SampleError(f"{path}: its origin is no description but {type(origin).__name__}")
    return _Shard(path, images, labels, indices, origin)


def _open_archives(paths: Sequence[Path]) -> ImageSource:
    """Shards of one run, by index; they may be a part of it, but without gaps."""
    shards = sorted(map(_open_shard, paths), key=lambda shard: int(shard.indices[0]))
    first = shards[0]
    expected, side = int(first.indices[0]), first.images.shape[2]
    for shard in shards:
        if shard.origin != first.origin:
            differing = sorted(key for key in shard.origin | first.origin
                               if shard.origin.get(key) != first.origin.get(key))
            raise SampleError(f"{shard.path} and {first.path} differ in {', '.join(differing)}: not shards of one run")
        if shard.indices[0] != expected or (np.diff(shard.indices) != 1).any():
            raise SampleError(f"{shard.path}: starts at index {shard.indices[0]}, expected {expected} (a shard is "
                              "missing, doubled or out of order)")
        if shard.images.shape[2] != side:
            raise SampleError(f"{shard.path}: side {shard.images.shape[2]}, but {first.path} has {side}")
        expected = int(shard.indices[-1]) + 1
    starts = np.cumsum([0] + [len(shard.indices) for shard in shards])

    def read(begin: int, end: int) -> np.ndarray:
        return np.concatenate([shard.images[max(begin - start, 0):end - start]
                               for shard, start, stop in zip(shards, starts[:-1], starts[1:], strict=True)
                               if start < end and begin < stop])

    return ImageSource(
        "archives", str(first.path if len(shards) == 1 else first.path.parent), tuple(shard.path for shard in shards),
        side, np.concatenate([shard.indices for shard in shards]), np.concatenate([shard.labels for shard in shards]),
        first.origin.get("sampling", {}).get("num_images"), read, first.origin)


def _open_adm(path: Path) -> ImageSource:
    """arr_0 of an ADM batch: NHWC, uint8."""
    images = npz_array(path, "arr_0")
    if images.dtype != np.uint8:
        raise SampleError(f"{path}: arr_0 is {images.dtype}; an ADM batch is uint8, 0..255: convert it and say "
                          "how you rounded")
    if len(images.shape) != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2] or not images.shape[0]:
        raise SampleError(f"{path}: arr_0 is {images.shape}; an ADM batch is (N, S, S, 3), channels last")
    count, remarks, labels = images.shape[0], [], None
    if "arr_1" in member_names(path):
        labels = small_array(path, "arr_1")
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            remarks.append(f"{path}: arr_1 is {labels.dtype} {labels.shape}, not a label for each image; ignored")
            labels = None
    manifest = _manifest_of(path)
    if manifest is None:
        remarks.append(f"{manifest_path(path)}: describes another file than {path.name}; ignored")
    manifest = manifest or {}

    def read(begin: int, end: int) -> np.ndarray:
        return np.ascontiguousarray(images[begin:end].transpose(0, 3, 1, 2))

    return ImageSource("adm", str(path), (path,), images.shape[1], np.arange(count),
                       None if labels is None else labels.astype(np.int64), count, read, manifest.get("origin", {}),
                       manifest.get("permutation_seed"), tuple(remarks))


def _manifest_of(path: Path) -> dict | None:
    """What `varient export` wrote about an ADM batch; {} if nothing is there, None if it is about other images."""
    if not manifest_path(path).exists():
        return {}
    try:
        manifest = json.loads(manifest_path(path).read_text())
        with zipfile.ZipFile(path) as archive:
            return manifest if manifest["arr_0_crc32"] == archive.getinfo("arr_0.npy").CRC else None
    except (ValueError, KeyError, TypeError):
        return None


def _read_statistics(path: Path, names: set[str]) -> dict[str, np.ndarray]:
    statistics = {}
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


def _open_folder(folder: Path) -> ImageSource:
    """PNGs (and JPEGs, with a warning) of a folder; sizes and depths are checked from the headers now."""
    files = sorted((path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")),
                   key=lambda path: path.relative_to(folder).as_posix())
    images = [path for path in files if path.suffix.lower() in _IMAGE_SUFFIXES]
    if not images:
        raise SampleError(f"{folder}: no .png files in this folder")
    first = _image_size(images[0])
    for path in images:
        if _image_size(path) != first:
            raise SampleError(f"{path}: {_times(_image_size(path))} pixels, but {images[0].name} has {_times(first)}; "
                              "images of mixed sizes cannot be scored together")
    if first[0] != first[1]:
        raise SampleError(f"{images[0]}: {_times(first)} pixels; images must be square")
    remarks = []
    lossy = [path for path in images if path.suffix.lower() != ".png"]
    if lossy:
        remarks.append(f"{folder}: {len(lossy)} JPEG files: lossy compression changes FID, and decoders differ")
    ignored = [path for path in files if path.suffix.lower() not in _IMAGE_SUFFIXES and path.name != "manifest.json"]
    if ignored:
        remarks.append(f"{folder}: {len(ignored)} files are no images and were ignored, as {ignored[0].name}")
    side = first[0]

    def read(begin: int, end: int) -> np.ndarray:
        return np.stack([_decode(path, side) for path in images[begin:end]])

    return ImageSource("folder", str(folder), tuple(images), side, np.arange(len(images)),
                       _labels_from_names(folder, images), len(images), read, remarks=tuple(remarks))


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _image_size(path: Path) -> tuple[int, int]:
    """Width and height from the header.

    Pillow would give 16-bit colours as 8-bit ones without a word, so a PNG's header is read here.
    """
    if path.suffix.lower() != ".png":
        try:
            with Image.open(path, formats=["JPEG"]) as image:
                if image.mode not in ("RGB", "L"):
                    raise SampleError(f"{path}: a JPEG in {image.mode}, which cannot be taken to RGB exactly")
                return image.size
        except (OSError, SyntaxError) as error:
            raise SampleError(f"{path}: no JPEG, or truncated ({error})") from None
    with path.open("rb") as file:
        header = file.read(26)
    if header[:8] != _PNG_SIGNATURE:
        raise SampleError(f"{path}: no PNG, whatever its name says")
    if len(header) < 26 or header[12:16] != b"IHDR":
        raise SampleError(f"{path}: corrupt or truncated PNG")
    width, height, bits, colour = struct.unpack(">IIBB", header[16:26])
    if bits > 8 or (bits < 8 and colour != 3):
        raise SampleError(f"{path}: {bits} bits a channel, which cannot be taken to 8 exactly")
    return width, height


def _decode(path: Path, side: int) -> np.ndarray:
    """uint8 (3, S, S), exactly the stored values; grey is repeated, palettes are looked up."""
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".png" and _PNG_END not in data:
            raise ValueError("no end chunk")
        # Decoding alone does not look at the checksums of the pixel data.
        Image.open(io.BytesIO(data)).verify()
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            transparent = "A" in image.getbands() or "transparency" in image.info
            if transparent and image.convert("RGBA").getchannel("A").getextrema()[0] != 255:
                raise SampleError(f"{path}: has transparent pixels, which have no RGB value")
            pixels = np.asarray(image.convert("RGB"))
    except SampleError:
        raise
    except (*DAMAGED, SyntaxError, IndexError) as error:
        raise SampleError(f"{path}: corrupt or truncated image ({error})") from None
    if pixels.shape != (side, side, 3):
        raise SampleError(f"{path}: changed while it was read")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # numpy would hand the other order on to whole batches


def _labels_from_names(folder: Path, images: Sequence[Path]) -> np.ndarray | None:
    matches = [re.fullmatch(r"(\d+)_\d+", path.stem) for path in images]
    if all(matches):
        return np.array([int(match[1]) for match in matches], np.int64)
    parents = [path.parent.relative_to(folder).as_posix() for path in images]
    classes = sorted(set(parents))
    if len(classes) < 2 or "." in classes:
        return None
    numbers = {name: int(name) if all(other.isdecimal() for other in classes) else rank
               for rank, name in enumerate(classes)}
    return np.array([numbers[name] for name in parents], np.int64)


def _count_warnings(labels: np.ndarray) -> list[str]:
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.min() == counts.max():
        return []
    return [f"{counts.min()} to {counts.max()} images a class; published scores have equal counts"]


def _order_warnings(labels: np.ndarray) -> list[str]:
    """Orders in which ADM's evaluator, taking blocks as they are stored, gives another IS."""
    classes = len(np.unique(labels))
    if not 1 < classes < len(labels):
        return []
    if 1 + np.count_nonzero(np.diff(labels)) == classes:
        return ["sorted by class: ADM's evaluator would give several times too low an IS (62 for about 300, "
                "guided-diffusion#165); the protocols here permute"]
    if np.array_equal(labels[classes:], labels[:-classes]):
        return ["classes take turns: ADM's evaluator would give an IS some percent too high; the protocols here "
                "permute"]
    return []
