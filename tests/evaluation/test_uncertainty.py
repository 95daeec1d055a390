"""Standard deviations against those of scores that were really drawn again, and bias formulas against simulation."""

from dataclasses import replace

import numpy as np
import pytest

from varient.evaluation.moments import FeatureError, FrechetReference, Gaussian, Moments
from varient.evaluation.neighbours import precision_recall
from varient.evaluation.scores import (
    KernelDistance,
    adm_blocks,
    equal_blocks,
    fixed_permutation,
    inception_score,
    kernel_distance,
)
from varient.evaluation.uncertainty import (
    embedding_spread,
    frechet_bias,
    frechet_infinity,
    frechet_spread,
    half_samples,
    inception_spread,
    kernel_spread,
    share_spread,
)

SCALE = np.linspace(1, 0.2, 8)


def _features(count, seed, shift=0.3):
    return (np.random.default_rng(seed).standard_normal((count, 8)) * SCALE + shift).astype(np.float32)


def _logits(count, seed):
    rng = np.random.default_rng(seed)
    logit_NK = rng.standard_normal((count, 10)).astype(np.float32) * 1.5
    logit_NK[np.arange(count), rng.integers(0, 10, count)] += 3
    return logit_NK


@pytest.fixture(scope="module")
def reference():
    return FrechetReference(Gaussian(np.zeros(8), np.diag(SCALE ** 2)))


@pytest.mark.parametrize("count", [1000, 1001])
def test_halves_are_halves_of_each_stratum(count):
    first_PN = half_samples(count, pairs=3, seed=0)
    assert first_PN.shape == (3, count) and set((2 * first_PN.sum(axis=1) - count).tolist()) <= {-1, 0, 1}
    assert not np.array_equal(first_PN[0], first_PN[1])
    assert np.array_equal(first_PN, half_samples(count, pairs=3, seed=0))
    label_N = np.arange(count) % 10
    first_PN = half_samples(count, pairs=3, seed=0, strata_N=label_N)
    for first_N in first_PN:  # an odd stratum shares a pair with the next one
        assert np.abs(2 * np.bincount(label_N[first_N]) - np.bincount(label_N)).max() <= 2 * (count % 2)
    chosen = np.mean(half_samples(40, pairs=4000, seed=1), axis=0)
    assert np.abs(chosen - 0.5).max() < 0.04  # nobody is preferred


def test_fid_spread_is_that_of_images_drawn_again(reference):
    redrawn = [reference.distance(Moments.of(_features(400, seed)).gaussian()) for seed in range(300)]
    spreads = [frechet_spread(_features(400, seed), reference, pairs=30) for seed in range(4)]
    assert np.mean([spread.sd for spread in spreads]) == pytest.approx(np.std(redrawn), rel=0.15)
    assert spreads[0].point == pytest.approx(redrawn[0], rel=1e-12)


def test_fid_spread_agrees_with_its_derivative(reference):
    """The limit of many pairs is the sd of the influence of single images: a formula of its own."""
    feature_NF = _features(2000, 0)
    moments = Moments.of(feature_NF).gaussian()
    values, vectors = np.linalg.eigh(np.diag(SCALE) @ moments.covariance @ np.diag(SCALE))
    slope_FF = np.eye(8) - np.diag(SCALE) @ (vectors / np.sqrt(values)) @ vectors.T @ np.diag(SCALE)
    centred_NF = feature_NF - moments.mean
    influence_N = 2 * centred_NF @ moments.mean + ((centred_NF @ slope_FF) * centred_NF).sum(axis=1)
    expected = influence_N.std() / np.sqrt(2000)
    assert frechet_spread(feature_NF, reference, pairs=200).sd == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("count", [21, 22, 23])
def test_a_last_block_of_one_or_two_images_has_halves_too(count):
    """Half of such a block may be empty."""
    logits = np.random.default_rng(0).standard_normal((count, 5))
    blocks, order = adm_blocks(count, 20), fixed_permutation(count)
    spread = inception_spread(logits, blocks, order)
    assert spread.point == pytest.approx(inception_score(logits, blocks, order).mean) and 0 < spread.sd < spread.point


def test_inception_spread_is_that_of_images_drawn_again():
    bounds, permutation = adm_blocks(1000, 300), fixed_permutation(1000)
    redrawn = [inception_score(_logits(1000, seed), bounds, permutation).mean for seed in range(200)]
    spreads = [inception_spread(_logits(1000, seed), bounds, permutation) for seed in range(3)]
    assert np.mean([spread.sd for spread in spreads]) == pytest.approx(np.std(redrawn), rel=0.15)
    assert spreads[0].point == pytest.approx(redrawn[0], rel=1e-12)


