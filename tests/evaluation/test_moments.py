"""Moments against np.cov; the Fréchet distance against its definition and both libraries."""

import warnings

import numpy as np
import pytest
import torch
from cleanfid.fid import frechet_distance as clean_frechet
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import fid_statistics_to_metric

from varient.evaluation.moments import CHUNK_ROWS, FeatureError, FrechetReference, Gaussian, Moments


def _features(count, features=12, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((features, features)) / np.arange(1, features + 1)[:, None]
    return (np.log1p(np.exp(rng.standard_normal((count, features)) @ mixing)) + shift).astype(np.float32)


def _by_definition(a_NF, b_MF, ddof=1):
    a, b = a_NF.astype(np.float64), b_MF.astype(np.float64)
    s, t = np.cov(a, rowvar=False, ddof=ddof), np.cov(b, rowvar=False, ddof=ddof)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = sqrtm(s @ t).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root)


def _by_libraries(a, b):
    """torch-fidelity's and clean-fid's distance of two Gaussians."""
    statistics = [{"mu": x.mean, "sigma": x.covariance} for x in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = clean_frechet(a.mean, a.covariance, b.mean, b.covariance)
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"], clean


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_moments_are_those_of_numpy(dtype):
    feature_NF = _features(CHUNK_ROWS + 700).astype(dtype)  # more than one chunk
    moments = Moments.of(feature_NF)
    exact = feature_NF.astype(np.float64)
    assert moments.count == len(feature_NF)
    np.testing.assert_allclose(moments.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(exact, rowvar=False), rtol=0, atol=1e-12)
    assert moments.covariance.dtype == np.float64


def test_far_from_zero_nothing_cancels():
    feature_NF = np.random.default_rng(0).standard_normal((2000, 4)) + 1e6
    np.testing.assert_allclose(Moments.of(feature_NF).covariance, np.cov(feature_NF, rowvar=False), rtol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_shards_merge_in_any_order_and_nesting(order):
    feature_NF = _features(1000, shift=5)
    shards = [Moments.of(part) for part in np.split(feature_NF, [1, 300, 310])]
    a, b, c, d = (shards[i] for i in order)
    for merged in (a.merge(b).merge(c).merge(d), a.merge(b).merge(c.merge(d))):
        assert merged.count == 1000
        np.testing.assert_allclose(merged.mean, feature_NF.astype(np.float64).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(merged.covariance, np.cov(feature_NF.astype(np.float64), rowvar=False), rtol=0,
                                   atol=1e-12)


def test_taking_out_is_the_inverse_of_merging():
    feature_NF = _features(1000)
    rest = Moments.of(feature_NF).without(Moments.of(feature_NF[:400]))
    direct = Moments.of(feature_NF[400:])
    assert rest.count == 600
    np.testing.assert_allclose(rest.mean, direct.mean, rtol=1e-12)
    np.testing.assert_allclose(rest.m2, direct.m2, rtol=0, atol=1e-11)
    with pytest.raises(FeatureError, match="400 images cannot be taken out of 400"):
        Moments.of(feature_NF[:400]).without(Moments.of(feature_NF[:400]))


def _distance(a, b):
    return FrechetReference(b).distance(a)


def test_frechet_distance_agrees_with_definition_and_libraries():
    a_NF, b_MF = _features(500), _features(400, seed=1, shift=0.1)
    a, b = (Moments.of(x).gaussian() for x in (a_NF, b_MF))
    ours = _distance(a, b)
    assert ours == pytest.approx(_by_definition(a_NF, b_MF), rel=1e-11)
    for theirs in _by_libraries(a, b):
        assert ours == pytest.approx(theirs, rel=1e-11)
    assert ours == pytest.approx(_distance(b, a), rel=1e-11)
    assert ours != pytest.approx(_by_definition(a_NF, b_MF, ddof=0), rel=1e-5)  # a covariance with ddof 0 would show


def test_frechet_distance_of_known_gaussians():
    a = Gaussian(np.zeros(2), np.diag([1.0, 4.0]))
    b = Gaussian(np.array([3.0, 0.0]), np.diag([9.0, 0.0]))
    assert _distance(a, b) == pytest.approx(9 + (1 - 3) ** 2 + (2 - 0) ** 2, rel=1e-12)
    assert _distance(a, a) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("rank", [12, 3, 1])
def test_no_distance_is_negative_however_large_and_dependent_the_features(rank):
    """A record refuses a FID below -1e-6: rounding must not lose the scores of a set against itself."""
    features = 1000 * _features(80, features=rank) @ np.random.default_rng(1).standard_normal((rank, 40))
    same = Moments.of(features).gaussian()
    assert 0 <= _distance(same, same) <= 1e-6 * np.trace(same.covariance)


def test_rank_deficient_covariances_agree_too():
    dead = _features(300, features=40)
    dead[:, 5] = 0  # a unit that never fires
    pairs = {"fewer images than features": (_features(30, features=40), _features(25, features=40, seed=1)),
             "dead unit": (dead, _features(200, features=40, seed=1)), "both dead": (dead, dead[:100] + 0.5)}
    for name, sets in pairs.items():
        a, b = (Moments.of(x).gaussian(allow_rank_deficient=True) for x in sets)
        for theirs in _by_libraries(a, b):
            assert _distance(a, b) == pytest.approx(theirs, rel=1e-6), name
    short = [x.astype(np.float64) for x in pairs["fewer images than features"]]
    scaled = [(x - x.mean(0)) / np.sqrt(len(x) - 1) for x in short]
    exact = sum((s ** 2).sum() for s in scaled) - 2 * np.linalg.norm(scaled[0] @ scaled[1].T, "nuc") \
        + ((short[0].mean(0) - short[1].mean(0)) ** 2).sum()  # exact for low rank: no root of a tiny eigenvalue
    a, b = (Moments.of(x).gaussian(allow_rank_deficient=True) for x in short)
    assert _distance(a, b) == pytest.approx(exact, rel=1e-6)


def test_the_root_of_a_reference_is_computed_once(monkeypatch):
    reference = FrechetReference(Moments.of(_features(300)).gaussian())
    calls, original = [], torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: calls.append(1) or original(matrix))
    distances = [reference.distance(Moments.of(_features(300, seed=seed)).gaussian()) for seed in (1, 2)]
    assert len(calls) == 1 and distances[0] != distances[1]
    np.testing.assert_allclose(reference.root @ reference.root, reference.gaussian.covariance, rtol=0, atol=1e-14)


def test_a_published_reference_comes_in_as_it_is():
    a = Moments.of(_features(300)).gaussian()
    published = Gaussian(a.mean.astype(np.float32), a.covariance)
    assert published.count is None and published.mean.dtype == np.float64
    assert _distance(a, published) == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_scored_is_refused():
    feature_NF = _features(5000)
    broken = feature_NF.copy()
    broken[4500, 3] = np.nan
    with pytest.raises(FeatureError, match="row 4500 is not finite"):
        Moments.of(broken)
    with pytest.raises(FeatureError, match="12 images are too few: the covariance of 12 features needs at least 13"):
        Moments.of(feature_NF[:12]).gaussian()
    assert Moments.of(feature_NF[:13]).gaussian().count == 13
    with pytest.raises(FeatureError, match="at least 2 images"):
        Moments.of(feature_NF[:1]).gaussian(allow_rank_deficient=True)
    with pytest.raises(FeatureError, match="12 features cannot be compared with 11"):
        _distance(Moments.of(feature_NF[:, 1:]).gaussian(), Moments.of(feature_NF).gaussian())
    with pytest.raises(FeatureError, match="12 features cannot be compared with 11"):
        Moments.of(feature_NF).merge(Moments.of(feature_NF[:, 1:]))
    for wrong in (feature_NF[0], feature_NF[:0], feature_NF.astype(np.uint8)):
        with pytest.raises(FeatureError, match="a table"):
            Moments.of(wrong)
    with pytest.raises(FeatureError, match=r"needs a covariance of shape \(2, 2\), not \(3, 3\)"):
        Gaussian(np.zeros(2), np.eye(3))
    with pytest.raises(FeatureError, match="not finite"):
        Gaussian(np.array([0, np.inf]), np.eye(2))
