"""Precision, recall, density and coverage by nearest neighbours in feature space, in bounded memory.

Kynkäänniemi et al. 2019 (arXiv 1904.06991): a set's manifold is the union of balls around its features, each reaching
to the k-th nearest neighbour within the set.  Naeem et al. 2020 (arXiv 2002.09797) count the balls instead of joining
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from varient.evaluation.moments import FeatureError, check_pair

DistanceType = Literal["float32", "adm-float16"]
NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
"""k of density and coverage, as in the prdc package."""
_ROUNDING = 1e-12
"""Relative error of a squared distance in float64, with room to spare."""
TILE = 2048
"""Rows and columns of distances held at once: 17 MB, which malloc reuses without new page faults."""
ADM_TILE = 10_000
"""ADM's tile; it computes a whole tile again in float32 if any value is not finite."""
ADM_STRIP = 1024
"""Rows of such a tile that are rounded at once, to limit the memory of temporary copies."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Which images lie inside the other set's manifold."""

    generated_inside_N: np.ndarray
    """bool (N,): within a ball around a real image."""
    real_inside_M: np.ndarray
    """bool (M,): within a ball around a generated image."""

    @property
    def precision(self) -> float:
        """Share of generated images inside the real manifold."""
        return float(self.generated_inside_N.mean())

    @property
    def recall(self) -> float:
        """Share of real images inside the generated manifold."""
        return float(self.real_inside_M.mean())


def precision_recall(generated_NF: np.ndarray, real_MF: np.ndarray, k: int = NEIGHBOURS,
                     distance_dtype: DistanceType = "float32") -> PrecisionRecall:
    """Precision and recall of generated features against real ones.

    A ball reaches to the k-th nearest other feature of its set, border included (distance <= radius). Values depend on
    the sizes of both sets: compare them at equal sizes only.

    Args:
        generated_NF, real_MF: features of any float dtype.
        k: number of the neighbour that a ball reaches to.
        distance_dtype: "float32" computes squared distances |u|^2 - 2 u.v + |v|^2 after subtraction of the real mean,
            which avoids most of the cancellation. "adm-float16" imitates the released ADM evaluator: half-precision
            features, squares and distances in tiles of 10,000 x 10,000, float32 for a tile that overflows, and each
            feature among its own neighbours. Its rounding makes ties, which count as inside and raise precision and
            recall by about 0.001 and 0.002. Products are summed in float32 here; ADM's order of summation on a GPU is
            not known.

    Raises:
        FeatureError: features that are no finite tables, that do not fit each other, or no more than k images.
    """
    check_pair(generated_NF, real_MF)
    for name, rows in (("generated", generated_NF), ("reference", real_MF)):
        if len(rows) <= k:
            raise FeatureError(f"{len(rows)} {name} images are too few for {k} neighbours: at least {k + 1} are needed")
    if distance_dtype == "adm-float16":
        generated, real = (torch.from_numpy(rows.astype(np.float32)) for rows in (generated_NF, real_MF))
        real_inside_M, generated_inside_N = _inside(real, generated, _adm_radii(real, k), _adm_radii(generated, k),
                                                    ADM_TILE, _adm_distances)  # real in the rows, as ADM has them
        return PrecisionRecall(generated_inside_N, real_inside_M)
    centre_F = real_MF.mean(axis=0, dtype=np.float64)
    generated, real = (_centred(rows, centre_F) for rows in (generated_NF, real_MF))
    return PrecisionRecall(*_inside(generated, real, squared_radii(generated, k), squared_radii(real, k), TILE,
                                    squared_distances))


@dataclass(frozen=True, eq=False)
class DensityCoverage:
    """How generated images fill the balls around real ones.

    Attributes:
        density_N: (N,), float64, number of balls around a generated image, over k; about 1 for equal distributions.
        covered_M: (M,), bool, whether a real image has a generated one in its ball.
    """

    density_N: np.ndarray
    covered_M: np.ndarray

    @property
    def density(self) -> float:
        """Mean over the generated images; may exceed 1."""
        return float(self.density_N.mean())

    @property
    def coverage(self) -> float:
        """Share of real images whose ball holds a generated one."""
        return float(self.covered_M.mean())


def density_coverage(generated_NF: np.ndarray, real_MF: np.ndarray, k: int = DENSITY_NEIGHBOURS) -> DensityCoverage:
    """Density and coverage as the prdc package defines them.

    A ball around a real feature reaches to its k-th nearest other one, border excluded (distance < radius), which is
    the other rule than that of precision.  Where sets share images some lie exactly on a border, so distances are in
    float64, and what is on it up to their rounding is outside.  Only the real set has balls, so the cost is that of the
    distances between both sets: 31 % of the distances that precision and recall take of 50,000 images against 10,000.

    Args:
        generated_NF, real_MF: features of any float dtype.

    Raises:
        FeatureError: features that are no finite tables, that do not fit each other, or no more than k real images.
    """
    check_pair(generated_NF, real_MF)
    if len(real_MF) <= k:
        raise FeatureError(f"{len(real_MF)} reference images are too few for {k} neighbours: at least {k + 1} are "
                           "needed")
    centre_F = real_MF.mean(axis=0, dtype=np.float64)
    generated, real = _centred(generated_NF, centre_F), _centred(real_MF, centre_F).double()
    radius_M = squared_radii(real, k)
    reach_M = radius_M - _ROUNDING * (real.square().sum(dim=1) + radius_M)  # what is on a border may seem inside
    count_N = torch.zeros(len(generated), dtype=torch.int64)
    covered_M = torch.zeros(len(real), dtype=torch.bool)
    for at in range(0, len(generated), TILE):
        rows = slice(at, at + TILE)
        part = generated[rows].double()
        for to in range(0, len(real), TILE):
            columns = slice(to, to + TILE)
            inside_nm = squared_distances(part, real[columns]) < reach_M[columns]
            count_N[rows] += inside_nm.sum(dim=1)
            covered_M[columns] |= inside_nm.any(dim=0)
    return DensityCoverage(count_N.double().numpy() / k, covered_M.numpy())


