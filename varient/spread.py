"""A value with its uncertainty, in one form everywhere: ± is half the width of a 95 % interval.

What the interval covers is said where it stands: redraws of the scored images, or trainings that differ in their seed.
A score has the same number of decimals wherever it is shown.
"""

from __future__ import annotations

NORMAL_95 = 1.96
"""Half the width of a 95 % interval, in standard deviations."""

DECIMALS = {"fid": 3, "fid_test": 3, "fid_cross": 3, "sfid": 3, "kid": 5, "inception_score": 2, "precision": 3,
            "recall": 3, "density": 3, "coverage": 3, "mind": 3, "vendi": 2, "recognised": 3, "loss": 3,
            "latency_s": 4, "memory_mb": 1, "psnr_db": 2, "ssim": 4, "lpips": 4, "feature_distance": 3,
            "same_class": 3, "tokens": 3, "cmmd": 3}
"""Decimals of each score and cost of a record."""


def half_width(sd: float) -> float:
    """Half the width of a 95 % interval, from a standard deviation."""
    return NORMAL_95 * sd


def with_spread(value: float, sd: float | None, decimals: int) -> str:
    """"0.666 ± 0.057"; without a standard deviation the value alone."""
    return joined(f"{value:.{decimals}f}", "" if sd is None else f"{half_width(sd):.{decimals}f}")


def joined(value: str, spread: str) -> str:
    """A value and half the width of its interval, both as text; an empty one is left out."""
    return f"{value} ± {spread}" if spread else value
