"""Scores of archives end to end, beside the libraries and the definitions."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_fixtures import ImageSet
from scipy.linalg import sqrtm
from torch_fidelity import calculate_metrics

from varient.archive import Archive, write_archive
from varient.config import EvaluationConfig
from varient.evaluation import reconstruction, scoring
from varient.evaluation.extractors import POOL, SPATIAL, ClassifierExtractor
from varient.evaluation.fidelity_classifier import LOGITS, register_classifier
from varient.evaluation.image_source import ImageSource
from varient.evaluation.inputs import open_reference, open_samples
from varient.evaluation.moments import FeatureError
from varient.evaluation.neighbours import density_coverage
from varient.evaluation.protocols import ADM, FurtherRule, ProtocolError, check
from varient.evaluation.scores import monge_distance, vendi_score
from varient.evaluation.scoring import (
    ScoreError,
    check_belongs,
    protocol_of,
    recognised_share,
    score,
    score_experiment,
    score_files,
)
from varient.files import OutputError
from varient.models.classifier import Classifier
from varient.records import ScoreRecord, read_record, write_record

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
    assert record.fid == pytest.approx(_fid(a, b), rel=1e-9)
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
        assert ours == pytest.approx(theirs[name], rel=1e-6, abs=1e-9), name


def test_further_scores_are_those_of_the_same_features(classifier, images, sources):
    record = score(PROTOCOL, ClassifierExtractor(classifier), *sources)
    a, b = (ClassifierExtractor(classifier)(x)["features"] for x in images)
    balls = density_coverage(a, b, 5)
    assert (record.density, record.coverage) == (balls.density, balls.coverage)
    assert record.density_sd == pytest.approx(balls.density_N.std(ddof=1) / 20)
    assert record.coverage_sd == pytest.approx(balls.covered_M.std(ddof=1) / 300 ** 0.5)
    assert record.mind == monge_distance(a, b) > 0
    assert record.vendi == pytest.approx(np.mean([vendi_score(a[label::10]) for label in range(10)]))
    for name in ("density", "coverage", "MIND", "Vendi score"):
        assert name in record.summary()


def test_statistics_alone_give_no_score_of_real_images_and_no_labels_no_vendi_score(classifier, sources):
    samples, reference = sources
    unlabelled = replace(samples, labels=None)
    record = score(PROTOCOL, ClassifierExtractor(classifier), unlabelled, reference)
    assert record.vendi is None and record.mind > 0
    protocol = replace(PROTOCOL, further=None)
    without = score(protocol, ClassifierExtractor(classifier), samples, reference)
    assert without.density is without.coverage is without.mind is without.vendi is None
    assert without.fid == record.fid


def test_what_features_do_not_allow_is_left_out_with_a_remark(classifier, images, sources, tmp_path):
    extractor = ClassifierExtractor(classifier)
    few = open_reference([_archive(tmp_path / "few.npz", images[1][:10])])  # FID of 8 features takes 9
    record = score(replace(PROTOCOL, kid=None, further=FurtherRule(k=10)), extractor, sources[0], few)
    assert record.density is record.coverage is None and record.mind > 0 and record.vendi > 1
    assert any("no density and coverage: 10 reference images" in text for text in record.warnings)


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
    assert record.fid == pytest.approx(0, abs=1e-9)
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
    with pytest.raises(ScoreError, match="s.npz: 50 images, but the config asks for 100: a shard is missing"):
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


class PixelExtractor:
    """Stands in for an Inception: a few pixels as pool features, logits and spatial features."""

    name, layers, sha256, device = "pixels", (POOL, LOGITS, SPATIAL), "ab", "cpu"

    def __call__(self, images):
        pixels = images.reshape(len(images), -1).astype(np.float32) / 255
        return {POOL: pixels[:, :6], LOGITS: pixels[:, :10], SPATIAL: pixels[:, 6:10]}


@pytest.mark.parametrize(("with_spatial", "with_images"), [(False, False), (True, False), (False, True), (True, True)])
def test_statistics_alone_give_what_needs_no_more(images, tmp_path, with_spatial, with_images):
    """As pytorch-fid keeps them: mu and sigma."""
    features = PixelExtractor()(images[1])
    arrays = {"mu": features[POOL].mean(0), "sigma": np.cov(features[POOL], rowvar=False)}
    if with_spatial:
        arrays |= {"mu_s": features[SPATIAL].mean(0), "sigma_s": np.cov(features[SPATIAL], rowvar=False)}
    if with_images:
        arrays["arr_0"] = images[1].transpose(0, 2, 3, 1)
    np.savez(tmp_path / "ref.npz", **arrays)
    samples = open_samples([_archive(tmp_path / "a.npz", images[0])])
    protocol = replace(ADM, num_features=6, num_spatial_features=4)
    record = score(protocol, PixelExtractor(), samples, open_reference([tmp_path / "ref.npz"]))
    a, b = (PixelExtractor()(x)[POOL].astype(np.float64) for x in images)
    assert record.fid == pytest.approx(_fid(a, b), rel=1e-5) and record.inception_score > 1
    for name, there in (("sfid", with_spatial), ("precision", with_images), ("recall", with_images)):
        assert (getattr(record, name) is not None) == (getattr(record, f"{name}_sd") is not None) == there
        assert (name.replace("sfid", "sFID") in record.summary()) == there
    assert record.num_reference == (300 if with_images else 0) and "None" not in record.summary()
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json", ScoreRecord) == record


def test_a_rehearsal_compares_the_first_features_and_says_so(images, tmp_path):
    """So that fewer images than Inception has features do; logits, which are classes, stay whole."""
    real = PixelExtractor()(images[1])
    np.savez(tmp_path / "ref.npz", mu=real[POOL].mean(0), sigma=np.cov(real[POOL], rowvar=False),
             mu_s=real[SPATIAL].mean(0), sigma_s=np.cov(real[SPATIAL], rowvar=False),
             arr_0=images[1].transpose(0, 2, 3, 1))
    samples = open_samples([_archive(tmp_path / "a.npz", images[0])])
    reference = open_reference([tmp_path / "ref.npz"])
    whole = replace(ADM, num_features=6, num_spatial_features=4)
    rehearsal = replace(whole, first_features=3)
    record = score(rehearsal, PixelExtractor(), samples, reference)
    a, b = (PixelExtractor()(x) for x in images)
    for layer, value in ((POOL, record.fid), (SPATIAL, record.sfid)):
        assert value == pytest.approx(_fid(*(x[layer][:, :3].astype(np.float64) for x in (a, b))), rel=1e-5)
    assert record.precision == pytest.approx(_inside(a[POOL][:, :3], b[POOL][:, :3]), abs=1e-6)
    assert record.inception_score == score(whole, PixelExtractor(), samples, reference).inception_score
    (tmp_path / "weights.pth").touch()
    assert any("a rehearsal, on 3 of 6 features: its numbers are comparable with nothing" in warning
               for warning in check(rehearsal, samples, reference, tmp_path / "weights.pth"))


@pytest.fixture
def no_work(monkeypatch):
    """Nothing may be decoded, and no network loaded."""
    def refuse(*_arguments, **_settings):
        raise AssertionError("work began")

    monkeypatch.setattr(ImageSource, "batch", refuse)
    for name in ("open_extractor", "load_classifier"):
        monkeypatch.setattr(scoring, name, refuse)
    monkeypatch.setattr(reconstruction, "load_tokenizer", refuse)


def _statistics(path):
    np.savez(path, mu=np.zeros(2048), sigma=np.eye(2048))
    return path


def _many(path, count, side=1):
    np.savez(path, arr_0=np.zeros((count, side, side, 3), np.uint8))
    return path


@pytest.mark.parametrize(("protocol", "count", "extrapolate", "error", "said"), [
    ("adm", 2048, False, ProtocolError, "at least 2049 images, the samples have 2048"),
    ("torch-fidelity", 2048, False, ProtocolError, "at least 2049 images, the samples have 2048.*reference have 2048"),
    ("clean-fid", 2048, False, ProtocolError, "at least 2049 images, the samples have 2048.*reference have 2048"),
    ("adm", 4096, True, FeatureError, "sub-samples of 4096 out of 4096 images"),
    ("clean-fid", 4096, True, FeatureError, "sub-samples of 4096 out of 4096 images"),
])
def test_too_few_images_are_seen_from_counts(tmp_path, no_work, protocol, count, extrapolate, error, said):
    samples = _many(tmp_path / "a.npz", count)
    reference = _statistics(tmp_path / "ref.npz") if protocol == "adm" else samples
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(error, match=said):
        score_files(protocol, [samples], [reference], tmp_path / "out.json", weights=tmp_path / "weights", sha256=None,
                    device="cpu", extrapolate=extrapolate)
    assert not (tmp_path / "out.json").exists()


def _drawn(smoke, path, count=100, side=8, **origin):
    rng = np.random.default_rng(0)
    write_archive(path, Archive(rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8), np.arange(count) % 10,
                                np.arange(count), {"system": "x"} | origin))
    return path


@pytest.mark.parametrize("protocol", ["digits", "fashion-mnist"])
def test_every_set_has_the_size_that_the_classifier_takes(smoke, tmp_path, protocol):
    config = smoke.model_copy(update={"evaluation": smoke.evaluation.model_copy(update={"protocol": protocol})})
    samples = open_samples([_drawn(smoke, tmp_path / "a.npz")])
    fitting, other = (open_reference([_drawn(smoke, tmp_path / f"{side}.npz", side=side)]) for side in (8, 16))
    check_belongs(config, samples, fitting, fitting)
    for references in ((other,), (fitting, other)):
        with pytest.raises(ScoreError, match=r"16\.npz: images of side 16; smoke has 8"):
            check_belongs(config, samples, *references)


VERBS = [lambda config, samples, real, folder, output: score_experiment(config, [samples], [real], folder, output),
         lambda config, samples, real, folder, output: reconstruction.score_reconstructions(
             config, folder / "tokenizer.safetensors", [samples], [real], folder, output)]


@pytest.mark.parametrize("verb", VERBS, ids=["score", "reconstruct"])
@pytest.mark.parametrize(("samples", "real", "said"), [
    ({"count": 64}, {}, "at least 65 images, the samples have 64"),
    ({}, {"count": 64}, "at least 65 images, the reference have 64"),
    ({"side": 16}, {}, "images of side 16"),
    ({}, {"side": 16}, "images of side 16"),
    ({"experiment": "digits"}, {}, "its experiment is 'digits'"),
    ({"seed": 7}, {}, "its seed is 7"),
])
def test_sets_that_cannot_be_scored_are_seen_from_counts_and_sizes(smoke, tmp_path, no_work, verb, samples, real, said):
    files = _drawn(smoke, tmp_path / "a.npz", **samples), _drawn(smoke, tmp_path / "b.npz", **real)
    with pytest.raises((ProtocolError, ScoreError), match=said):
        verb(smoke, *files, tmp_path, tmp_path / "out.json")


@pytest.mark.parametrize("verb", VERBS, ids=["score", "reconstruct"])
@pytest.mark.parametrize("output", ["file/out.json", "file/deeper/out.json", "folder", "dangling/out.json"])
def test_a_record_that_could_not_be_written_is_said_before_work(smoke, tmp_path, no_work, verb, output):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("gone")
    shard = _drawn(smoke, tmp_path / "a.npz")
    with pytest.raises(OutputError, match=f"{output}: cannot be written"):
        verb(smoke, shard, shard, tmp_path, tmp_path / output)


@pytest.mark.parametrize("blocked", ["out.json", "out-features"])
def test_so_are_records_and_features_of_anybodys_samples(tmp_path, no_work, blocked):
    if blocked == "out.json":
        (tmp_path / blocked).mkdir()
    else:
        (tmp_path / blocked).write_text("")
    samples = _many(tmp_path / "a.npz", 3000)
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(OutputError, match=blocked):
        score_files("clean-fid", [samples], [samples], tmp_path / "out.json", weights=tmp_path / "weights", sha256=None,
                    device="cpu", extrapolate=False)


def test_pixels_on_another_scale_are_warned_of_in_the_record(classifier, images, sources, tmp_path):
    dark = open_samples([_archive(tmp_path / "dark.npz", images[0] % 2)])
    record = score(PROTOCOL, ClassifierExtractor(classifier), dark, sources[1])
    assert any("dark.npz" in text and "above 1" in text for text in record.warnings)
    assert not any("above" in text for text in score(PROTOCOL, ClassifierExtractor(classifier), *sources).warnings)


def test_a_name_that_is_no_utf8_costs_no_record(classifier, images, sources, tmp_path):
    folder = tmp_path / os.fsdecode(b"set-\xff")
    folder.mkdir()
    np.savez(folder / os.fsdecode(b"\xfe.npz"), arr_0=images[0].transpose(0, 2, 3, 1))
    samples = open_samples([folder])
    record = score(PROTOCOL, ClassifierExtractor(classifier), samples, sources[1], folder=tmp_path / "features")
    write_record(tmp_path / "r.json", record)
    assert read_record(tmp_path / "r.json", ScoreRecord).system == r"\xfe.npz"


def test_recognised_share_counts_agreement_with_the_labels(classifier, images, tmp_path):
    with torch.no_grad():
        wrong = classifier(torch.from_numpy(images[1]))[1].argmax(1).numpy()
    wrong[:30] = (wrong[:30] + 1) % 10
    write_archive(tmp_path / "a.npz", Archive(images[1], wrong, np.arange(300), {}))
    assert recognised_share(classifier, open_samples([tmp_path / "a.npz"])) == pytest.approx(0.9)
