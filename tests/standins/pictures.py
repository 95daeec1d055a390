"""A few classes of ImageNet with what is odd about the real ones: grey, CMYK, a PNG named .JPEG, all sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_SIZES = ((500, 375), (333, 500), (120, 300), (800, 600), (256, 256))
_MODES = ("RGB", "L", "CMYK", "RGB", "RGB")
_FORMATS = ("JPEG", "JPEG", "JPEG", "PNG", "JPEG")


def write_imagenet(root: Path, num_classes: int) -> None:
    """Write train/ and val/ with a folder a class, named by WordNet's numbers; files are all called .JPEG."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 2)):
        for label in range(num_classes):
            synset = f"n{1440764 + 11 * label:08d}"
            folder = root / split / synset
            folder.mkdir(parents=True, exist_ok=True)
            for at in range(count):
                name = f"{synset}_{at}" if split == "train" else f"ILSVRC2012_val_{label * count + at + 1:08d}"
                turn = (at + label) % len(_SIZES)
                picture(rng, *_SIZES[turn]).convert(_MODES[turn]).save(folder / f"{name}.JPEG", _FORMATS[turn])


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Coarse random patches, smoothly enlarged: no two alike, and none of noise alone."""
    patches = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)
