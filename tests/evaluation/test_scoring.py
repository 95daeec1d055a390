"""Scores of archives end to end, beside the libraries and the definitions."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch_fidelity import calculate_metrics

from varient.archive import Archive, write_archive
from varient.config import EvaluationConfig
from varient.evaluation.extractors import ClassifierExtractor
from varient.evaluation.features import ImageSet, register_classifier
from varient.evaluation.inputs import open_reference, open_samples
from varient.evaluation.moments import FeatureError
from varient.evaluation.scoring import ScoreError, protocol_of, recognised_share, score, score_experiment, score_files
from varient.models.classifier import Classifier

SETTINGS = EvaluationConfig.model_validate({"kid_subset_size": 100, "classifier": {
    "epochs": 1, "batch_size": 1, "learning_rate": 1.0}})
PROTOCOL = protocol_of(SETTINGS, 400, 300)


def _classifier(seed: int) -> Classifier:
    torch.manual_seed(seed)
    classifier = Classifier(feature_dim=8, num_classes=10, image_size=8)
    classifier.train()
    classifier(torch.randint(0, 256, (256, 3, 8, 8)))  # gives the batch norms statistics
    return classifier.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def classifier():
    return _classifier(0)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (300, 3, 8, 8))
    narrow = np.clip(rng.integers(90, 150, (400, 3, 8, 8)), 0, 255)
    return narrow.astype(np.uint8), real.astype(np.uint8)


def _archive(path, images, first=0, **origin):
    indices = np.arange(first, first + len(images))
    write_archive(path, Archive(images, indices % 10, indices, {"system": "toy"} | origin))
    return path


@pytest.fixture(scope="module")
def sources(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    generated, real = images
    return open_samples([_archive(folder / "a.npz", generated)]), open_reference([_archive(folder / "b.npz", real)])


def _fid(a, b, ddof=1):
    covariances = [np.cov(x, rowvar=False, ddof=ddof) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def _inside(points, centres):
    """Share of the points within reach of a centre: its distance to its third neighbour."""
    def distances(x, y):
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))

    reach = np.sort(distances(centres, centres), axis=1)[:, 3]
    return (distances(points, centres) <= reach).any(axis=1).mean()


def test_scores_agree_with_their_definitions(classifier, images, sources):
    record = score(PROTOCOL, ClassifierExtractor(classifier), *sources)
    a, b = (ClassifierExtractor(classifier)(x)["features"].astype(np.float64) for x in images)
    assert record.fid == pytest.approx(_fid(a, b), rel=1e-6)
    assert record.fid != pytest.approx(_fid(a, b, ddof=0), rel=1e-4)
    assert record.precision == pytest.approx(_inside(a, b), abs=1e-6)
    assert record.recall == pytest.approx(_inside(b, a), abs=1e-6)
    assert abs(record.precision - record.recall) > 0.1  # so that swapping them would show


def test_scores_agree_with_torch_fidelity_as_a_whole(classifier, images, sources):
    record = score(PROTOCOL, ClassifierExtractor(classifier), *sources)
    theirs = calculate_metrics(
        input1=ImageSet(images[0]), input2=ImageSet(images[1]), feature_extractor=register_classifier(classifier),
        isc=True, fid=True, kid=True, prc=True, kid_subset_size=100, cuda=False, cache=False, save_cpu_ram=True,
        verbose=False)
    pairs = {"frechet_inception_distance": record.fid, "inception_score_mean": record.inception_score,
             "inception_score_std": record.inception_score_std, "kernel_inception_distance_mean": record.kid,
             "kernel_inception_distance_std": record.kid_std, "precision": record.precision, "recall": record.recall}
    for name, ours in pairs.items():
        assert ours == pytest.approx(theirs[name], rel=1e-6, abs=1e-6), name


def test_every_score_has_a_spread_and_what_it_was_made_of(classifier, sources):
    record = score(PROTOCOL, ClassifierExtractor(classifier), *sources, extrapolate=True)
    assert record.precision == 1 and record.precision_sd == 0  # the narrow set lies inside
    for name in ("fid", "inception_score", "kid", "recall"):
        assert 0 < getattr(record, f"{name}_sd") < max(abs(getattr(record, name)), 0.1)
    assert record.fid_bias > 0 and record.fid_infinity < record.fid
    assert (record.protocol, record.num_images, record.num_reference) == ("digits", 400, 300)
    assert record.extractor == register_classifier(classifier) and record.sfid is None


def test_shards_in_any_order_are_one_set(classifier, images, sources, tmp_path):
    whole = score(PROTOCOL, ClassifierExtractor(classifier), *sources)
    shards = [_archive(tmp_path / f"{first}.npz", images[0][first:first + 100], first) for first in (300, 100, 0, 200)]
    parts = score(PROTOCOL, ClassifierExtractor(classifier), open_samples(shards), sources[1])
    assert parts.model_dump(exclude={"provenance"}) == whole.model_dump(exclude={"provenance"})


def test_features_that_are_kept_give_the_same_scores(classifier, sources, tmp_path):
    once = score(PROTOCOL, ClassifierExtractor(classifier), *sources, folder=tmp_path)
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    again = score(PROTOCOL, ClassifierExtractor(classifier), *sources, folder=tmp_path)
    assert len(kept) == 2 and kept == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert once.model_dump(exclude={"provenance"}) == again.model_dump(exclude={"provenance"})


def test_real_against_itself_is_perfect(classifier, sources):
    record = score(PROTOCOL, ClassifierExtractor(classifier), sources[1].images, sources[1])
    assert record.fid == pytest.approx(0, abs=1e-6)
    assert record.precision == record.recall == 1


@pytest.mark.parametrize("kept", [True, False])
def test_a_test_set_gives_a_second_fid_and_moves_nothing_else(classifier, images, sources, tmp_path, kept):
    further = open_reference([_archive(tmp_path / "test.npz", images[1][:120])])
    folder = tmp_path / "features" if kept else None
    plain = score(PROTOCOL, ClassifierExtractor(classifier), *sources, folder=folder)
    both = score(PROTOCOL, ClassifierExtractor(classifier), *sources, folder=folder, test=further)
    a, b = (ClassifierExtractor(classifier)(x)["features"].astype(np.float64) for x in (images[0], images[1][:120]))
    assert both.fid_test == pytest.approx(_fid(a, b), rel=1e-6)
    assert both.fid_test != pytest.approx(both.fid, rel=1e-3) and 0 < both.fid_test_sd < both.fid_test
    assert plain.fid_test is plain.fid_test_sd is None
    without = {"provenance", "fid_test", "fid_test_sd"}
    assert both.model_dump(exclude=without) == plain.model_dump(exclude=without)
    assert "FID to the test set" in both.summary() and "FID to the test set" not in plain.summary()


def test_sets_that_cannot_be_scored_are_refused(classifier, sources, images, tmp_path):
    few = open_samples([_archive(tmp_path / "few.npz", images[0][:8])])
    with pytest.raises(FeatureError, match="8 images are too few: the covariance of 8 features needs at least 9"):
        score(PROTOCOL, ClassifierExtractor(classifier), few, sources[1])
    broken = _classifier(1)
    with torch.no_grad():
        broken.trunk[0].weight.fill_(torch.nan)
    with pytest.raises(FeatureError, match=r"features of .* are not finite"):
        score(PROTOCOL, ClassifierExtractor(broken), *sources)


def test_a_missing_shard_of_an_experiment_is_named(smoke, images, tmp_path):
    sampling = smoke.sampling.model_dump(mode="json")
    shard = _archive(tmp_path / "s.npz", images[0][:50], sampling=sampling)
    with pytest.raises(ScoreError, match="50 images of toy, but the config asks for 100: a shard is missing"):
        score_experiment(smoke, [shard], [shard], tmp_path, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(("origin", "message"), [
    ({"experiment": "digits"}, "its experiment is 'digits', the config's is 'smoke'"),
    ({"experiment": "smoke", "seed": 3}, "its seed is 3, the config's is 0"),
    ({"sampling": {"num_images": 400}}, "sampled with other settings"),
])
def test_samples_of_another_experiment_are_refused(smoke, images, tmp_path, origin, message):
    shard = _archive(tmp_path / "s.npz", images[0], **origin)
    with pytest.raises(ScoreError, match=message):
        score_experiment(smoke, [shard], [shard], tmp_path, tmp_path / "out.json")


@pytest.mark.parametrize(("precision", "changes", "refused"), [
    ("fp32", {"shards": 9, "batch_size": 7, "decoded_at_once": 3}, False),
    ("fp32", {"cfg": 3.0}, True),
    ("fp16", {"decoded_at_once": 3}, False),
    ("fp16", {"batch_size": 7}, True),
])
@pytest.mark.parametrize("whole", [True, False])
def test_samples_are_refused_only_for_what_can_change_them(smoke, images, tmp_path, precision, changes, refused, whole):
    """Also where an archive says more of its sampling than that."""
    settings = smoke.sampling.model_copy(update={"precision": precision})
    config, drawn = smoke.model_copy(update={"sampling": settings}), settings.model_copy(update=changes)
    sampling = drawn.model_dump(mode="json") if whole else drawn.of_images()
    shard = _archive(tmp_path / "s.npz", images[0][:50], experiment="smoke", seed=0, sampling=sampling)
    with pytest.raises(ScoreError, match="sampled with other settings" if refused else "a shard is missing"):
        score_experiment(config, [shard], [shard], tmp_path, tmp_path / "out.json")


def test_too_few_images_for_an_extra_cost_only_the_extra(classifier, images, sources, tmp_path):
    few = open_samples([_archive(tmp_path / "few.npz", images[0][:16])])
    protocol = protocol_of(SETTINGS, 16, 300)
    record = score(protocol, ClassifierExtractor(classifier), few, sources[1], extrapolate=True)
    assert record.fid_infinity is None and any("no FID at infinity" in warning for warning in record.warnings)


def test_a_protocol_without_its_weights_is_refused_before_work(images, tmp_path):
    shard = _archive(tmp_path / "s.npz", images[0])
    with pytest.raises(ValueError, match=r"protocol adm: no file of Inception weights .*; .* has no mu, sigma, mu_s"):
        score_files("adm", [shard], [shard], tmp_path / "out.json", weights=None, sha256=None, device="cpu",
                    extrapolate=False)
    assert not (tmp_path / "out.json").exists()


def test_recognised_share_counts_agreement_with_the_labels(classifier, images, tmp_path):
    with torch.no_grad():
        wrong = classifier(torch.from_numpy(images[1]))[1].argmax(1).numpy()
    wrong[:30] = (wrong[:30] + 1) % 10
    write_archive(tmp_path / "a.npz", Archive(images[1], wrong, np.arange(300), {}))
    assert recognised_share(classifier, open_samples([tmp_path / "a.npz"])) == pytest.approx(0.9)
