"""Inception score, KID, MIND and Vendi score from features and logits.

FID is `varient.evaluation.moments.FrechetReference`'s.  FID and sFID differ in the features alone: pool_3
(2048) and the first seven channels of Mixed_6d.branch1x1 (2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from varient.evaluation.moments import FeatureError, check_features, check_pair, chunks

SEED = 2020
"""torch-fidelity's seed, for the permutation of IS and the subsets of KID."""
ADM_BLOCK = 5000
"""Images in a block of ADM's Inception score."""


# Inception score

def unbiased_logits(pool_NF: np.ndarray, weight_KF: np.ndarray) -> np.ndarray:
    """Logits (N, K), float32, of the pooled features, by the classifier's weight without its bias, as ADM does it.

    Raises:
        FeatureError: features that are no finite table, or a weight for other features.
    """
    check_features(pool_NF, "pooled features")
    if weight_KF.ndim != 2 or weight_KF.shape[1] != pool_NF.shape[1]:
        raise FeatureError(f"a weight of shape {weight_KF.shape} does not fit {pool_NF.shape[1]} pooled features")
    return pool_NF.astype(np.float32, copy=False) @ weight_KF.astype(np.float32, copy=False).T


def fixed_permutation(num_images: int, seed: int = SEED) -> np.ndarray:
    """Image index (N,), int64, at each position of a seeded shuffle: torch-fidelity's ``feature[permutation]``.

    IS depends on the order (in order of classes it is several times too low), so all protocols use this one.
    """
    return np.random.RandomState(seed).permutation(num_images)


def adm_blocks(num_images: int, block_size: int = ADM_BLOCK) -> np.ndarray:
    """Bounds (S + 1,) of ADM's consecutive blocks: equal except for a shorter last one, which has the same weight.

    Raises:
        ValueError: no images.
    """
    return _bounds([*range(0, num_images, block_size), num_images])


