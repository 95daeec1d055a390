"""Fashion-MNIST from a local folder: the four IDX files, gzipped or not, verified by hashes of their unpacked content.

Torch is imported only when files are read, because the workflow checks at its start whether they exist.
"""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from varient.config import FashionFile

if TYPE_CHECKING:
    from torch import Tensor

SIDE, NUM_CLASSES = 28, 10
SHA256: dict[FashionFile, str] = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""SHA-256 of the unpacked files; Debian recompresses the published ones, so hashes of the packed files differ."""

_FILES: dict[str, dict[int, FashionFile]] = {"train": {3: "train-images-idx3-ubyte", 1: "train-labels-idx1-ubyte"},
                                             "t10k": {3: "t10k-images-idx3-ubyte", 1: "t10k-labels-idx1-ubyte"}}
"""File names of images (3 dimensions) and labels (1 dimension) of each part."""
_GZIP = b"\x1f\x8b"
_MOST_BYTES = 2 ** 26
_MAGIC = {3: b"\0\0\x08\x03", 1: b"\0\0\x08\x01"}
_WHERE = "Debian's package dataset-fashion-mnist has it in /usr/share/datasets/fashion-mnist"


class FashionMnistError(ValueError):
    """A file is missing, damaged or has another hash; the message names it."""


def read_fashion_mnist(root: Path, part: Literal["train", "t10k"],
                       checksums: Mapping[FashionFile, str]) -> tuple[Tensor, Tensor]:
    """Grey images (N, 28, 28), uint8, and their classes (N,), int64, 0..9.

    Args:
        part: "train" is 60,000 images, "t10k" is 10,000.
        checksums: file name -> SHA-256 of an unpacked file that replaces the published one.

    Raises:
        FashionMnistError: a file is missing, damaged or has another hash.
    """
    wanted = {**SHA256, **checksums}
    images, labels = (_read(find_file(root, name), wanted[name], dimensions)
                      for dimensions, name in _FILES[part].items())
    if images.shape[1:] != (SIDE, SIDE) or len(images) != len(labels) or (labels >= NUM_CLASSES).any():
        raise FashionMnistError(f"{root}: {part} has images {tuple(images.shape)} and {len(labels)} labels up to "
                                f"{int(labels.max())}; expected (N, {SIDE}, {SIDE}) and N labels up to "
                                f"{NUM_CLASSES - 1}")
    return images, labels.long()


def find_file(root: Path, name: str) -> Path:
    """The file of that name, or the packed one.

    Raises:
        FashionMnistError: there is neither.
    """
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise FashionMnistError(f"{root / name}: no such file, nor {name}.gz; {_WHERE}")


def _read(path: Path, sha256: str, dimensions: int) -> Tensor:
    """A file as a tensor of bytes."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

    content = _unpacked(path)
    if not content.startswith(_MAGIC[dimensions]):
        raise FashionMnistError(f"{path}: no IDX file of bytes in {dimensions} dimensions: it begins with "
                                f"{content[:4]!r}")
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise FashionMnistError(f"{path}: damaged or another file: its content has SHA-256 {found}, expected {sha256}")
    with tempfile.NamedTemporaryFile() as unpacked:  # torchvision reads only unpacked files
        unpacked.write(content)
        unpacked.flush()
        try:
            return read_sn3_pascalvincent_tensor(unpacked.name)
        except (AssertionError, RuntimeError, ValueError):  # torchvision checks the sizes by assertions
            raise FashionMnistError(f"{path}: its header announces more or fewer bytes than follow") from None


def _unpacked(path: Path) -> bytes:
    with path.open("rb") as file:
        begin = file.read(len(_GZIP))
        file.seek(0)
        try:
            content = (gzip.GzipFile(fileobj=file) if begin == _GZIP else file).read(_MOST_BYTES + 1)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FashionMnistError(f"{path}: cannot be unpacked ({error})") from None
    if len(content) > _MOST_BYTES:
        raise FashionMnistError(f"{path}: holds more than {_MOST_BYTES // 2 ** 20} MiB; the largest published file "
                                "has 45")
    return content
