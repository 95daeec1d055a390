"""Mean and covariance of features, mergeable over shards, and the Fréchet distance between two of them.

The merging is not left to a library: NumPy and SciPy need all features at once, and the accumulators of metric packages
add up raw products, whose difference to the squared mean loses digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import torch

CHUNK_ROWS = 4096
"""Rows converted to float64 at once, a compromise between the cost of F x F updates and memory."""


class FeatureError(ValueError):
    """Features or statistics from which a score cannot be computed; the message names them and the fault."""


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean (F,) and covariance (F, F) with ddof 1, both float64, between which the Fréchet distance is taken.

    Arguments may have any float dtype. ``count`` is the number of images, or None where it is unknown, as for
    statistics of a file (ADM's `mu`, `sigma`).

    Raises:
        FeatureError: shapes that do not fit each other, or values that are not finite.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None = None

    def __post_init__(self) -> None:
        mean, covariance = (np.asarray(value, np.float64) for value in (self.mean, self.covariance))
        if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
            raise FeatureError(f"a mean of shape {mean.shape} needs a covariance of shape {2 * mean.shape}, not "
                               f"{covariance.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise FeatureError("mean or covariance is not finite")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean (F,) and sum of centred squares (F, F) of features, float64.

    Shards can be merged in any order, up to float64 rounding; in the same order the result is identical to the bit.
    """

    count: int
    mean: np.ndarray
    m2: np.ndarray

    @classmethod
    def of(cls, feature_NF: np.ndarray) -> Moments:
        """Moments of features of any float dtype, a chunk at a time.

        Each chunk is centred before it is squared, to avoid cancellation.

        Raises:
            FeatureError: not a table of finite floating-point features.
        """
        check_features(feature_NF)
        return reduce(cls.merge, map(cls._of_chunk, chunks(feature_NF)))

    @classmethod
    def _of_chunk(cls, chunk_nF: np.ndarray) -> Moments:
        centred_nF = chunk_nF.astype(np.float64)
        mean_F = centred_nF.mean(axis=0)
        centred_nF -= mean_F
        return cls(len(chunk_nF), mean_F, centred_nF.T @ centred_nF)

    def merge(self, other: Moments) -> Moments:
        """Moments of both sets together (Chan, Golub and LeVeque 1979).

        Raises:
            FeatureError: features of different length.
        """
        _check_same_length(self.mean, other.mean)
        count = self.count + other.count
        shift_F = other.mean - self.mean
        m2 = np.outer(shift_F, shift_F * (self.count * other.count / count))
        m2 += self.m2
        m2 += other.m2
        return Moments(count, self.mean + shift_F * (other.count / count), m2)

    def without(self, part: Moments) -> Moments:
        """Moments without the images of ``part``: the inverse of `merge`, accurate where both are large.

        Raises:
            FeatureError: features of different length, or nothing left.
        """
        _check_same_length(self.mean, part.mean)
        count = self.count - part.count
        if count < 1:
            raise FeatureError(f"{part.count} images cannot be taken out of {self.count}")
        mean_F = self.mean + (self.mean - part.mean) * (part.count / count)
        shift_F = mean_F - part.mean
        m2 = np.outer(shift_F, shift_F * (-part.count * count / self.count))
        m2 += self.m2
        m2 -= part.m2
        return Moments(count, mean_F, m2)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance (ddof 1), as `np.cov` gives it.

        Raises:
            FeatureError: a single image has none.
        """
        if self.count < 2:
            raise FeatureError("a covariance needs at least 2 images")
        return self.m2 / (self.count - 1)

    def gaussian(self, *, allow_rank_deficient: bool = False) -> Gaussian:
        """Mean and covariance for the Fréchet distance.

        Raises:
            FeatureError: no more images than features, so that the covariance is rank deficient and the distance is
                dominated by the number of images; unless that is allowed.
        """
        features = len(self.mean)
        if self.count <= features and not allow_rank_deficient:
            raise FeatureError(f"{self.count} images are too few: the covariance of {features} features needs at least "
                               f"{features + 1}")
        return Gaussian(self.mean, self.covariance, self.count)


@dataclass(frozen=True, eq=False)
class FrechetReference:
    """A reference distribution; the square root of its covariance is computed once for all comparisons.

    At F = 2048 the root takes 33.5 MB and a few CPU-seconds, each distance 3 to 4 CPU-seconds.
    """

    gaussian: Gaussian

    @cached_property
    def root(self) -> torch.Tensor:
        """Symmetric square root (F, F) of the covariance; eigenvalues that rounding made negative count as 0."""
        values, vectors = torch.linalg.eigh(torch.tensor(self.gaussian.covariance))
        return (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def distance(self, other: Gaussian) -> float:
        """Squared Fréchet distance: |mean difference|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2).

        The trace of the last root is the sum of the roots of the eigenvalues of a symmetric matrix, which are those of
        S1 S2: real whatever the rank, where the usual `sqrtm(S1 @ S2)` turns complex. For nearly equal sets rounding
        may exceed the distance (1e-7 of the trace where the covariance is rank deficient), and then it is 0.

        Raises:
            FeatureError: features of different length.
        """
        _check_same_length(self.gaussian.mean, other.mean)
        product = self.root @ torch.tensor(other.covariance) @ self.root
        cross = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum().item()
        shift_F = self.gaussian.mean - other.mean
        traces = np.trace(self.gaussian.covariance) + np.trace(other.covariance)
        return max(float(shift_F @ shift_F + traces - 2 * cross), 0.0)


def check_features(feature_NF: np.ndarray, name: str = "features") -> None:
    """Check that an array is a table (N, F) of finite floating-point numbers with at least one row.

    Raises:
        FeatureError: it is not.
    """
    if feature_NF.ndim != 2 or not np.issubdtype(feature_NF.dtype, np.floating) or 0 in feature_NF.shape:
        raise FeatureError(f"{name}: a table (N, F) of floating-point numbers is needed, not {feature_NF.dtype} of "
                           f"shape {feature_NF.shape}")
    for at, chunk_nF in enumerate(chunks(feature_NF)):
        finite_n = np.isfinite(chunk_nF).all(axis=1)
        if not finite_n.all():
            first = at * CHUNK_ROWS + int(finite_n.argmin())
            raise FeatureError(f"{name}: row {first} is not finite")


def check_pair(generated_NF: np.ndarray, real_MF: np.ndarray) -> None:
    """Check that two sets of features can be compared.

    Raises:
        FeatureError: one of them is no table of finite numbers, or their features have different length.
    """
    check_features(generated_NF, "generated")
    check_features(real_MF, "reference")
    _check_same_length(generated_NF[0], real_MF[0])


def chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Consecutive slices of at most `CHUNK_ROWS` rows."""
    return (rows[at:at + CHUNK_ROWS] for at in range(0, len(rows), CHUNK_ROWS))


def _check_same_length(a_F: np.ndarray, b_F: np.ndarray) -> None:
    if a_F.shape != b_F.shape:
        raise FeatureError(f"{len(a_F)} features cannot be compared with {len(b_F)}")
