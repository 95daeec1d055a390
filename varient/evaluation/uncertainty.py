"""Standard deviations of scores over redraws of the images, and the bias of FID from a finite number of images.

The generated images are redrawn and the reference is fixed, as in the protocol.  Recall is the exception: its standard
deviation is over redraws of the real images (`share_spread`).

Standard deviations are estimated by half-sampling: the images are split at random into two halves, the score is
computed on each, and half the difference has the standard deviation of the score of all images.  Bias is the same in
both halves and cancels.  A confidence interval is *point ± z sd*.  A bootstrap with replacement would be biased:
repeated images raise FID by about b/N, and KID excludes pairs of an image with itself but not pairs of copies.

To first order both methods agree.  Where generated and real distribution are equal the first order vanishes, and the sd
of FID and KID is too high by a factor of up to sqrt(2) (against 600 redraws in 8 dimensions: 1.40 where FID is only
bias, 1.15 where it is twice the bias, then 1.05 and 1.00).

With P pairs of halves the relative error of an sd is 1 / sqrt(2 P): 22 % for P = 10, 7 % for P = 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from varient.evaluation.moments import FeatureError, FrechetReference, Gaussian, Moments, check_features, check_pair
from varient.evaluation.neighbours import squared_distances
from varient.evaluation.scores import (
    SEED,
    KernelDistance,
    block_of_images,
    predictions,
    score_per_block,
)

Kernel = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Values (n, m) for features (n, F) and (m, F)."""
TILE = 2048
"""Rows and columns of kernel values held at once."""
LEAST_IMAGES = 4
"""Fewer cannot be halved."""


@dataclass(frozen=True)
class Spread:
    """A score with its standard deviation over redraws of the images, both in the unit of the score.

    The generated images are redrawn, for recall the real ones.  The spread between trainings is
    `varient.results.SeedSpread`.
    """

    point: float
    sd: float


@dataclass(frozen=True)
class FrechetBias:
    """Bias of FID from a finite number of generated images."""

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

    With ``strata_N`` (class labels, int) each stratum is halved separately.  That suits samples with a fixed number of
    images in each class: differences between classes are then not part of the spread.

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
        # one of every two consecutive images of a stratum goes into each half
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
    within_W = _sums_within(generated, weight_NW, _cubic_less_1)
    across_W = _sums_across(generated, real, weight_NW, _cubic_less_1)
    count_W = weight_NW.double().sum(dim=0)
    values_W = within_W / (count_W * (count_W - 1)) - 2 * across_W / (count_W * len(real))
    halves = _sd(values_W.numpy().reshape(2, pairs), firsts_PN)
    return Spread(estimate.mean, math.hypot(halves, estimate.std / math.sqrt(len(estimate.per_subset))))


def embedding_spread(generated_NF: np.ndarray, real_MF: np.ndarray, bandwidth: float, scale: float, pairs: int = 100,
                     seed: int = SEED, labels_N: np.ndarray | None = None) -> Spread:
    """CMMD and its standard deviation: the squared maximum mean discrepancy of two sets of embeddings, times ``scale``,
    with the kernel exp(-|x - y|^2 / (2 bandwidth^2)) (Jayasumana et al. 2024, arXiv 2401.09603).

    The estimate is the biased one, with the pairs of an image with itself: 0 for equal sets, never below.  Distances
    are float32, sums float64.  Halves have a larger bias, but both the same, so that it cancels in the spread.

    Cost: all (N^2 + M^2) / 2 + N M kernel values once; beside the features a tile of them is held.

    Raises:
        FeatureError: features that are no finite tables or that do not fit each other.
        ValueError: fewer than 4 generated images.
    """
    check_pair(generated_NF, real_MF)
    firsts_PN = half_samples(len(generated_NF), pairs, seed, labels_N)
    whole_1N = np.ones((1, len(generated_NF)), bool)
    weight_NW = torch.from_numpy(np.concatenate([whole_1N, firsts_PN, ~firsts_PN]).T.astype(np.float64))
    generated, real = (torch.from_numpy(np.array(rows, np.float32)) for rows in (generated_NF, real_MF))

    def kernel(x_nF: torch.Tensor, y_mF: torch.Tensor) -> torch.Tensor:
        """Less 1: the constant cancels in the discrepancy, the rest is small, and so is 0 for an image with itself."""
        return squared_distances(x_nF, y_mF).double().div_(-2 * bandwidth ** 2).expm1_()

    every_M1 = torch.ones(len(real), 1, dtype=torch.float64)
    count_W = weight_NW.sum(dim=0)
    values_W = (_sums_within(generated, weight_NW, kernel) / count_W ** 2
                + _sums_within(real, every_M1, kernel) / len(real) ** 2
                - 2 * _sums_across(generated, real, weight_NW, kernel) / (count_W * len(real)))
    values_W = scale * values_W.clamp(min=0).numpy()
    return Spread(float(values_W[0]), _sd(values_W[1:].reshape(2, pairs), firsts_PN))


