"""Precision and recall against distances taken one by one in float64, and against torch-fidelity."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from varient.evaluation import neighbours
from varient.evaluation.moments import FeatureError
from varient.evaluation.neighbours import precision_recall


@pytest.fixture(scope="module")
def features():
    """Generated images that leave half of the real ones out: precision and recall differ."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((500, 6)) + 4
    generated = rng.standard_normal((700, 6)) * 0.6 + 4.2
    return generated.astype(np.float32), real.astype(np.float32)


def _inside(point_NF, centre_MF, k):
    """Which points lie within a ball around a centre that reaches to its k-th nearest other centre; float64."""
    point_NF, centre_MF = point_NF.astype(np.float64), centre_MF.astype(np.float64)
    reach_M = np.array([np.sort(np.linalg.norm(np.delete(centre_MF, i, axis=0) - centre, axis=1))[k - 1]
                        for i, centre in enumerate(centre_MF)])
    return (np.linalg.norm(point_NF[:, None] - centre_MF[None], axis=-1) <= reach_M).any(axis=1)


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("tile", [64, 333, 2048])
def test_exactly_the_images_by_definition(features, k, tile, monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", tile)
    generated, real = features
    ours = precision_recall(generated, real, k)
    assert np.array_equal(ours.generated_inside_N, _inside(generated, real, k))
    assert np.array_equal(ours.real_inside_M, _inside(real, generated, k))
    assert ours.precision == ours.generated_inside_N.mean() and ours.recall == ours.real_inside_M.mean()
    assert ours.precision - ours.recall > 0.1  # so that swapping them would show


@pytest.mark.parametrize("low_memory", [True, False])
def test_torch_fidelity_agrees(features, low_memory):
    generated, real = features
    theirs = prc_features_to_metric(*map(torch.from_numpy, features), prc_neighborhood=3, prc_batch_size=200,
                                    save_cpu_ram=low_memory, verbose=False)
    ours = precision_recall(generated, real)
    assert (ours.precision, ours.recall) == pytest.approx((theirs["precision"], theirs["recall"]), abs=1e-6)
    swapped = precision_recall(real, generated)
    assert (swapped.precision, swapped.recall) == (ours.recall, ours.precision)


def test_features_far_from_zero_lose_nothing(features):
    generated, real = (x.astype(np.float64) for x in features)
    near, far = precision_recall(generated, real), precision_recall(generated + 1000, real + 1000)
    assert np.array_equal(far.generated_inside_N, near.generated_inside_N)
    assert np.array_equal(far.real_inside_M, near.real_inside_M)


def test_order_of_images_moves_nothing(features):
    generated, real = features
    order = np.random.default_rng(1).permutation(len(generated))
    straight, mixed = precision_recall(generated, real), precision_recall(generated[order], real[::-1])
    assert np.array_equal(mixed.generated_inside_N, straight.generated_inside_N[order])
    assert np.array_equal(mixed.real_inside_M, straight.real_inside_M[::-1])


def test_border_belongs_to_the_ball_and_a_centre_is_not_its_own_neighbour():
    real = np.array([[-2.0], [0.0], [2.0]], np.float32)  # whole numbers around 0, exact in float32; every reach is 2
    generated = np.array([[-4.0], [-4.25], [4.0], [0.5]], np.float32)
    assert precision_recall(generated, real, k=1).generated_inside_N.tolist() == [True, False, True, True]


def test_a_set_covers_itself_and_copies_cover_each_other_only(features):
    same = precision_recall(features[1], features[1])
    assert same.precision == same.recall == 1
    copies = np.repeat(features[1][:1], 10, axis=0)  # a collapsed generator: its balls have radius 0
    collapsed = precision_recall(copies, features[1])
    assert collapsed.precision == 1 and collapsed.real_inside_M.tolist() == [True] + [False] * 499


def _adm_by_definition(a_NF, b_MF, k):
    """ADM's evaluator in numpy: half-precision squared distances; a set's own feature counts among its neighbours."""
    def distances(u, v):
        u, v = u.astype(np.float16), v.astype(np.float16)
        norms = [(x * x).astype(np.float32).sum(axis=1).astype(np.float16) for x in (u, v)]
        product = (u.astype(np.float32) @ v.astype(np.float32).T).astype(np.float16)
        return np.maximum(norms[0][:, None] - np.float16(2) * product + norms[1], np.float16(0))

    radii = [np.sort(distances(x, x), axis=1)[:, k] for x in (a_NF, b_MF)]
    real_generated = distances(b_MF, a_NF)
    return (real_generated <= radii[1][:, None]).any(axis=0), (real_generated <= radii[0]).any(axis=1)


def test_half_precision_imitates_adm(features):
    generated, real = features
    ours = precision_recall(generated, real, distance_dtype="adm-float16")
    expected = _adm_by_definition(generated, real, 3)
    assert np.array_equal(ours.generated_inside_N, expected[0])
    assert np.array_equal(ours.real_inside_M, expected[1])
    exact = precision_recall(generated, real)
    assert not np.array_equal(ours.real_inside_M, exact.real_inside_M)  # it is another score
    assert ours.precision >= exact.precision - 0.01 and ours.recall >= exact.recall - 0.01


def test_a_tile_that_half_precision_cannot_hold_is_computed_in_single(features, monkeypatch):
    generated, real = (x * 100 for x in features)  # squared norms above 65504
    exact = precision_recall(generated, real)
    wide = precision_recall(generated, real, distance_dtype="adm-float16")
    assert (wide.precision, wide.recall) == pytest.approx((exact.precision, exact.recall), abs=2 / 500)
    # one such feature spoils its own tile alone
    generated, real = features[0].copy(), features[1]
    generated[650] = 1000
    monkeypatch.setattr(neighbours, "ADM_TILE", 600)
    mixed = precision_recall(generated, real, distance_dtype="adm-float16")
    rounded = precision_recall(features[0], real, distance_dtype="adm-float16")
    assert np.array_equal(mixed.generated_inside_N[:600], rounded.generated_inside_N[:600])
    assert not mixed.generated_inside_N[650]


def test_what_cannot_be_scored_is_refused(features):
    generated, real = features
    with pytest.raises(FeatureError, match="3 generated images are too few for 3 neighbours: at least 4"):
        precision_recall(generated[:3], real)
    with pytest.raises(FeatureError, match="2 reference images are too few"):
        precision_recall(generated, real[:2])
    with pytest.raises(FeatureError, match="5 features cannot be compared with 6"):
        precision_recall(generated[:, 1:], real)
    broken = real.copy()
    broken[9] = np.nan
    with pytest.raises(FeatureError, match="reference: row 9 is not finite"):
        precision_recall(generated, broken)
    with pytest.raises(FeatureError, match="overflow float32"):
        precision_recall(generated * np.float32(1e25), real)