def test_kid_spread_is_that_of_images_drawn_again():
    real = _features(300, 1000, shift=0)
    settings = {"subsets": 20, "subset_size": 100}
    redrawn = [kernel_distance(_features(500, seed), real, **settings, seed=seed).mean for seed in range(200)]
    estimate = kernel_distance(_features(500, 0), real, **settings)
    spreads = [kernel_spread(_features(500, seed), real, estimate, pairs=50) for seed in range(3)]
    assert np.mean([spread.sd for spread in spreads]) == pytest.approx(np.std(redrawn), rel=0.2)
    assert spreads[0].point == estimate.mean
    scattered = replace(estimate, std=1.0)  # the subsets' own part: 1 / sqrt(20)
    assert kernel_spread(_features(500, 0), real, scattered, pairs=50).sd == pytest.approx(
        np.sqrt(spreads[0].sd ** 2 - estimate.std ** 2 / 20 + 1 / 20), rel=1e-9)


def test_kid_spread_takes_the_halves_kid_by_definition():
    generated, real = (_features(count, seed).astype(np.float64) for count, seed in ((13, 0), (7, 1)))
    within, across = ((generated @ other.T / 8 + 1) ** 3 for other in (generated, real))
    np.fill_diagonal(within, 0)  # no pair of an image with itself

    def kid(half_N):  # up to what both halves share, the real images among themselves
        return within[half_N][:, half_N].sum() / half_N.sum() / (half_N.sum() - 1) - 2 * across[half_N].mean()

    firsts = half_samples(13, pairs=4, seed=5)
    expected = np.sqrt(np.mean([(kid(half_N) - kid(~half_N)) ** 2 * (6 * 7 / 13 ** 2) for half_N in firsts]))
    assert kernel_spread(generated, real, KernelDistance(0.0, 0.0, (0.0,)), pairs=4, seed=5).sd == pytest.approx(
        expected, rel=1e-5)


def test_kid_spread_does_not_depend_on_tiles(monkeypatch):
    generated, real = _features(500, 0), _features(300, 1000, shift=0)
    estimate = kernel_distance(generated, real, subsets=5, subset_size=100)
    whole = kernel_spread(generated, real, estimate, pairs=10)
    monkeypatch.setattr("varient.evaluation.uncertainty.TILE", 130)
    assert kernel_spread(generated, real, estimate, pairs=10).sd == pytest.approx(whole.sd, rel=1e-6)


def _embeddings(count, seed, shift=0.3):
    feature_NF = _features(count, seed, shift)
    return feature_NF / np.linalg.norm(feature_NF, axis=1, keepdims=True)


def _discrepancy(x, y, bandwidth=10, scale=1000):
    def mean(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / (2 * bandwidth ** 2)).mean()

    return scale * (mean(x, x) + mean(y, y) - 2 * mean(x, y))


@pytest.mark.parametrize(("count", "real_count", "tile"), [(4, 2, 2048), (60, 35, 2048), (61, 90, 16), (32, 16, 16)])
def test_cmmd_is_its_definition_in_any_tiles_and_order(monkeypatch, count, real_count, tile):
    monkeypatch.setattr("varient.evaluation.uncertainty.TILE", tile)
    generated, real = _embeddings(count, 0), _embeddings(real_count, 1, shift=0)
    found = embedding_spread(generated, real, 10, 1000)
    expected = _discrepancy(generated.astype(np.float64), real.astype(np.float64))
    assert expected > 0.1 and found.point == pytest.approx(expected, abs=1e-6)
    assert embedding_spread(generated[::-1], real[::-1], 10, 1000).point == pytest.approx(found.point, abs=1e-7)
    assert embedding_spread(generated, real, 5, 1).point == pytest.approx(
        _discrepancy(generated.astype(np.float64), real.astype(np.float64), 5, 1), abs=1e-8)


@pytest.mark.parametrize("count", [4, 50, 3000])
def test_cmmd_of_equal_sets_is_0(count):
    """Up to the rounding of float32 distances."""
    generated = _embeddings(count, 0)
    assert 0 <= embedding_spread(generated, generated, 10, 1000, pairs=2).point < 1e-6
    assert 0 <= embedding_spread(generated, generated[::-1], 10, 1000, pairs=2).point < 1e-6


