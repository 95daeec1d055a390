"""Picture grids for the eye: the same seeds under several depth plans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from varient.files import atomic_path

matplotlib.use("Agg")


def write_grid(path: Path, rows: Sequence[tuple[str, np.ndarray]], title: str) -> None:
    """Write labelled rows of uint8 images (n, 3, S, S) as one PNG; pixels are not smoothed."""
    from matplotlib import pyplot as plt

    columns = max(len(images) for _, images in rows)
    figure, axes = plt.subplots(len(rows), columns, squeeze=False, figsize=(0.7 * columns + 1.6, 0.7 * len(rows) + 0.5))
    for (label, images), line in zip(rows, axes, strict=True):
        for axis in line:
            axis.axis("off")
        for image, axis in zip(images, line, strict=False):
            axis.imshow(image.transpose(1, 2, 0), interpolation="nearest")
        line[0].text(-0.25, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    figure.suptitle(title, fontsize=9, wrap=True)
    figure.subplots_adjust(left=1.5 / (0.7 * columns + 1.6), right=0.99, top=1 - 0.45 / (0.7 * len(rows) + 0.5),
                           bottom=0.02, wspace=0.06, hspace=0.06)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    plt.close(figure)
