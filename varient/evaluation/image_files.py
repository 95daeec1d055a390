"""Decode an image file to exactly the pixels that it stores; what cannot become uint8 RGB without loss is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from varient.bit_depth import bits_a_channel
from varient.npz import SampleError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
"""What is read, by the ending of the name."""

_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its header.

    Raises:
        SampleError: unreadable, another format than its name says, CMYK, other bits than 8 a channel.
    """
    kind = FORMATS[path.suffix.lower()]
    try:
        with Image.open(path, formats=[kind]) as image:
            if image.mode == "CMYK":
                raise SampleError(f"{path}: a JPEG in CMYK, which cannot be taken to RGB exactly")
            bits = bits_a_channel(image)
            if bits > 8 or (bits < 8 and image.mode != "P"):
                raise SampleError(f"{path}: {bits} bits a channel, which cannot be taken to 8 exactly")
            return image.size
    except UnidentifiedImageError:
        raise SampleError(f"{path}: no {kind}, whatever its name says, or a corrupt or truncated one") from None
    except SampleError:
        raise
    except Exception as error:  # what a decoder raises at broken bytes is of any type
        raise SampleError(f"{path}: corrupt or truncated {kind} ({error})") from None


def decode(path: Path, side: int) -> np.ndarray:
    """uint8 (3, S, S), exactly the stored values; grey is repeated, palettes are looked up.

    Raises:
        SampleError: corrupt or truncated, transparent, or of another size.
    """
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
    except (SampleError, MemoryError):
        raise
    except Exception as error:  # see above
        raise SampleError(f"{path}: corrupt or truncated image ({error})") from None
    if pixels.shape != (side, side, 3):
        raise SampleError(f"{path}: changed while it was read")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))  # else np.stack would keep the transposed memory order
