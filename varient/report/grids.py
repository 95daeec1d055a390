"""Grids of images: the same seeds under several depth plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from varient.files import atomic_path

matplotlib.use("Agg")

_DPI = 150
_SIDE = 96
"""Pixels of a picture's side, about; smaller images are enlarged a whole number of times, larger ones kept."""
_MOST_PIXELS = 2 ** 16
_GAP, _LEFT, _TOP, _BOTTOM = 6, 225, 68, 8
"""Pixels between pictures, and beside them: labels stand at the left, the title above."""


def check_size(columns: int, rows: int, image_side: int) -> None:
    """Check that a page of so many images fits a PNG as matplotlib writes it.

    Raises:
        ValueError: it does not.
    """
    if max(_size(columns, rows, _shown_side(image_side))) >= _MOST_PIXELS:
        raise ValueError(f"{rows} rows of {columns} images are too large for one picture: less than {_MOST_PIXELS} "
                         "pixels a side fit")


def _shown_side(image_side: int) -> int:
    return image_side * max(1, round(_SIDE / image_side))


def _size(columns: int, rows: int, side: int) -> tuple[int, int]:
    return _LEFT + columns * (side + _GAP), _TOP + rows * (side + _GAP) + _BOTTOM


def write_grid(path: Path, rows: Sequence[tuple[str, np.ndarray]], title: str) -> None:
    """Write labelled rows of uint8 images (n, 3, S, S) as one PNG, enlarged by a whole number without interpolation."""
    from matplotlib import pyplot as plt

    side = _shown_side(rows[0][1].shape[-1])
    width, height = _size(max(len(images) for _, images in rows), len(rows), side)
    figure = plt.figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.suptitle(title, fontsize=9, wrap=True)
    for line, (label, images) in enumerate(rows):
        top = _TOP + line * (side + _GAP)
        figure.text((_LEFT - 3 * _GAP) / width, 1 - (top + side / 2) / height, label, ha="right", va="center",
                    fontsize=9)
        for column, image in enumerate(images):
            left = _LEFT + column * (side + _GAP)
            axis = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
            axis.axis("off")
            axis.imshow(image.transpose(1, 2, 0), interpolation="nearest", aspect="auto")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, format="png")
    plt.close(figure)
