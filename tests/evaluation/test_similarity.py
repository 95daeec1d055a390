"""PSNR and SSIM beside torchmetrics."""

import math

import numpy as np
import pytest
import torch

from varient.evaluation.similarity import psnr_db, squared_error, ssim, ssim_window

image = pytest.importorskip("torchmetrics.functional.image", reason="needs torchmetrics")


def _pair(side, noise, count=5, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (count, 3, side, side))
    b = np.clip(a + rng.normal(0, noise, a.shape).round(), 0, 255)
    return a.astype(np.uint8), b.astype(np.uint8)


@pytest.mark.parametrize(("side", "kernel"), [(1, 1), (2, 1), (3, 3), (8, 7), (10, 9), (11, 11), (12, 11), (256, 11)])
def test_the_window_fits_the_image_and_is_odd(side, kernel):
    found, sigma = ssim_window(side)
    assert found == kernel and sigma == pytest.approx(1.5 * kernel / 11)


@pytest.mark.parametrize("side", [3, 8, 28, 33, 72])
@pytest.mark.parametrize("noise", [1.0, 30.0])
def test_ssim_is_torchmetrics_with_the_same_window(side, noise):
    a, b = _pair(side, noise)
    theirs = image.structural_similarity_index_measure(
        torch.from_numpy(a).double(), torch.from_numpy(b).double(), data_range=255.0, sigma=ssim_window(side)[1],
        reduction="none")
    ours = ssim(torch.from_numpy(a), torch.from_numpy(b))
    assert ours.numpy() == pytest.approx(theirs.numpy(), abs=1e-6)
    assert theirs.min() < 1 - 1e-4


def _uneven(kind):
    """Pairs whose variances are far smaller than their squares, in all positions or in most."""
    rng = np.random.default_rng(0)
    a = np.full((2, 3, 64, 64), 250)
    b = a.copy()
    if kind == "a shape on white":
        b[:, :, 20:40, 20:40] = 10
    elif kind == "light noise":
        a, b = (rng.integers(245, 256, a.shape) for _ in range(2))
    elif kind == "dark noise":
        a, b = (rng.integers(0, 4, a.shape) for _ in range(2))
    elif kind == "halves":
        a[..., :32] = 5
        b = a + rng.integers(0, 4, a.shape)
    elif kind == "a ramp":
        a, b = (np.broadcast_to(np.arange(64) * 3 + step, a.shape) for step in (0, 1))
    return a.astype(np.uint8), b.astype(np.uint8)


@pytest.mark.parametrize("kind", ["flat", "a shape on white", "light noise", "dark noise", "halves", "a ramp"])
def test_ssim_is_exact_where_variances_are_small(kind):
    a, b = (torch.from_numpy(half) for half in _uneven(kind))
    theirs = image.structural_similarity_index_measure(a.double(), b.double(), data_range=255.0, sigma=1.5,
                                                       reduction="none")
    assert ssim(a, b).numpy() == pytest.approx(theirs.numpy(), abs=1e-6)
    assert ssim(a, a).tolist() == ssim(b, b).tolist() == [1, 1]


def test_psnr_over_all_pairs_is_torchmetrics():
    a, b = _pair(16, 20.0)
    theirs = image.peak_signal_noise_ratio(torch.from_numpy(a).double(), torch.from_numpy(b).double(), data_range=255.0)
    assert psnr_db(squared_error(a, b).mean()) == pytest.approx(float(theirs), rel=1e-6)
    one, other = (torch.from_numpy(part[:1]).double() for part in (a, b))
    theirs = image.peak_signal_noise_ratio(one, other, data_range=255.0)
    assert psnr_db(squared_error(a, b)[0]) == pytest.approx(float(theirs), rel=1e-6)


def test_equal_images_are_as_alike_as_can_be():
    a, _ = _pair(8, 1.0)
    assert squared_error(a, a).tolist() == [0] * 5 and psnr_db(0.0) == math.inf
    assert ssim(torch.from_numpy(a), torch.from_numpy(a)).tolist() == [1] * 5


def test_black_against_white_is_no_overflow_of_bytes():
    black, white = np.zeros((1, 3, 8, 8), np.uint8), np.full((1, 3, 8, 8), 255, np.uint8)
    assert squared_error(black, white).tolist() == squared_error(white, black).tolist() == [255.0 ** 2]
    assert psnr_db(255.0 ** 2) == 0
