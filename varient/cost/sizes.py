"""Sizes of memory, read and written."""

from __future__ import annotations

import re

from varient.yaml_file import shortened

MIB = 2 ** 20
GIB = 2 ** 30
_MOST_BYTES = 2 ** 63

_UNITS = {"MB": 10 ** 6, "GB": 10 ** 9, "MiB": 2 ** 20, "GiB": 2 ** 30}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})", re.ASCII)


def parse_size(text: str) -> int:
    """Bytes of a size such as "48GiB" (2^30), "48GB" (10^9), "512MiB" or "1.5 GB".

    Raises:
        ValueError: anything else, or a size of nothing.
    """
    match = _SIZE.fullmatch(text)
    size_bytes = float(match[1]) * _UNITS[match[2]] if match else 0
    if not 0.5 < size_bytes < _MOST_BYTES:
        raise ValueError(f"size {shortened(text)} is not understood: it needs a number above 0 and one of "
                         f"{', '.join(_UNITS)}, e.g. 48GiB")
    return round(size_bytes)
