"""Bits per channel of an image file.  Pillow has no attribute for it."""

from __future__ import annotations

import re

from PIL.ImageFile import ImageFile


def bits_a_channel(image: ImageFile) -> int:
    """Bits per channel (or per palette index) in the file of an image that is opened but not loaded yet.

    Pillow silently converts 16-bit colours (PNG, TIFF, PPM) to 8 bits; the raw mode in ``image.tile`` still tells how
    they are stored.
    """
    for tile in image.tile:
        stored, *more = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if tile.codec_name.startswith("ppm"):  # the decoder's second argument is the largest value
            return int(more[0]).bit_length()
        # raw modes such as "RGB;16B" and "L;4"; in "BGR;16" the number counts the bits of a whole pixel
        if isinstance(stored, str) and not stored.startswith("BGR") and (depth := re.search(r";(\d+)", stored)):
            return int(depth[1])
    if depth := re.search(r";(\d+)", image.mode):
        return int(depth[1])
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)
