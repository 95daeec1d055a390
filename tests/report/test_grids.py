"""Grids of pictures, read back from the file."""

import numpy as np
import pytest
from PIL import Image

from varient.report.grids import write_grid


@pytest.mark.parametrize(("side", "enlarged"), [(8, 12), (64, 2), (256, 1)])
def test_each_pixel_of_an_image_is_a_square_of_the_files(side, enlarged, tmp_path):
    rng = np.random.default_rng(0)
    rows = [(f"d = {depth}", rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8))
            for depth, count in ((30, 5), (2, 4))]
    write_grid(tmp_path / "grid.png", rows, "a title")
    page = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    for line, (_, images) in enumerate(rows):
        for column, image in enumerate(images):
            top, left = 68 + line * (side * enlarged + 6), 225 + column * (side * enlarged + 6)
            drawn = page[top:top + side * enlarged, left:left + side * enlarged]
            assert np.array_equal(drawn, image.transpose(1, 2, 0).repeat(enlarged, 0).repeat(enlarged, 1))
