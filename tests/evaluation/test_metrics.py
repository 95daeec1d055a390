"""Scores against references written here from the definitions, in float64."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from varient.archive import Archive
from varient.config import EvaluationConfig
from varient.evaluation.features import classifier_features, register_classifier
from varient.evaluation.metrics import ScoreError, recognised_share, score_images
from varient.models.classifier import Classifier

SETTINGS = EvaluationConfig(kid_subset_size=100)


@pytest.fixture(scope="module")
def extractor():
    torch.manual_seed(0)
    classifier = Classifier(feature_dim=8, num_classes=10, image_size=8)
    classifier.train()
    classifier(torch.randint(0, 256, (256, 3, 8, 8)))  # gives the batch norms statistics
    return classifier.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (300, 3, 8, 8))
    narrow = np.clip(rng.integers(90, 150, (400, 3, 8, 8)), 0, 255)
    return narrow.astype(np.uint8), real.astype(np.uint8)


def _fid(a, b):
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def _inside(points, centres):
    """Share of the points within reach of a centre: its distance to its third neighbour."""
    def distances(x, y):
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))

    reach = np.sort(distances(centres, centres), axis=1)[:, 3]
    return (distances(points, centres) <= reach).any(axis=1).mean()


def test_scores_agree_with_their_definitions(extractor, images):
    generated, real = images
    scores = score_images(generated, real, extractor, SETTINGS)
    a, b = (classifier_features(extractor, x).astype(np.float64) for x in images)
    assert scores["fid"] == pytest.approx(_fid(a, b), rel=1e-6)
    assert scores["fid_clean"] == pytest.approx(scores["fid"], rel=1e-6)
    assert scores["precision"] == pytest.approx(_inside(a, b), abs=1e-6)
    assert scores["recall"] == pytest.approx(_inside(b, a), abs=1e-6)
    assert abs(scores["precision"] - scores["recall"]) > 0.1  # so that swapping them would show


def test_wrong_normalisation_of_the_covariance_would_show(extractor, images):
    scores = score_images(*images, extractor, SETTINGS)
    a, b = (classifier_features(extractor, x).astype(np.float64) for x in images)
    biased = [np.cov(x, rowvar=False, ddof=0) for x in (a, b)]
    wrong = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(sum(biased) - 2 * sqrtm(biased[0] @ biased[1]).real)
    assert scores["fid"] != pytest.approx(wrong, rel=1e-5)


def test_scores_hardly_depend_on_the_order_of_images(extractor, images):
    generated, real = images
    straight = score_images(generated, real, extractor, SETTINGS)
    mixed = score_images(np.random.default_rng(1).permutation(generated), real, extractor, SETTINGS)
    assert mixed["fid"] == pytest.approx(straight["fid"], rel=1e-5)
    assert (mixed["precision"], mixed["recall"]) == (straight["precision"], straight["recall"])
    assert mixed["inception_score"] == pytest.approx(straight["inception_score"], rel=0.05)


def test_real_against_itself_is_perfect(extractor, images):
    scores = score_images(images[1], images[1], extractor, SETTINGS)
    assert scores["fid"] == pytest.approx(0, abs=1e-6)
    assert scores["precision"] == scores["recall"] == 1


def test_two_extractors_are_never_confused(extractor):
    torch.manual_seed(1)
    other = Classifier(feature_dim=8, num_classes=10, image_size=8).eval()
    assert register_classifier(extractor) == register_classifier(extractor) != register_classifier(other)


def test_sets_that_cannot_be_scored_are_refused(extractor, images):
    generated, real = images
    with pytest.raises(ScoreError, match=r"images are \(3, 16, 16\), the reference has \(3, 8, 8\)"):
        score_images(np.zeros((400, 3, 16, 16), np.uint8), real, extractor, SETTINGS)
    with pytest.raises(ScoreError, match="8 generated images are too few"):
        score_images(generated[:8], real, extractor, SETTINGS)
    broken = Classifier(feature_dim=8, num_classes=10, image_size=8).eval()
    with torch.no_grad():
        broken.trunk[0].weight.fill_(torch.nan)
    with pytest.raises(ScoreError, match="generated images are not finite"):
        score_images(generated, real, broken, SETTINGS)


def test_recognised_share_counts_agreement_with_the_labels(extractor, images):
    with torch.no_grad():
        verdicts = extractor(torch.from_numpy(images[1]))[1].argmax(1).numpy()
    wrong = verdicts.copy()
    wrong[:30] = (wrong[:30] + 1) % 10
    archive = Archive(images[1], wrong, np.arange(300), {})
    assert recognised_share(extractor, archive) == pytest.approx(0.9)
