"""Precision, recall, density and coverage against distances one by one in float64, torch-fidelity and prdc."""

import numpy as np
import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from varient.evaluation import neighbours
from varient.evaluation.moments import FeatureError
from varient.evaluation.neighbours import density_coverage, precision_recall


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


# density and coverage

@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("tile", [64, 2048])
def test_density_and_coverage_are_prdcs(features, k, tile, monkeypatch):
    prdc = pytest.importorskip("prdc", reason="needs prdc")
    monkeypatch.setattr(neighbours, "TILE", tile)
    generated, real = features
    ours = density_coverage(generated, real, k)
    theirs = prdc.compute_prdc(real.astype(np.float64), generated.astype(np.float64), nearest_k=k)
    assert (ours.density, ours.coverage) == pytest.approx((theirs["density"], theirs["coverage"]), abs=1e-6)
    swapped = density_coverage(real, generated, k)
    assert abs(swapped.density - ours.density) > 0.1 and abs(swapped.coverage - ours.coverage) > 0.05


@pytest.mark.parametrize("shared", [1.0, 0.5])
@pytest.mark.parametrize("count", [1000, 2500])  # of one tile, of two
def test_images_that_are_in_both_sets_lie_on_borders_and_not_inside(shared, count):
    prdc = pytest.importorskip("prdc", reason="needs prdc")
    draw = np.random.default_rng(0)
    real = draw.random((count, 256), np.float32) + 3
    generated = real.copy()
    generated[int(shared * count):] = draw.random((count - int(shared * count), 256), np.float32) + 3
    ours = density_coverage(generated, real)
    theirs = prdc.compute_prdc(real.astype(np.float64), generated.astype(np.float64), nearest_k=5)
    assert (ours.density, ours.coverage) == pytest.approx((theirs["density"], theirs["coverage"]), abs=1e-6)
    if shared == 1:
        assert (ours.density, ours.coverage) == (pytest.approx(1), 1)  # in its own ball and in those of four others


@pytest.mark.parametrize("seed", [0, 23])
def test_the_border_of_a_ball_around_the_mean_does_not_belong_to_it_either(seed):
    """Its own squares are 0, those of its neighbours are not."""
    real = np.random.default_rng(seed).standard_normal((2500, 64)).astype(np.float32)
    real[0] = 0
    assert density_coverage(real, real).density == pytest.approx(1, abs=1e-6)


def test_the_border_of_a_ball_of_density_does_not_belong_to_it():
    real = np.array([[-2.0], [0.0], [2.0]], np.float32)  # whole numbers around 0, exact in float32; every reach is 2
    found = density_coverage(np.array([[-4.0], [-3.75], [0.0], [1.0]], np.float32), real, k=1)
    assert found.density_N.tolist() == [0, 1, 1, 2]  # 0 lies on the border of both others
    assert found.covered_M.tolist() == [True, True, True]
    assert density_coverage(np.array([[-4.0], [4.0]], np.float32), real, k=1).coverage == 0


def test_equal_distributions_have_a_density_of_about_one_and_a_collapsed_one_covers_little():
    draw = np.random.default_rng(0)
    real, other = draw.standard_normal((2, 2000, 4)).astype(np.float32)
    same = density_coverage(other, real)
    assert same.density == pytest.approx(1, abs=0.05) and same.coverage > 0.95
    collapsed = density_coverage(np.repeat(real[:1], 50, axis=0), real)
    assert collapsed.coverage < 0.02 and collapsed.density == pytest.approx(collapsed.density_N[0])


def test_density_refuses_what_it_cannot_take(features):
    generated, real = features
    with pytest.raises(FeatureError, match="5 reference images are too few for 5 neighbours: at least 6"):
        density_coverage(generated, real[:5])
    assert density_coverage(generated[:1], real).density_N.shape == (1,)
    with pytest.raises(FeatureError, match="5 features cannot be compared with 6"):
        density_coverage(generated[:, 1:], real)
    huge = density_coverage(generated * np.float32(1e25), real * np.float32(1e25))  # whose squares float64 holds
    assert huge.density == density_coverage(generated, real).density