def equal_blocks(num_images: int, splits: int = 10) -> np.ndarray:
    """Bounds (S + 1,) of torch-fidelity's splits.

    Raises:
        ValueError: fewer images than splits.
    """
    return _bounds([i * num_images // splits for i in range(splits + 1)])


def block_of_images(blocks: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    """Block (N,), int64, of each image index: the one that contains its position in the permutation.

    Args:
        blocks: bounds (S + 1,) of the blocks, in positions.
        permutation: image index (N,) at each position.

    Raises:
        ValueError: no permutation of the images that the blocks hold.
    """
    num_images = int(blocks[-1])
    if permutation.shape != (num_images,) or not np.array_equal(np.sort(permutation), np.arange(num_images)):
        raise ValueError(f"the blocks hold {num_images} images; {permutation.shape} is no permutation of them")
    block_N = np.empty(num_images, np.int64)
    block_N[permutation] = np.repeat(np.arange(len(blocks) - 1), np.diff(blocks))
    return block_N


@dataclass(frozen=True)
class InceptionScore:
    """exp of the mean KL divergence of a prediction from the mean prediction of its block; mean and std over blocks."""

    mean: float
    std: float
    """Population standard deviation over blocks (ddof 0), as torch-fidelity prints it; not an error of the mean."""
    per_block: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class PredictionSums:
    """Sufficient statistics of IS by block: number of images (S,), sum of p (S, K), sum of p log p (S,); float64.

    Shards can be merged in any order, because the block of an image depends on its index alone.
    """

    count_S: np.ndarray
    p_SK: np.ndarray
    plogp_S: np.ndarray

    @classmethod
    def of(cls, logit_nK: np.ndarray, block_n: np.ndarray, num_blocks: int) -> PredictionSums:
        """Sums over logits of any float dtype; log-softmax in float64, so that no probability underflows to NaN.

        Raises:
            FeatureError: logits that are no finite table.
            ValueError: not one block for each image, or a block that does not exist.
        """
        check_features(logit_nK, "logits")
        if block_n.shape != logit_nK.shape[:1] or block_n.min() < 0 or block_n.max() >= num_blocks:
            raise ValueError(f"{len(logit_nK)} images need a block 0..{num_blocks - 1} each")
        p_SK, plogp_S = np.zeros((num_blocks, logit_nK.shape[1])), np.zeros(num_blocks)
        for chunk_nK, chunk_n in zip(chunks(logit_nK), chunks(block_n), strict=True):
            p_nK, plogp_n = predictions(chunk_nK)
            for block in np.unique(chunk_n):
                p_SK[block] += p_nK[chunk_n == block].sum(axis=0)
            plogp_S += np.bincount(chunk_n, plogp_n, num_blocks)
        return cls(np.bincount(block_n, minlength=num_blocks), p_SK, plogp_S)

    def merge(self, other: PredictionSums) -> PredictionSums:
        """Sums over both sets of images.

        Raises:
            FeatureError: other numbers of classes or blocks.
        """
        if self.p_SK.shape != other.p_SK.shape:
            raise FeatureError(f"sums over {self.p_SK.shape} blocks and classes cannot take {other.p_SK.shape}")
        return PredictionSums(self.count_S + other.count_S, self.p_SK + other.p_SK, self.plogp_S + other.plogp_S)

    def score(self, blocks: np.ndarray) -> InceptionScore:
        """Inception score once the sums include all images.

        Raises:
            FeatureError: a block holds more or fewer images than it should.
        """
        for block, (count, expected) in enumerate(zip(self.count_S, np.diff(blocks), strict=True)):
            if count != expected:
                raise FeatureError(f"block {block} of the inception score holds {count} of {expected} images: a shard "
                                   "is missing or came twice")
        scores_S = score_per_block(self.count_S, self.p_SK, self.plogp_S)
        return InceptionScore(float(scores_S.mean()), float(scores_S.std()), tuple(scores_S.tolist()))


def inception_score(logit_NK: np.ndarray, blocks: np.ndarray, permutation: np.ndarray) -> InceptionScore:
    """Inception score of logits in order of image index.

    ``inception_score(logits, adm_blocks(n), fixed_permutation(n))`` is ADM's score of the images in that order;
    ``equal_blocks(n)`` in its place gives torch-fidelity's. ADM without a shuffle is ``np.arange(n)``.

    Args:
        logit_NK: logits of any float dtype.
        blocks: bounds (S + 1,), from `adm_blocks` or `equal_blocks`.
        permutation: image index (N,) at each position.

    Raises:
        FeatureError: logits that are no finite table, or not as many as the blocks hold.
    """
    if len(logit_NK) != blocks[-1]:
        raise FeatureError(f"{len(logit_NK)} images, but the blocks hold {blocks[-1]}")
    return PredictionSums.of(logit_NK, block_of_images(blocks, permutation), len(blocks) - 1).score(blocks)


def predictions(logit_nK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K) and each image's sum of p log p (n,), float64."""
    log_p_nK = torch.tensor(logit_nK, dtype=torch.float64).log_softmax(dim=1)
    p_nK = log_p_nK.exp()
    return p_nK.numpy(), (p_nK * log_p_nK).sum(dim=1).numpy()


def score_per_block(count_S: np.ndarray, p_SK: np.ndarray, plogp_S: np.ndarray) -> np.ndarray:
    """exp(mean p log p - sum q log q) of each block, q being its mean prediction; leading axes may come before S.

    A block without images (one half of a short last block) has the score of a single image, 1.
    """
    count_S = np.maximum(count_S, 1)
    q_SK = torch.from_numpy(p_SK / count_S[..., None])
    return np.exp(plogp_S / count_S - torch.xlogy(q_SK, q_SK).sum(dim=-1).numpy())


def _bounds(edges: list[int]) -> np.ndarray:
    bounds = np.array(edges)
    if len(bounds) < 2 or (np.diff(bounds) < 1).any():
        raise ValueError(f"{edges[-1]} images do not fill {len(edges) - 1} blocks")
    return bounds


# KID

@dataclass(frozen=True)
class KernelDistance:
    """KID: unbiased squared maximum mean discrepancy; may come out below 0. Mean and spread over subsets."""

    mean: float
    std: float
    """Population standard deviation over subsets (ddof 0); of one subset's value, not of the mean."""
    per_subset: tuple[float, ...]


def kernel_distance(generated_NF: np.ndarray, real_MF: np.ndarray, *, subsets: int = 100, subset_size: int = 1000,
                    seed: int = SEED) -> KernelDistance:
    """KID with the kernel (x.y / F + 1)^3 over random subsets, as torch-fidelity draws them (Binkowski et al. 2018).

    The arithmetic is in the features' dtype. float32 is torch-fidelity's, whose sums keep seven digits of terms that
    nearly cancel (KID to about 1e-7 times the kernel's size); pass float64 for more.

    Raises:
        FeatureError: features that are no finite tables, that do not fit each other, or fewer images than a subset.
    """
    check_pair(generated_NF, real_MF)
    for name, rows in (("generated", generated_NF), ("reference", real_MF)):
        if len(rows) < subset_size:
            raise FeatureError(f"{len(rows)} {name} images are fewer than a subset of {subset_size}")
    if subset_size < 2:
        raise ValueError("a subset needs at least 2 images")
    draw = np.random.RandomState(seed)
    values = np.array([_mmd2(generated_NF[draw.choice(len(generated_NF), subset_size, replace=False)],
                             real_MF[draw.choice(len(real_MF), subset_size, replace=False)])
                       for _ in range(subsets)], np.float64)
    return KernelDistance(float(values.mean()), float(values.std()), tuple(values.tolist()))


def _mmd2(x_mF: np.ndarray, y_mF: np.ndarray) -> float:
    """Unbiased estimate from two subsets of one size: pairs of an image with itself are left out."""
    m = len(x_mF)
    within = sum((kernel_mm.sum(axis=1) - np.diagonal(kernel_mm)).sum()
                 for kernel_mm in (_cubic(x_mF, x_mF), _cubic(y_mF, y_mF)))
    return within / (m * (m - 1)) - 2 * _cubic(x_mF, y_mF).sum(axis=0).sum() / (m * m)


def _cubic(x_mF: np.ndarray, y_mF: np.ndarray) -> np.ndarray:
    return (x_mF @ y_mF.T * (1 / x_mF.shape[1]) + 1) ** 3


# MIND

MIND_DIRECTIONS = 1000
_DIRECTIONS_AT_ONCE = 200


def monge_distance(generated_NF: np.ndarray, real_MF: np.ndarray, directions: int = MIND_DIRECTIONS,
                   seed: int = SEED) -> float:
    """MIND, the Monge Inception distance (Berthet et al. 2026, arXiv 2605.06797): 3 F times the mean over random
    directions of the squared distance between the sorted projections of both sets.

    Of the larger set as many images are taken at random as the smaller has.  These and the directions are drawn as by
    torch-fidelity's development version, which has MIND, in float32.

    Raises:
        FeatureError: features that are no finite tables, or that do not fit each other.
    """
    check_pair(generated_NF, real_MF)
    draw, count = torch.Generator().manual_seed(seed), min(len(generated_NF), len(real_MF))
    sets = []
    for rows in (generated_NF, real_MF):
        table = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
        sets.append(table if len(rows) == count else table[torch.randperm(len(rows), generator=draw)[:count]])
    direction_DF = torch.randn(directions, generated_NF.shape[1], generator=draw)
    direction_DF /= direction_DF.norm(dim=1, keepdim=True).clamp_min(1e-12)
    total = 0.0
    for part_dF in direction_DF.split(_DIRECTIONS_AT_ONCE):
        ours, theirs = ((table @ part_dF.T).sort(dim=0).values for table in sets)
        total += (ours - theirs).square().sum(dtype=torch.float64).item()
    return 3 * generated_NF.shape[1] * total / (count * directions)


# Vendi score

def vendi_score(feature_NF: np.ndarray) -> float:
    """Effective number of different images (Friedman & Dieng 2023, arXiv 2210.02410): exp of the entropy of the
    eigenvalues of K / N, K being the products of the features scaled to length 1.  1 if all are alike, N if all are
    orthogonal.

    Raises:
        FeatureError: features that are no finite table, or an image without any.
    """
    check_features(feature_NF)
    length_N1 = np.linalg.norm(feature_NF.astype(np.float64), axis=1, keepdims=True)
    if not length_N1.all():
        raise FeatureError(f"row {int(length_N1.argmin())} is 0: it has no direction")
    unit_NF = torch.from_numpy(feature_NF / length_N1)
    # K and the matrix of the features' products have the same eigenvalues above 0; the smaller one is taken.
    product = unit_NF @ unit_NF.T if len(unit_NF) < unit_NF.shape[1] else unit_NF.T @ unit_NF
    share = torch.linalg.eigvalsh(product / len(unit_NF)).clamp(min=0)
    return float(torch.exp(-torch.xlogy(share, share).sum()))


def vendi_by_class(feature_NF: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Vendi score (C,), float64, of the images of each class that occurs, in order of the labels.

    Raises:
        FeatureError: as `vendi_score`.
    """
    return np.array([vendi_score(feature_NF[label_N == label]) for label in np.unique(label_N)])
