"""Sizes of memory, read and written."""

from __future__ import annotations

import re

MIB = 2 ** 20

_UNITS = {"MB": 10 ** 6, "GB": 10 ** 9, "MiB": 2 ** 20, "GiB": 2 ** 30}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size such as "48GiB" (2^30), "48GB" (10^9), "512MiB" or "1.5 GB".

    Raises:
        ValueError: anything else, or a size of nothing.
    """
    match = _SIZE.fullmatch(text)
    size_bytes = round(float(match[1]) * _UNITS[match[2]]) if match else 0
    if size_bytes == 0:
        raise ValueError(f"size {text!r} is not understood: it needs a number above 0 and one of "
                         f"{', '.join(_UNITS)}, e.g. 48GiB")
    return size_bytes
