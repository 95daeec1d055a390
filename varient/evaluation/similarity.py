"""How alike two pictures are by their pixels: squared error and SSIM; `varient.evaluation.lpips` asks a network.

SSIM is that of torchmetrics (Wang et al. 2004; Gaussian window, images reflected at their borders, mean over positions
and channels), which a test holds it to.  Here the window is applied along rows and columns apart, as products with
strips of a banded matrix, which takes a fraction of the time.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

WHITE = 255.0
KERNEL, SIGMA = 11, 1.5
"""Side and standard deviation of SSIM's window, pixels."""
_C1, _C2 = (0.01 * WHITE) ** 2, (0.03 * WHITE) ** 2
_STRIP = 32
"""Rows or columns that are blurred at once."""


def squared_error(a_BCHW: np.ndarray, b_BCHW: np.ndarray) -> np.ndarray:
    """Mean squared difference (B,), float64, of uint8 images, in squared grey levels."""
    difference = a_BCHW.astype(np.int32) - b_BCHW
    return np.square(difference).mean(axis=(1, 2, 3), dtype=np.float64)


def psnr_db(squared_error: float) -> float:
    """Peak signal-to-noise ratio of a mean squared error of grey levels 0..255, dB; infinite where it is 0."""
    return 10 * math.log10(WHITE ** 2 / squared_error) if squared_error else math.inf


def ssim_window(side: int) -> tuple[int, float]:
    """Side and standard deviation of the window for images of a side: 11 and 1.5, in smaller images the largest odd
    side that fits, and a standard deviation in proportion."""
    kernel = min(KERNEL, side - (side + 1) % 2)
    return kernel, SIGMA * kernel / KERNEL


def ssim(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """Structural similarity (B,), float32, of square images of values 0..255, with the window of `ssim_window`.

    It is exactly 1 for equal images.  The sum of both variances is taken from the difference of the images and their
    covariance, and the mean of each pair is subtracted first: variances are small differences of large numbers.
    """
    a, b = a_BCHW.float(), b_BCHW.float()
    middle_B111 = (a.mean(dim=(1, 2, 3), keepdim=True) + b.mean(dim=(1, 2, 3), keepdim=True)) / 2
    a, b = a - middle_B111, b - middle_B111
    mean_a, mean_b, mean_square, mean_product = _blurred(torch.stack([a, b, (a - b).square(), a * b]))
    unlike = (mean_square - (mean_a - mean_b).square()).clamp(min=0)  # the variance of the difference
    covariance = mean_product - mean_a * mean_b
    mean_a, mean_b = mean_a + middle_B111, mean_b + middle_B111
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    contrast = (2 * covariance + _C2) / (2 * covariance + unlike + _C2)
    return (luminance * contrast).mean(dim=(1, 2, 3)).clamp(max=1)


def _blurred(maps: Tensor) -> Tensor:
    """Weighted means (..., S, S) over the window around each position of maps of that shape."""
    side = maps.shape[-1]
    window_SS, reach = _window(side).to(maps.device), ssim_window(side)[0] // 2
    strips = [(slice(at, at + _STRIP), slice(max(at - reach, 0), at + _STRIP + reach)) for at in range(0, side, _STRIP)]
    rows = torch.cat([window_SS[to, of] @ maps[..., of, :] for to, of in strips], dim=-2)
    return torch.cat([rows[..., of] @ window_SS[to, of].T for to, of in strips], dim=-1)


@lru_cache(maxsize=4)
def _window(side: int) -> Tensor:
    """(S, S), float32: row i has the weights of the pixels around i, those beyond the border reflected at it."""
    kernel, sigma = ssim_window(side)
    offset = np.arange(kernel) - kernel // 2
    weight = np.exp(-np.square(offset / sigma) / 2)
    weight /= weight.sum()
    window_SS = np.zeros((side, side))
    for row in range(side):
        pixel = np.abs(row + offset)
        np.add.at(window_SS[row], np.where(pixel < side, pixel, 2 * (side - 1) - pixel), weight)
    return torch.from_numpy(window_SS).float()
