"""Fashion-MNIST from a local folder: the four IDX files, packed or not, known by the hashes of what is in them."""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

SIDE, NUM_CLASSES = 28, 10
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Of the unpacked files: packed again, as Debian does, a .gz has another hash than the published one."""

_GZIP = b"\x1f\x8b"
_HEADERS = {3: bytes([0, 0, 8, 3]), 1: bytes([0, 0, 8, 1])}
_WHERE = "Debian's package dataset-fashion-mnist has them in /usr/share/datasets/fashion-mnist"


class FashionMnistError(ValueError):
    """A file that is missing or not the one that it should be; the message names it."""


def read_fashion_mnist(root: Path, part: str, checksums: Mapping[str, str]) -> tuple[Tensor, Tensor]:
    """Grey images (N, 28, 28), uint8, and their classes (N,), int64, 0..9.

    Args:
        part: "train", 60,000 images, or "t10k", 10,000.
        checksums: SHA-256 of unpacked files that are not to be the published ones, by name.

    Raises:
        FashionMnistError: a file is missing, damaged or another one.
    """
    wanted = SHA256 | checksums
    images, labels = (_read(root, name, wanted[name], dimensions)
                      for name, dimensions in ((f"{part}-images-idx3-ubyte", 3), (f"{part}-labels-idx1-ubyte", 1)))
    if images.shape[1:] != (SIDE, SIDE) or len(images) != len(labels) or labels.max() >= NUM_CLASSES:
        raise FashionMnistError(f"{root}: {part} has images {tuple(images.shape)} and {len(labels)} labels up to "
                                f"{int(labels.max())}; expected (N, {SIDE}, {SIDE}), N labels, up to {NUM_CLASSES - 1}")
    return images, labels.long()


def _read(root: Path, name: str, sha256: str, dimensions: int) -> Tensor:
    """One file as a tensor of bytes."""
    path = next((path for path in (root / name, root / f"{name}.gz") if path.exists()), None)
    if path is None:
        raise FashionMnistError(f"{root / name}: no such file, packed (.gz) or not; {_WHERE}")
    content = _unpacked(path)
    if not content.startswith(_HEADERS[dimensions]):
        raise FashionMnistError(f"{path}: no IDX file of bytes in {dimensions} dimensions (it begins with "
                                f"{content[:4]!r}); {_WHERE}")
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise FashionMnistError(f"{path}: damaged or another file: its content has SHA-256 {found}, expected {sha256}")
    with tempfile.NamedTemporaryFile() as unpacked:  # torchvision reads files, and none that are packed
        unpacked.write(content)
        unpacked.flush()
        try:
            return read_sn3_pascalvincent_tensor(unpacked.name)
        except (AssertionError, RuntimeError):
            raise FashionMnistError(f"{path}: its header promises another number of bytes than follow") from None


def _unpacked(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(_GZIP):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FashionMnistError(f"{path}: cannot be unpacked ({error}); {_WHERE}") from None
