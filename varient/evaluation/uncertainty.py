"""How far a score would move if the images were drawn again, and how far the number of images alone moves it.

Drawn again are the generated images; the reference stands still, as it does in the protocol.  Recall is the exception:
its spread is over redraws of the real images (`share_spread`).

Standard deviations come from a bootstrap without replacement: the images are cut at random into two halves, a score is
computed on each, and half the difference of the two varies as the score of all images does. Why not resample with
replacement and read off percentiles: FID rises by about b/N when images are drawn twice, so percentiles lie around a
wrong centre (shift .0059 at an sd of .0083 in a 64-dimensional toy), and doubled images spoil KID, whose estimate
leaves out pairs of an image with itself. In the difference of two halves what both share, bias included, drops out. An
interval is therefore *point ± z sd*. To first order the two bootstraps are the same; where generated and reference
distribution are equal the first order vanishes, and the sd of FID and KID comes out too high, by a factor up to
sqrt(2) (an 8-dimensional toy, against 600 redraws: 1.40 where FID is all bias, 1.15 where it is twice the bias, then
1.05, 1.00).

With P pairs of halves, an sd is itself known to 1 / sqrt(2 P): 22 % for P = 10, 7 % for P = 100.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from varient.evaluation.moments import FeatureError, FrechetReference, Gaussian, Moments, check_features, check_pair
from varient.evaluation.scores import (
    SEED,
    KernelDistance,
    block_of_images,
    predictions,
    score_per_block,
)

TILE = 2048
"""Rows and columns of kernel values held at once."""
LEAST_IMAGES = 4
"""Fewer cannot be halved."""


@dataclass(frozen=True)
class Spread:
    """A score with its standard deviation over redraws of the images, both in the score's own unit.

    Over redraws of the generated images, except for recall: of the real ones.  Trainings that differ in their seed are
    another matter (`varient.results.SeedSpread`).
    """

    point: float
    sd: float


@dataclass(frozen=True)
class FrechetBias:
    """By how much FID exceeds the distance of the distributions because there are finitely many images."""

    coefficient_images: float
    """b in FID_N = FID_inf + b/N + O(1/N^2)."""
    num_images: int

    @property
    def bias(self) -> float:
        """b/N, in units of FID."""
        return self.coefficient_images / self.num_images


@dataclass(frozen=True)
class FrechetInfinity:
    """FID extrapolated to infinitely many generated images."""

    fid_infinity: float
    slope_images: float
    """b of the fitted line FID = fid_infinity + b/N."""
    num_images: tuple[int, ...]
    """Sizes of the sub-samples."""
    fid: tuple[float, ...]
    """FID of each of them."""


def half_samples(num_images: int, pairs: int, seed: int, strata_N: np.ndarray | None = None) -> np.ndarray:
    """Membership (pairs, N), bool, in the first of two random halves; the second is the rest.

    With ``strata_N`` (class labels, int) each stratum is halved by itself, as an experiment with a fixed number of
    images in each class wants it: what differs among classes is then no part of the spread.

    Raises:
        ValueError: fewer than 4 images, no pairs, or not one stratum for each image.
    """
    if num_images < LEAST_IMAGES or pairs < 1:
        raise ValueError(f"{num_images} images and {pairs} pairs: halves need at least {LEAST_IMAGES} images and a "
                         "pair")
    if strata_N is None:
        strata_N = np.zeros(num_images, np.int64)
    if strata_N.shape != (num_images,):
        raise ValueError(f"{num_images} images need as many strata, not {strata_N.shape}")
    draw = np.random.default_rng(seed)
    first_PN = np.zeros((pairs, num_images), bool)
    for first_N in first_PN:
        order = np.lexsort((draw.random(num_images), strata_N))
        coin = draw.random((num_images + 1) // 2) < 0.5
        # of two that follow each other in a stratum, one goes into each half
        first_N[order] = np.repeat(coin, 2)[:num_images] ^ (np.arange(num_images) % 2 == 1)
    return first_PN


def frechet_spread(generated_NF: np.ndarray, reference: FrechetReference, pairs: int = 10, seed: int = SEED,
                   labels_N: np.ndarray | None = None) -> Spread:
    """FID and its standard deviation.

    Cost: for each pair the covariance of one half (the other's follows by subtraction) and two eigenproblems of side
    F: about 13 CPU-seconds at F = 2048, N = 50,000.

    Raises:
        FeatureError: features that are not finite, no more images than features, or a reference of other features.
    """
    total = Moments.of(generated_NF)
    point = reference.distance(total.gaussian())
    firsts_PN = half_samples(len(generated_NF), pairs, seed, labels_N)
    differences = []
    for first_N in firsts_PN:
        half = Moments.of(generated_NF[first_N])
        differences.append([reference.distance(part.gaussian(allow_rank_deficient=True))
                            for part in (half, total.without(half))])
    return Spread(point, _sd(np.array(differences).T, firsts_PN))


def inception_spread(logit_NK: np.ndarray, blocks: np.ndarray, permutation: np.ndarray, pairs: int = 100,
                     seed: int = SEED, labels_N: np.ndarray | None = None) -> Spread:
    """Inception score (mean over blocks) and its standard deviation; arguments as for `inception_score`.

    Each block is halved by itself. Halves score lower than whole blocks, by the bias of IS, and vary less by as much.

    Cost: one pass over the logits, and for each block a product of (2 pairs, n) and (n, K): seconds at N = 50,000.

    Raises:
        FeatureError: logits that are no finite table.
        ValueError: blocks or permutation for another number of images.
    """
    check_features(logit_NK, "logits")
    if len(logit_NK) != blocks[-1]:
        raise FeatureError(f"{len(logit_NK)} images, but the blocks hold {blocks[-1]}")
    block_N = block_of_images(blocks, permutation)
    strata_N = block_N if labels_N is None else block_N * (int(labels_N.max()) + 1) + labels_N
    firsts_PN = half_samples(len(logit_NK), pairs, seed, strata_N)
    count, p, plogp = [], [], []
    for block in range(len(blocks) - 1):
        members = np.flatnonzero(block_N == block)
        p_nK, plogp_n = predictions(logit_NK[members])
        first_Pn = firsts_PN[:, members]
        weight_Wn = np.concatenate([np.ones((1, len(members))), first_Pn, ~first_Pn])
        count.append(weight_Wn.sum(axis=1))
        p.append(weight_Wn @ p_nK)
        plogp.append(weight_Wn @ plogp_n)
    scores_W = score_per_block(*(np.stack(sums, axis=1) for sums in (count, p, plogp))).mean(axis=1)
    return Spread(float(scores_W[0]), _sd(scores_W[1:].reshape(2, pairs), firsts_PN))


def kernel_spread(generated_NF: np.ndarray, real_MF: np.ndarray, estimate: KernelDistance, pairs: int = 100,
                  seed: int = SEED, labels_N: np.ndarray | None = None) -> Spread:
    """Standard deviation of a KID that `kernel_distance` gave for these features.

    Two parts add up: that of the estimate from all pairs of images, by halves, and that of taking random subsets only,
    which the subsets show themselves.

    Cost: all N^2 / 2 + N M kernel values once, in float32: about as much as precision and recall.

    Raises:
        FeatureError: features that are no finite tables or that do not fit each other.
    """
    check_pair(generated_NF, real_MF)
    firsts_PN = half_samples(len(generated_NF), pairs, seed, labels_N)
    weight_NW = torch.from_numpy(np.concatenate([firsts_PN, ~firsts_PN]).T.astype(np.float32))
    generated, real = (torch.from_numpy(np.array(rows, np.float32)) for rows in (generated_NF, real_MF))
    within_W, across_W = (torch.zeros(2 * pairs, dtype=torch.float64) for _ in range(2))
    starts = range(0, len(generated), TILE)
    for at in starts:
        rows = slice(at, at + TILE)
        for to in range(0, len(real), TILE):
            kernel_nm = _cubic_less_1(generated[rows], real[to:to + TILE])
            across_W += (weight_NW[rows].T @ kernel_nm.sum(dim=1)).double()
        for to in starts[at // TILE:]:
            columns = slice(to, to + TILE)
            kernel_nm = _cubic_less_1(generated[rows], generated[columns])
            if at == to:
                kernel_nm.fill_diagonal_(0)
            product_W = (weight_NW[rows] * (kernel_nm @ weight_NW[columns])).sum(dim=0).double()
            within_W += product_W if at == to else 2 * product_W
    count_W = weight_NW.double().sum(dim=0)
    values_W = within_W / (count_W * (count_W - 1)) - 2 * across_W / (count_W * len(real))
    halves = _sd(values_W.numpy().reshape(2, pairs), firsts_PN)
    return Spread(estimate.mean, math.hypot(halves, estimate.std / math.sqrt(len(estimate.per_subset))))


def share_spread(inside_N: np.ndarray, labels_N: np.ndarray | None = None) -> Spread:
    """Precision or recall, from its booleans (N,), and the standard deviation of a share of independent images.

    That is what a bootstrap of the booleans tends to, without drawing one. With labels, of each class by itself.

    For precision and a fixed reference it is exact: whether an image is inside the real manifold hangs on that image
    alone (toys of 4 to 64 dimensions: within 4 % of the sd over 150 redraws). For recall it is the sd over redraws of
    the *real* images in a fixed generated manifold, and only a scale for redraws of the generated ones (same toys:
    0.86, 1.15 and 1.00 of it); halves do no better there (0.80 to 0.87), as a manifold of half the images is
    another one.

    Raises:
        ValueError: no images, or not one label for each.
    """
    if len(inside_N) == 0 or (labels_N is not None and labels_N.shape != inside_N.shape):
        raise ValueError(f"{len(inside_N)} images, and as many labels if any, are needed")
    groups = [inside_N] if labels_N is None else [inside_N[labels_N == label] for label in np.unique(labels_N)]
    # a single image says nothing about the spread in its class: 0 would be too good, 1/4 is the most there can be
    variance = sum(len(group) * (group.var(ddof=1) if len(group) > 1 else 0.25) for group in groups)
    return Spread(float(inside_N.mean()), math.sqrt(variance) / len(inside_N))


def frechet_bias(reference: Gaussian, num_images: int) -> FrechetBias:
    """b/N of ``num_images`` Gaussian features that are distributed as the reference is.

    In the reference covariance's eigenvalues l: b = sum_i l_i + 1/2 (sum_ij l_i l_j / (l_i + l_j) + sum_i l_i / 2),
    the means' part and that of the covariance (second order of the Bures metric). A reference estimated from M images
    adds its own b/M. The farther from the reference, the less it holds: see `frechet_infinity`.
    """
    value_F = np.linalg.eigvalsh(reference.covariance).clip(min=0)
    value_F = value_F[value_F > 0]
    trace = value_F.sum()
    pairs = (np.outer(value_F, value_F) / np.add.outer(value_F, value_F)).sum()
    return FrechetBias(float(trace + (pairs + trace / 2) / 2), num_images)


def frechet_infinity(generated_NF: np.ndarray, reference: FrechetReference, points: int = 15,
                     smallest: int | None = None, seed: int = SEED) -> FrechetInfinity:
    """Extrapolate FID to infinitely many images by a line in 1/N (Chong & Forsyth 2020, arXiv 1911.07023).

    ``points`` sub-samples without replacement, sizes evenly spaced from ``smallest`` (default: a tenth of the images,
    at least twice the number of features) to all of them. A second number beside FID, not in its place: it varies more
    (14 % in a toy), and the line is straight only when N is well above the number of features.

    Cost at F = 2048, N = 50,000: 15 covariances of 27,500 images on average and as many eigenproblems: 110 CPU-seconds.

    Raises:
        FeatureError: features that are no finite table, of another length than the reference's, or too few.
        ValueError: fewer than 2 points.
    """
    count, features = generated_NF.shape
    smallest = smallest_subsample(count, features, smallest)
    if points < 2:
        raise ValueError("a line needs at least 2 points")
    draw = np.random.default_rng(seed)
    sizes = np.linspace(smallest, count, points).round().astype(int)
    fids = [reference.distance(Moments.of(generated_NF[np.sort(draw.permutation(count)[:size])]).gaussian())
            for size in sizes]
    slope, intercept = np.polyfit(1 / sizes, fids, deg=1)
    return FrechetInfinity(float(intercept), float(slope), tuple(sizes.tolist()), tuple(fids))


def smallest_subsample(num_images: int, num_features: int, smallest: int | None = None) -> int:
    """Images in the smallest sub-sample of `frechet_infinity`: as asked for, or the default.

    Raises:
        FeatureError: no more than there are features, or no fewer than there are images.
    """
    smallest = max(num_images // 10, 2 * num_features) if smallest is None else smallest
    if not num_features < smallest < num_images:
        raise FeatureError(f"FID at infinity: sub-samples of {smallest} out of {num_images} images: more than the "
                           f"{num_features} features and fewer than all images are needed")
    return smallest


def _sd(halves_2P: np.ndarray, firsts_PN: np.ndarray) -> float:
    """Standard deviation of the score of all N images from its values on pairs of halves.

    The difference of halves of n and N - n images has variance s^2 (1/n + 1/(N - n)), and s^2 / N is wanted.
    """
    first_P, count = firsts_PN.sum(axis=1), firsts_PN.shape[1]
    shrink_P = first_P * (count - first_P) / count ** 2
    return float(np.sqrt(np.mean((halves_2P[0] - halves_2P[1]) ** 2 * shrink_P)))


def _cubic_less_1(x_nF: torch.Tensor, y_mF: torch.Tensor) -> torch.Tensor:
    """KID's kernel (n, m) less 1: the 1 drops out of the distance and would cost digits."""
    t_nm = (x_nF @ y_mF.T).div_(x_nF.shape[1])
    return (t_nm + 3).mul_(t_nm).add_(3).mul_(t_nm)
