"""Files of features: written, merged from parts, kept or refused."""

import json

import numpy as np
import pytest
import torch

from varient.archive import Archive, write_archive
from varient.evaluation.extractors import ClassifierExtractor
from varient.evaluation.features import extract, merge_features, read_features
from varient.evaluation.fidelity_classifier import LOGITS
from varient.evaluation.inputs import open_samples
from varient.evaluation.moments import FeatureError
from varient.models.classifier import Classifier

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 24, 24), dtype=np.uint8)


@pytest.fixture(scope="module")
def digits():
    torch.manual_seed(0)
    return ClassifierExtractor(Classifier(feature_dim=8, num_classes=5, image_size=24).eval().requires_grad_(False))


def _archives(folder, *bounds, **origin):
    paths = []
    for begin, end in bounds:
        paths.append(folder / f"{begin}.npz")
        write_archive(paths[-1], Archive(IMAGES[begin:end], np.arange(begin, end) % 5, np.arange(begin, end),
                                         {"system": "var", "sampling": {"num_images": 10}, **origin}))
    return paths


def test_parts_merge_to_the_features_of_the_whole(digits, tmp_path):
    shards = _archives(tmp_path, (0, 4), (4, 7), (7, 10))
    whole = extract(open_samples(shards), digits, tmp_path / "f" / "whole.npz", batch_size=3)
    parts = [tmp_path / f"f{number}.npz" for number in range(3)]
    for shard, part in zip(shards, parts, strict=True):
        extract(open_samples([shard]), digits, part)
    merged = merge_features(parts[::-1])
    for layer in digits.layers:
        np.testing.assert_allclose(merged.layers[layer], digits(IMAGES)[layer], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(merged.layers[layer], whole.layers[layer], rtol=1e-5, atol=1e-6)
    assert merged.sha256 == whole.sha256 == open_samples(shards).sha256
    assert merged.labels.tolist() == [0, 1, 2, 3, 4] * 2 and merged.indices.tolist() == list(range(10))
    assert merged.extractor == digits.name and merged.warnings == () and len(merged) == 10


def test_features_survive_writing(digits, tmp_path):
    extracted = extract(open_samples(_archives(tmp_path, (0, 10))), digits, tmp_path / "f.npz")
    again = read_features(tmp_path / "f.npz")
    assert np.array_equal(again.layers[LOGITS], extracted.layers[LOGITS]) and again.source == extracted.source
    assert json.dumps(again.source)


class _Counting:
    def __init__(self, extractor, name=None):
        self.name, self.layers, self.calls, self._extractor = name or extractor.name, extractor.layers, 0, extractor

    def __call__(self, images):
        self.calls += 1
        return self._extractor(images)


def test_what_is_there_is_kept_if_it_is_right_and_else_left_alone(digits, tmp_path):
    source, output = open_samples(_archives(tmp_path, (0, 10))), tmp_path / "f.npz"
    extract(source, digits, output)
    before, counting = output.read_bytes(), _Counting(digits)
    assert len(extract(source, counting, output)) == 10 and counting.calls == 0
    with pytest.raises(FeatureError, match="asked for is another"):
        extract(source, _Counting(digits, "another"), output)
    with pytest.raises(FeatureError, match="holds features of other images"):
        extract(source.part(0, 9), digits, output)
    write_archive(tmp_path / "other.npz", Archive(IMAGES[::-1].copy(), np.arange(10) % 5, np.arange(10), source.origin))
    with pytest.raises(FeatureError, match="holds features of other images"):
        extract(open_samples([tmp_path / "other.npz"]), digits, output)
    assert output.read_bytes() == before
    output.write_bytes(before[:-30])
    with pytest.raises(FeatureError, match="truncated or damaged"):
        extract(source, digits, output)
    with pytest.raises(FeatureError, match="not a file of features"):
        read_features(tmp_path / "other.npz")
    with pytest.raises(FeatureError, match="no such file"):
        read_features(tmp_path / "none.npz")


def test_a_run_that_fails_leaves_nothing(digits, tmp_path):
    def broken(images):
        return {layer: np.full((len(images), 8), np.nan, np.float32) for layer in digits.layers}

    broken.name, broken.layers = "broken", digits.layers
    source = open_samples(_archives(tmp_path, (0, 10)))
    with pytest.raises(FeatureError, match="features of broken are not finite"):
        extract(source, broken, tmp_path / "out" / "f.npz")
    assert not (tmp_path / "out").exists()


def test_parts_that_do_not_belong_together_are_refused(digits, tmp_path):
    def part(begin, end, name, extractor=digits, **origin):
        path = tmp_path / f"{name}.npz"
        folder = tmp_path / name
        return extract(open_samples(_archives(folder, (begin, end), **origin)), extractor, path) and path

    first, second = part(0, 4, "first"), part(4, 10, "second")
    assert len(merge_features([second, first])) == 10
    for others, match in [
            ([], "ends at image 3 of 10: a part is missing"),
            ([part(5, 10, "gap")], "starts at image 5, expected 4"),
            ([part(3, 10, "overlap")], "starts at image 3, expected 4"),
            ([second, second], "starts at image 4, expected 10"),
            ([part(4, 10, "run", seed=1)], "differ in origin: not parts of one set"),
            ([part(4, 10, "net", _Counting(digits, "another"))], "features of two extractors do not mix")]:
        with pytest.raises(FeatureError, match=match) as caught:
            merge_features([first, *others])
        assert "\n" not in str(caught.value)
    with pytest.raises(FeatureError, match="starts at image 4, expected 0"):
        merge_features([second])
    with pytest.raises(FeatureError, match="no features were given"):
        merge_features([])


def test_a_shard_generated_twice_shows(digits, tmp_path):
    doubled = np.concatenate([IMAGES[:5], IMAGES[:5]])
    np.savez(tmp_path / "adm.npz", arr_0=doubled.transpose(0, 2, 3, 1))
    features = extract(open_samples([tmp_path / "adm.npz"]), digits, tmp_path / "f.npz")
    assert "5 of 10 images are copies" in features.warnings[0]
