"""Bits of a channel, in files of all formats that Pillow writes."""

import io

import pytest
from PIL import Image

from varient.bit_depth import bits_a_channel

Image.init()
EIGHT_BITS = sorted({"BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP"} & set(Image.SAVE))


def _bits(image: Image.Image, kind: str) -> int:
    file = io.BytesIO()
    image.save(file, kind)
    with Image.open(file) as opened:
        return bits_a_channel(opened)


@pytest.mark.parametrize("kind", EIGHT_BITS)
def test_colours_have_eight_bits(kind):
    assert _bits(Image.new("RGB", (4, 4)), kind) == 8


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_seen(kind):
    assert _bits(Image.new("I;16", (4, 4), 4660), kind) == 16