def share_spread(inside_N: np.ndarray, labels_N: np.ndarray | None = None) -> Spread:
    """Precision or recall, from its booleans (N,), and the standard deviation of a share of independent images.

    This is the limit of a bootstrap of the booleans. With labels the variance is within classes.

    For precision and a fixed reference it is exact, as each generated image is inside the real manifold or not
    whatever the others are (simulations in 4 to 64 dimensions: within 4 % of the sd over 150 redraws). For recall it
    is the sd over redraws of the *real* images in a fixed generated manifold. It approximates the sd over redraws of
    the generated images (0.86, 1.15 and 1.00 of it in the same simulations); half-sampling is no better there (0.80 to
    0.87), because the manifold of half the images is a different one.

    Raises:
        ValueError: no images, or not one label for each.
    """
    if len(inside_N) == 0 or (labels_N is not None and labels_N.shape != inside_N.shape):
        raise ValueError(f"{len(inside_N)} images, and as many labels if any, are needed")
    groups = [inside_N] if labels_N is None else [inside_N[labels_N == label] for label in np.unique(labels_N)]
    # a class with a single image has no sample variance: 1/4, the largest possible, is assumed
    variance = sum(len(group) * (group.var(ddof=1) if len(group) > 1 else 0.25) for group in groups)
    return Spread(float(inside_N.mean()), math.sqrt(variance) / len(inside_N))


def frechet_bias(reference: Gaussian, num_images: int) -> FrechetBias:
    """Bias b/N of FID for ``num_images`` Gaussian features with the distribution of the reference.

    With the eigenvalues l of the reference covariance, b = sum_i l_i + 1/2 (sum_ij l_i l_j / (l_i + l_j) + sum_i l_i /
    2): the contributions of the mean and of the covariance (second order of the Bures metric). A reference estimated
    from M images adds its own b/M. The approximation degrades with the distance from the reference; `frechet_infinity`
    makes no such assumption.
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
    at least twice the number of features) to all of them. It is reported beside FID and does not replace it: it varies
    more (14 % in a simulation), and FID is linear in 1/N only for N well above the number of features.

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


def _sums_within(rows_NF: torch.Tensor, weight_NW: torch.Tensor, kernel: Kernel) -> torch.Tensor:
    """Sums (W,), float64, of a kernel over all pairs of different rows, each with the product of their weights."""
    sum_W = torch.zeros(weight_NW.shape[1], dtype=torch.float64)
    starts = range(0, len(rows_NF), TILE)
    for at in starts:
        rows = slice(at, at + TILE)
        for to in starts[at // TILE:]:
            columns = slice(to, to + TILE)
            kernel_nm = kernel(rows_NF[rows], rows_NF[columns])
            if at == to:
                kernel_nm.fill_diagonal_(0)
            product_W = (weight_NW[rows] * (kernel_nm @ weight_NW[columns])).sum(dim=0).double()
            sum_W += product_W if at == to else 2 * product_W
    return sum_W


def _sums_across(rows_NF: torch.Tensor, others_MF: torch.Tensor, weight_NW: torch.Tensor,
                 kernel: Kernel) -> torch.Tensor:
    """Sums (W,), float64, of a kernel over all pairs of a row and another, each with the row's weight."""
    sum_W = torch.zeros(weight_NW.shape[1], dtype=torch.float64)
    for at in range(0, len(rows_NF), TILE):
        rows = slice(at, at + TILE)
        for to in range(0, len(others_MF), TILE):
            sum_W += (weight_NW[rows].T @ kernel(rows_NF[rows], others_MF[to:to + TILE]).sum(dim=1)).double()
    return sum_W


def _cubic_less_1(x_nF: torch.Tensor, y_mF: torch.Tensor) -> torch.Tensor:
    """KID's kernel (n, m) minus 1: the constant cancels in the distance and would cost precision."""
    t_nm = (x_nF @ y_mF.T).div_(x_nF.shape[1])
    return (t_nm + 3).mul_(t_nm).add_(3).mul_(t_nm)
