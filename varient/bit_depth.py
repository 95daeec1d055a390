"""How many bits a channel of an image file has, which Pillow does not say."""

from __future__ import annotations

import re

from PIL.ImageFile import ImageFile


def bits_a_channel(image: ImageFile) -> int:
    """Bits of a channel (or of an index into a palette) in the file of an image that was opened and not yet loaded.

    Pillow gives colours of 16 bits (PNG, TIFF, PPM) as 8 without a word; what it unpacks them from stands in its
    description of the file's tiles.
    """
    for tile in image.tile:
        stored, *more = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if tile.codec_name.startswith("ppm"):  # whose second argument is the largest value
            return int(more[0]).bit_length()
        # "RGB;16B", "L;4"; in "BGR;16" it is the bits of a whole pixel
        if isinstance(stored, str) and not stored.startswith("BGR") and (depth := re.search(r";(\d+)", stored)):
            return int(depth[1])
    if depth := re.search(r";(\d+)", image.mode):
        return int(depth[1])
    return {"1": 1, "I": 32, "F": 32}.get(image.mode, 8)
