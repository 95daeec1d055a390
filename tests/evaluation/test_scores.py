"""IS, KID, MIND and Vendi score against their definitions and torch-fidelity's functions on the same arrays."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from varient.evaluation.moments import FeatureError, FrechetReference, Moments
from varient.evaluation.scores import (
    PredictionSums,
    adm_blocks,
    block_of_images,
    equal_blocks,
    fixed_permutation,
    inception_score,
    kernel_distance,
    monge_distance,
    unbiased_logits,
    vendi_by_class,
    vendi_score,
)


@pytest.fixture(scope="module")
def logits():
    """1000 images of 20 classes, class by class, as a directory lists them."""
    rng = np.random.default_rng(0)
    logit_NK = rng.standard_normal((1000, 20)).astype(np.float32)
    logit_NK[np.arange(1000), np.arange(1000) // 50] += 5
    return logit_NK


def _by_definition(logit_NK, order, bounds):
    """Mean over blocks of exp E KL(p || E p), from probabilities in float64."""
    exp = np.exp(logit_NK[order].astype(np.float64))
    p = exp / exp.sum(axis=1, keepdims=True)
    scores = []
    for begin, end in pairwise(bounds):
        q = p[begin:end].mean(axis=0)
        scores.append(np.exp((p[begin:end] * np.log(p[begin:end] / q)).sum(axis=1).mean()))
    return np.mean(scores), np.std(scores)


@pytest.mark.parametrize("splits", [1, 7, 10])
def test_inception_score_is_torch_fidelitys(logits, splits):
    ours = inception_score(logits, equal_blocks(1000, splits), fixed_permutation(1000))
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=splits)
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert ours.std == pytest.approx(theirs["inception_score_std"], rel=1e-12, abs=1e-12)
    assert (ours.mean, ours.std) == pytest.approx(_by_definition(logits, fixed_permutation(1000),
                                                                 equal_blocks(1000, splits)), rel=1e-12, abs=1e-12)


def test_adm_blocks_are_consecutive_and_a_short_one_counts_as_much(logits):
    bounds = adm_blocks(1000, 300)
    assert bounds.tolist() == [0, 300, 600, 900, 1000]
    assert adm_blocks(50_000).tolist() == equal_blocks(50_000, 10).tolist()
    stored_order = inception_score(logits, bounds, np.arange(1000))
    assert stored_order.mean == pytest.approx(_by_definition(logits, np.arange(1000), bounds)[0], rel=1e-12)
    assert len(stored_order.per_block) == 4


def test_order_by_class_would_show(logits):
    bounds = adm_blocks(1000, 100)
    by_class = inception_score(logits, bounds, np.arange(1000)).mean
    assert by_class < 0.5 * inception_score(logits, bounds, fixed_permutation(1000)).mean


def test_score_does_not_depend_on_shards_or_their_order(logits):
    bounds, permutation = adm_blocks(1000, 300), fixed_permutation(1000)
    whole = inception_score(logits, bounds, permutation)
    block_N = block_of_images(bounds, permutation)
    indices = np.random.default_rng(1).permutation(1000)  # the order in which files happen to come
    for cuts in ([500], [10, 600, 601]):
        shards = [PredictionSums.of(logits[index_n], block_N[index_n], 4) for index_n in np.split(indices, cuts)]
        merged = shards[-1]
        for shard in reversed(shards[:-1]):
            merged = merged.merge(shard)
        assert merged.score(bounds).per_block == pytest.approx(whole.per_block, rel=1e-12)
    with pytest.raises(FeatureError, match="block 0 .* of 300 images: a shard is missing or came twice"):
        merged.merge(shards[0]).score(bounds)


def test_improbable_classes_give_no_nan():
    logit_NK = np.array([[900.0, 0.0], [0.0, 900.0]], np.float32)  # p underflows even in float64
    assert inception_score(logit_NK, equal_blocks(2, 1), np.arange(2)).mean == pytest.approx(2, rel=1e-12)
    far = np.array([[900.0, 0.0], [900.0, 0.0]], np.float32)  # a class nobody has at all
    assert inception_score(far, equal_blocks(2, 1), np.arange(2)).mean == pytest.approx(1, rel=1e-12)


def test_permutation_says_which_image_is_at_a_position():
    permutation = np.array([2, 0, 3, 1])
    assert block_of_images(np.array([0, 2, 4]), permutation).tolist() == [0, 1, 0, 1]
    assert np.array_equal(fixed_permutation(50), np.random.RandomState(2020).permutation(50))


def test_logits_leave_the_bias_out():
    rng = np.random.default_rng(0)
    layer = torch.nn.Linear(6, 3)
    pool = rng.standard_normal((5, 6)).astype(np.float32)
    expected = layer(torch.from_numpy(pool)) - layer.bias
    ours = unbiased_logits(pool, layer.weight.detach().numpy())
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, expected.detach().numpy(), atol=1e-6)
    with pytest.raises(FeatureError, match=r"\(3, 6\) does not fit 5 pooled features"):
        unbiased_logits(pool[:, 1:], layer.weight.detach().numpy())


@pytest.fixture(scope="module")
def features():
    rng = np.random.default_rng(0)
    real = rng.standard_normal((300, 8)).astype(np.float32)
    generated = (rng.standard_normal((400, 8)) * 1.2 + 0.1).astype(np.float32)
    return generated, real


def _kid_of(x, y):
    """Unbiased squared MMD over all pairs, kernel by kernel."""
    def kernel(a, b):
        return (a.astype(np.float64) @ b.astype(np.float64) / len(a) + 1) ** 3

    m = len(x)
    within = sum(kernel(s[i], s[j]) for s in (x, y) for i in range(m) for j in range(m) if i != j)
    return within / (m * (m - 1)) - 2 * sum(kernel(a, b) for a in x for b in y) / m ** 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kid_is_torch_fidelitys(features, dtype):
    generated, real = (x.astype(dtype) for x in features)
    ours = kernel_distance(generated, real, subset_size=150)
    theirs = kid_features_to_metric(
        torch.from_numpy(generated), torch.from_numpy(real), kid_subsets=100, kid_subset_size=150, kid_kernel="poly",
        kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1, rng_seed=2020, verbose=False)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)


def test_kid_agrees_with_its_definition(features):
    generated, real = (x[:40] for x in features)
    ours = kernel_distance(generated.astype(np.float64), real.astype(np.float64), subsets=3, subset_size=40)
    assert ours.mean == pytest.approx(_kid_of(generated, real), rel=1e-12)  # a subset of all is all, in any order
    assert ours.std == pytest.approx(0, abs=1e-12)
    assert kernel_distance(generated, real, subsets=3, subset_size=40).mean == pytest.approx(ours.mean, abs=2e-6)


def test_what_cannot_be_scored_is_refused(logits, features):
    generated, real = features
    broken = logits.copy()
    broken[17, 0] = np.inf
    with pytest.raises(FeatureError, match="logits: row 17 is not finite"):
        inception_score(broken, equal_blocks(1000), fixed_permutation(1000))
    with pytest.raises(FeatureError, match="999 images, but the blocks hold 1000"):
        inception_score(logits[1:], equal_blocks(1000), fixed_permutation(1000))
    with pytest.raises(ValueError, match="no permutation"):
        inception_score(logits, equal_blocks(1000), np.zeros(1000, int))
    with pytest.raises(ValueError, match="5 images do not fill 10 blocks"):
        equal_blocks(5)
    with pytest.raises(FeatureError, match="300 reference images are fewer than a subset of 400"):
        kernel_distance(generated, real, subset_size=400)
    with pytest.raises(FeatureError, match="7 features cannot be compared with 8"):
        kernel_distance(generated[:, 1:], real)
    nan = generated.copy()
    nan[3] = np.nan
    with pytest.raises(FeatureError, match="generated: row 3 is not finite"):
        kernel_distance(nan, real)
    reference = FrechetReference(Moments.of(real).gaussian())
    with pytest.raises(FeatureError, match="8 images are too few"):
        reference.distance(Moments.of(generated[:8]).gaussian())
    with pytest.raises(FeatureError, match="8 features cannot be compared with 7"):
        reference.distance(Moments.of(generated[:, 1:]).gaussian())


# MIND

def _sliced(a, b, directions, seed):
    """3 F times the mean squared difference of sorted projections, one direction after the other in float64."""
    draw = torch.Generator().manual_seed(seed)
    count = min(len(a), len(b))
    a, b = (x if len(x) == count else x[torch.randperm(len(x), generator=draw)[:count].numpy()] for x in (a, b))
    total = 0.0
    for direction in torch.randn(directions, a.shape[1], generator=draw).double().numpy():
        unit = direction / np.linalg.norm(direction)
        total += ((np.sort(a.astype(float) @ unit) - np.sort(b.astype(float) @ unit)) ** 2).mean()
    return 3 * a.shape[1] * total / directions


@pytest.mark.parametrize("sizes", [(300, 300), (500, 300), (300, 500)])
def test_mind_is_its_definition(sizes):
    draw = np.random.default_rng(0)
    a, b = (draw.standard_normal((size, 12)).astype(np.float32) for size in sizes)
    b += 0.5
    assert monge_distance(a, b, directions=450) == pytest.approx(_sliced(a, b, 450, 2020), rel=1e-5)
    assert monge_distance(a, b, seed=1) != pytest.approx(monge_distance(a, b), rel=1e-5)


def test_mind_of_a_shift_is_three_times_its_square():
    """A shift by s in every feature moves a projection by s times a direction's sum, whose mean square is 1."""
    a = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float32)
    assert monge_distance(a, a + np.float32(0.5), directions=20_000) == pytest.approx(3 * 8 * 0.25, rel=0.03)
    assert monge_distance(a, a) == 0
    assert monge_distance(a, a[::-1]) == 0  # sets have no order


