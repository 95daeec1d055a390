"""FID on features that have not learned from the reference, and the classifiers behind it."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from scipy.linalg import sqrtm

from varient.archive import Archive, write_archive
from varient.config import ConfigError, load_config, parse_config
from varient.evaluation.crossed import crossed_fids
from varient.evaluation.image_source import source_of
from varient.evaluation.reference import archive_real_images
from varient.evaluation.scoring import score_experiment
from varient.files import sha256_of
from varient.models.build import load_classifier
from varient.models.checkpoint import CheckpointError, read_description, save_weights
from varient.models.classifier import Classifier
from varient.records import ScoreRecord, read_record
from varient.training import classifier as classifier_module
from varient.training.classifier import roles, train_classifier
from varient.training.data import halves_of, load_images


@pytest.fixture
def crossed(smoke):
    return smoke.model_copy(update={"evaluation": smoke.evaluation.model_copy(update={"halves": 2})})


def _write_classifiers(config, folder):
    for seed, role in enumerate(roles(config)):
        torch.manual_seed(seed)
        network = Classifier(config.evaluation.classifier.feature_dim, config.data.num_classes, config.data.image_size)
        network.train()
        network(torch.randint(0, 256, (256, 3, 8, 8)))  # gives the batch norms statistics
        save_weights(folder / f"classifier-{role}.safetensors", network.eval(), {})


def _drawn(count=200):
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 8, 8), np.uint8)
    return Archive(images, np.arange(count) % 10, np.arange(count), {"system": "toy", "experiment": "smoke", "seed": 0})


def _by_definition(config, folder, images, number):
    _, half = halves_of(load_images(config.data, "train"), number)
    network = load_classifier(config, folder / f"classifier-half{number}.safetensors")
    with torch.no_grad():
        drawn, real = (network(pixels)[0].numpy().astype(np.float64)
                       for pixels in (torch.from_numpy(images), half.images))
    covariances = [np.cov(features, rowvar=False) for features in (drawn, real)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    shift = drawn.mean(0) - real.mean(0)
    return shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)


def test_each_is_against_one_half_on_features_of_the_other(crossed, tmp_path):
    _write_classifiers(crossed, tmp_path)
    archive = _drawn()
    found = crossed_fids(crossed, source_of(archive), tmp_path)
    assert found == pytest.approx([_by_definition(crossed, tmp_path, archive.images, number) for number in (1, 2)],
                                  rel=1e-4)
    assert found[0] != found[1]


def test_the_record_has_them_beside_the_usual_score(crossed, smoke, tmp_path):
    _write_classifiers(crossed, tmp_path)
    write_archive(tmp_path / "drawn.npz", _drawn(smoke.sampling.num_images))
    archive_real_images(smoke, "train", tmp_path / "real.npz")
    sets = [tmp_path / "drawn.npz"], [tmp_path / "real.npz"]
    without = score_experiment(smoke, *sets, tmp_path, tmp_path / "without.json")
    record = score_experiment(crossed, *sets, tmp_path, tmp_path / "record.json")
    assert read_record(tmp_path / "record.json", ScoreRecord) == record
    assert (without.fid_halves, without.fid_cross) == ((), None)
    assert len(record.fid_halves) == 2 and record.fid_cross == pytest.approx(sum(record.fid_halves) / 2)
    assert record.fid == without.fid and record.kid == without.kid
    names = {"classifier-half1", "classifier-half2"}
    assert names <= record.provenance.weights_sha256.keys() and not names & without.provenance.weights_sha256.keys()
    assert record.provenance.weights_sha256["classifier-half2"] == sha256_of(tmp_path / "classifier-half2.safetensors")


def test_a_missing_classifier_is_named_and_no_record_written(crossed, tmp_path):
    _write_classifiers(crossed, tmp_path)
    (tmp_path / "classifier-half2.safetensors").unlink()
    with pytest.raises((CheckpointError, FileNotFoundError), match="classifier-half2"):
        crossed_fids(crossed, source_of(_drawn()), tmp_path)


def test_a_classifier_of_a_half_learns_from_it_alone(crossed, tmp_path, monkeypatch):
    seen = []

    def noted(step, *, num_items, batch_size, seed):
        seen.append(num_items)
        return torch.arange(batch_size)

    monkeypatch.setattr(classifier_module, "batch_indices", noted)
    images = load_images(crossed.data, "train")
    for role, count in (("features", 1437), ("half1", 718), ("half2", 718)):
        seen.clear()
        train_classifier(crossed, role, tmp_path / f"{role}.safetensors")
        assert set(seen) == {count} and len(seen) == count // crossed.evaluation.classifier.batch_size
        assert read_description(tmp_path / f"{role}.safetensors")["role"] == role
    assert len(halves_of(images, 1)[0]) == 718
    assert len({(tmp_path / f"{role}.safetensors").read_bytes() for role in ("half1", "half2")}) == 2
    with pytest.raises(ValueError, match="role 'half3' is unknown; known: features, judge, half1, half2"):
        train_classifier(crossed, "half3", tmp_path / "x.safetensors")


def test_halves_are_for_protocols_with_a_classifier(smoke):
    settings = load_config(ROOT / "workflow/config/imagenet256.yaml").model_dump(mode="json")
    settings["evaluation"]["halves"] = 2
    with pytest.raises(ConfigError, match="halves = 2: protocol adm"):
        parse_config(settings, "test")
    assert "halves" not in smoke.evaluation.model_dump()  # so that older scores stay up to date


def test_a_half_must_have_more_images_than_features(crossed):
    settings = crossed.model_dump(mode="json")
    settings["data"]["holdout"], settings["evaluation"]["classifier"]["feature_dim"] = 1297, 250
    settings["sampling"]["num_images"] = 300
    with pytest.raises(ConfigError, match="half of the training set = 250 is too few"):
        parse_config(settings, "test")
    settings["evaluation"]["halves"] = 0
    parse_config(settings, "test")