def _centred(feature_NF: np.ndarray, centre_F: np.ndarray) -> Tensor:
    """Features (N, F), float32, less the centre; float64 features are rounded only then."""
    dtype = np.promote_types(feature_NF.dtype, np.float32)
    return torch.from_numpy((feature_NF - centre_F.astype(dtype)).astype(np.float32, copy=False))


def squared_distances(u_nF: Tensor, v_mF: Tensor) -> Tensor:
    """Squared Euclidean distances (n, m), at least 0, in the features' dtype."""
    distance_nm = torch.addmm(v_mF.square().sum(dim=1), u_nF, v_mF.T, alpha=-2)
    return distance_nm.add_(u_nF.square().sum(dim=1, keepdim=True)).clamp_(min=0)


def squared_radii(feature_NF: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """Squared distance (N,) of each feature to its k-th nearest other one; ``N > k``.

    Each tile above the diagonal is used for its rows and for its columns, which halves the work.

    Raises:
        FeatureError: features so large that their squares overflow.
    """
    nearest_Nk = feature_NF.new_full((len(feature_NF), k), torch.inf)
    starts = range(0, len(feature_NF), TILE)
    for at in starts:
        rows = slice(at, at + TILE)
        for to in starts[at // TILE:]:
            columns = slice(to, to + TILE)
            distance_nm = squared_distances(feature_NF[rows], feature_NF[columns])
            if at == to:
                distance_nm.fill_diagonal_(torch.inf)
            else:
                nearest_Nk[columns] = _nearest(nearest_Nk[columns], distance_nm.T.contiguous())
            nearest_Nk[rows] = _nearest(nearest_Nk[rows], distance_nm)
    radius_N = nearest_Nk.amax(dim=1)
    if not torch.isfinite(radius_N).all():
        raise FeatureError("distances between features overflow float32: the features are too large to be healthy")
    return radius_N


def _nearest(best_nk: Tensor, distance_nm: Tensor) -> Tensor:
    """The k smallest values of each row of both; topk of the tile first avoids a copy of the whole tile."""
    k = best_nk.shape[1]
    found_nk = distance_nm.topk(min(k, distance_nm.shape[1]), dim=1, largest=False, sorted=False).values
    return torch.cat([best_nk, found_nk], dim=1).topk(k, dim=1, largest=False, sorted=False).values


def _inside(a_NF: Tensor, b_MF: Tensor, a_radius_N: Tensor, b_radius_M: Tensor, tile: int,
            distances: Callable[[Tensor, Tensor], Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Which a (N,) lie within a ball around a b, and which b (M,) within one around an a; bool."""
    a_inside_N, b_inside_M = (torch.zeros(len(radius), dtype=torch.bool) for radius in (a_radius_N, b_radius_M))
    for at in range(0, len(a_NF), tile):
        rows = slice(at, at + tile)
        for to in range(0, len(b_MF), tile):
            columns = slice(to, to + tile)
            distance_nm = distances(a_NF[rows], b_MF[columns])
            a_inside_N[rows] |= (distance_nm <= b_radius_M[columns]).any(dim=1)
            b_inside_M[columns] |= (distance_nm <= a_radius_N[rows, None]).any(dim=0)
    return a_inside_N.numpy(), b_inside_M.numpy()


def _adm_radii(feature_NF: Tensor, k: int) -> Tensor:
    """Squared radii (N,) as ADM finds them: rounding is not symmetric, so each tile is computed for its rows alone."""
    nearest_Nk = feature_NF.new_full((len(feature_NF), k + 1), torch.inf)
    for at in range(0, len(feature_NF), ADM_TILE):
        rows = slice(at, at + ADM_TILE)
        for to in range(0, len(feature_NF), ADM_TILE):
            nearest_Nk[rows] = _nearest(nearest_Nk[rows], _adm_distances(feature_NF[rows],
                                                                         feature_NF[to:to + ADM_TILE]))
    return nearest_Nk.amax(dim=1)


def _adm_distances(u_nF: Tensor, v_mF: Tensor) -> Tensor:
    """Squared distances (n, m), float32, rounded to half precision unless one of them overflows it."""
    u_half_nF, v_half_mF = u_nF.half(), v_mF.half()
    u_norm_n, v_norm_m = (x.square().float().sum(dim=1).half() for x in (u_half_nF, v_half_mF))
    v_float_Fm = v_half_mF.float().T
    distance_nm = torch.empty(len(u_nF), len(v_mF))
    for at in range(0, len(u_nF), ADM_STRIP):
        rows = slice(at, at + ADM_STRIP)
        product_nm = (u_half_nF[rows].float() @ v_float_Fm).half()
        half_nm = (u_norm_n[rows, None] - 2 * product_nm + v_norm_m).clamp(min=0)
        if not torch.isfinite(half_nm).all():
            return squared_distances(u_nF, v_mF)
        distance_nm[rows] = half_nm
    return distance_nm