def test_cmmd_spread_is_that_of_images_drawn_again():
    real = _embeddings(300, 1000, shift=0)
    redrawn = [embedding_spread(_embeddings(200, seed), real, 10, 1000, pairs=1).point for seed in range(200)]
    spreads = [embedding_spread(_embeddings(200, seed), real, 10, 1000).sd for seed in range(3)]
    assert np.mean(spreads) == pytest.approx(np.std(redrawn), rel=0.2)


def test_cmmd_refuses_what_it_cannot_compare():
    nine = _embeddings(9, 0)
    for generated, real in ((nine, nine[:, :5]), (nine * np.nan, nine), (nine, nine * np.nan)):
        with pytest.raises(FeatureError):
            embedding_spread(generated, real, 10, 1000)
    with pytest.raises(ValueError, match="at least 4 images"):
        embedding_spread(nine[:3], nine, 10, 1000)


def test_precision_spread_is_that_of_images_drawn_again():
    real = _features(300, 1000, shift=0)
    hits = [precision_recall(_features(300, seed), real).generated_inside_N for seed in range(200)]
    assert np.mean([share_spread(hit).sd for hit in hits]) == pytest.approx(np.std([hit.mean() for hit in hits]),
                                                                            rel=0.15)
    assert share_spread(hits[0]).point == hits[0].mean()


def test_fixed_classes_take_their_differences_out_of_the_spread(reference):
    label_N = np.arange(1000) % 2
    inside_N = np.where(label_N == 1, True, np.arange(1000) % 4 == 0)  # class 1 always, class 0 half of the time
    assert share_spread(inside_N).sd == pytest.approx(np.sqrt(0.75 * 0.25 / 1000), rel=0.01)
    assert share_spread(inside_N, label_N).sd == pytest.approx(np.sqrt(500 * 0.25) / 1000, rel=0.01)
    feature_NF = _features(1000, 0) + 3 * label_N[:, None].astype(np.float32)
    assert frechet_spread(feature_NF, reference, labels_N=label_N).sd < 0.7 * frechet_spread(feature_NF, reference).sd
    logit_NK = _logits(1000, 0)
    logit_NK[label_N == 1] *= 3
    by_class = inception_spread(logit_NK, equal_blocks(1000), fixed_permutation(1000), labels_N=label_N).sd
    assert by_class < inception_spread(logit_NK, equal_blocks(1000), fixed_permutation(1000)).sd


def test_bias_is_what_more_images_take_away(reference):
    simulated = np.mean([reference.distance(Moments.of(_features(500, seed, shift=0)).gaussian())
                         for seed in range(300)])
    predicted = frechet_bias(reference.gaussian, 500)
    assert predicted.bias == pytest.approx(simulated, rel=0.05)
    assert predicted.coefficient_images == pytest.approx(500 * predicted.bias)


def test_extrapolation_finds_the_distance_of_the_distributions(reference):
    found = [frechet_infinity(_features(500, seed, shift=0), reference) for seed in range(60)]
    finite = np.mean([fit.fid[-1] for fit in found])
    assert abs(np.mean([fit.fid_infinity for fit in found])) < 0.2 * finite  # the distributions are equal
    assert np.mean([fit.slope_images for fit in found]) == pytest.approx(500 * finite, rel=0.2)
    assert found[0].num_images[0] == 50 and found[0].num_images[-1] == 500 and len(found[0].fid) == 15
    assert found[0] == frechet_infinity(_features(500, 0, shift=0), reference)


def test_what_cannot_be_resampled_is_refused(reference):
    with pytest.raises(FeatureError, match="8 images are too few"):
        frechet_spread(_features(8, 0), reference)
    with pytest.raises(FeatureError, match=r"sub-samples of 16 out of 16 images: more than the 8 features"):
        frechet_infinity(_features(16, 0), reference)
    with pytest.raises(ValueError, match="3 images and 1 pairs"):
        half_samples(3, 1, 0)
    with pytest.raises(ValueError, match="need as many strata"):
        half_samples(8, 1, 0, np.zeros(7, int))
    with pytest.raises(ValueError, match="as many labels"):
        share_spread(np.ones(4, bool), np.zeros(3, int))
    broken = _logits(100, 0)
    broken[3] = np.nan
    with pytest.raises(FeatureError, match="logits: row 3"):
        inception_spread(broken, equal_blocks(100), fixed_permutation(100))
