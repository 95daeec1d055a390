"""Small files in the format of Fashion-MNIST: stripes whose direction and place tell the class."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """An IDX file of bytes, as its authors define it: magic, sizes in big-endian, values."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,), all classes equally often in a random order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % 10)
    images = rng.integers(0, 40, (count, 28, 28))
    for image, label in zip(images, labels, strict=True):
        begin = 2 + 5 * (label % 5)
        (image if label < 5 else image.T)[begin:begin + 4] += 200
    return images, labels


def write_files(root: Path, *, train: int = 200, test: int = 60, packed: bool = True) -> dict[str, str]:
    """Write the four files; return the SHA-256 of what is in each."""
    root.mkdir(parents=True, exist_ok=True)
    checksums = {}
    for part, count in (("train", train), ("t10k", test)):
        images, labels = stripes(count, count)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx(array)
            checksums[name] = hashlib.sha256(content).hexdigest()
            path = root / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(content) if packed else content)
    return checksums