# Vendi score

def test_vendi_score_counts_what_differs():
    one, eye = np.ones((7, 3), np.float32), np.eye(5, dtype=np.float32)
    assert vendi_score(one) == pytest.approx(1) and vendi_score(3 * eye) == pytest.approx(5)
    assert vendi_score(np.repeat(eye, 4, axis=0)) == pytest.approx(5)
    assert vendi_score(np.concatenate([eye, eye[:1]])) < 5


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_vendi_score_is_the_entropy_of_the_kernel_matrix(shape):
    feature_NF = np.random.default_rng(0).standard_normal(shape).astype(np.float32) + 1
    unit = feature_NF / np.linalg.norm(feature_NF, axis=1, keepdims=True)
    share = np.linalg.eigvalsh((unit @ unit.T).astype(float) / len(unit))
    share = share[share > 1e-9]
    assert vendi_score(feature_NF) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-4)
    label_N = np.arange(len(unit)) % 2
    by_class = vendi_by_class(feature_NF, label_N)
    assert by_class.tolist() == [vendi_score(feature_NF[::2]), vendi_score(feature_NF[1::2])]


def test_an_image_without_features_has_no_vendi_score():
    with pytest.raises(FeatureError, match="row 2 is 0"):
        vendi_score(np.array([[1.0, 0], [0, 1], [0, 0]]))
