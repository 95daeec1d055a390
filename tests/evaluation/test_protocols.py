"""What each protocol fixes, and that everything it needs is asked for before work begins."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from torch_fidelity.defaults import DEFAULTS

from varient.archive import Archive, write_archive
from varient.evaluation.extractors import ExtractorError
from varient.evaluation.inputs import open_reference, open_samples
from varient.evaluation.protocols import (
    ADM,
    ADM_REHEARSAL,
    CLEAN_FID,
    DIGITS,
    PROTOCOLS,
    TORCH_FIDELITY,
    KidRule,
    ProtocolError,
    check,
    open_extractor,
    protocol_named,
)
from varient.export import export_adm
from varient.models.classifier import Classifier

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
STATISTICS = {"mu": np.zeros(2048, np.float32), "sigma": np.eye(2048, dtype=np.float32),
              "mu_s": np.zeros(2023, np.float32), "sigma_s": np.eye(2023, dtype=np.float32)}


def _samples(tmp_path, end=20):
    write_archive(tmp_path / "a.npz", Archive(IMAGES[:end], np.arange(end) % 4, np.arange(end),
                                              {"sampling": {"num_images": 20}}))
    return open_samples([tmp_path / "a.npz"])


def _reference(tmp_path, side=8, **arrays):
    path = tmp_path / "ref.npz"
    np.savez(path, arr_0=np.zeros((9, side, side, 3), np.uint8), **(arrays or STATISTICS))
    return open_reference([path])


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"")
    return tmp_path / "weights.pth"


# What they say

def test_protocols_have_the_scores_of_their_sources():
    assert {name: protocol.metrics for name, protocol in PROTOCOLS.items()} == {
        "adm": ("fid", "sfid", "inception_score", "precision", "recall"),
        "torch-fidelity": ("fid", "inception_score", "kid", "precision", "recall"),
        "clean-fid": ("fid", "kid"),
        "digits": ("fid", "inception_score", "kid", "precision", "recall"),
        "fashion-mnist": ("fid", "inception_score", "kid", "precision", "recall"),
        "adm-rehearsal": ("fid", "sfid", "inception_score", "precision", "recall"),
        "fd-dinov2": ("fid",), "cmmd": ("cmmd",)}
    with pytest.raises(FrozenInstanceError):
        ADM.num_images = 1
    assert all(protocol.source and protocol.notes for protocol in PROTOCOLS.values())
    assert protocol_named("adm") is ADM
    with pytest.raises(ProtocolError, match="no protocol 'fid'; there are adm, torch-fidelity, clean-fid, digits"):
        protocol_named("fid")


def test_torch_fidelity_keeps_its_defaults():
    score, kid = TORCH_FIDELITY.inception_score, TORCH_FIDELITY.kid
    assert (score.splits, score.seed) == (DEFAULTS["isc_splits"], DEFAULTS["rng_seed"])
    assert (kid.subsets, kid.subset_size, kid.seed) == (DEFAULTS["kid_subsets"], DEFAULTS["kid_subset_size"],
                                                        DEFAULTS["rng_seed"])
    assert TORCH_FIDELITY.neighbours.k == DEFAULTS["prc_neighborhood"] and DEFAULTS["samples_shuffle"]
    assert DEFAULTS["feature_extractor"] is None  # which gives VGG16 for precision and recall


def test_blocks_of_adm_and_torch_fidelity_coincide_at_50000():
    adm, fidelity = ADM.inception_score, TORCH_FIDELITY.inception_score
    assert np.array_equal(adm.blocks(50_000), fidelity.blocks(50_000)) and len(adm.blocks(50_000)) == 11
    assert adm.blocks(12_000).tolist() == [0, 5000, 10_000, 12_000]
    order = adm.permutation(50_000)
    assert np.array_equal(order, fidelity.permutation(50_000))
    assert np.array_equal(order, np.random.RandomState(2020).permutation(50_000))
    assert order.tolist()[:3] == [24397, 39273, 6546]  # recorded: another order is another protocol


def test_blocks_of_an_exported_batch_are_those_of_its_archives(tmp_path):
    rule = replace(ADM.inception_score, block_size=8)
    samples = _samples(tmp_path)
    export_adm([tmp_path / "a.npz"], tmp_path / "adm.npz")
    exported = open_samples([tmp_path / "adm.npz"])
    for source in (samples, exported):
        order = rule.permutation(len(source), source.permutation_seed)
        block = np.concatenate([source.batch(int(at), int(at) + 1) for at in order[:rule.blocks(20)[1]]])
        assert np.array_equal(block, IMAGES[np.random.RandomState(2020).permutation(20)[:8]])
    assert not np.array_equal(rule.permutation(20, stored_seed=1), np.arange(20))


# What they need

SMALL = replace(ADM, num_features=3, num_spatial_features=2)
"""ADM on so few features that 20 images are enough."""
FEW = {"mu": np.zeros(3), "sigma": np.eye(3), "mu_s": np.zeros(2), "sigma_s": np.eye(2)}


def test_adm_takes_what_it_needs_and_warns_of_the_rest(tmp_path, weights):
    found = check(SMALL, _samples(tmp_path), _reference(tmp_path, side=16, **FEW), weights)
    assert [text.split(": ", 1)[1] for text in found] == [
        "20 images, published numbers are of 50000; FID, IS, precision and recall all depend on how many",
        "9 images, published precision and recall are against 10000",
        "side 8, the reference has 16; Inception resizes both, the numbers are not those of one resolution"]


def test_everything_missing_is_said_at_once(tmp_path):
    with pytest.raises(ProtocolError) as caught:
        check(ADM, _samples(tmp_path, end=12), _reference(tmp_path, mu_s=np.zeros(3), sigma_s=np.eye(3)), None)
    message = str(caught.value)
    for part in ("protocol adm: no file of Inception weights was given (--weights); expected weights-inception",
                 "ref.npz has no mu, sigma; the reference is VIRTUAL_imagenet256_labeled.npz",
                 "FID on 2048 features needs at least 2049 images, the samples have 12",
                 "12 images of 20: a shard is missing"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(("protocol", "match"), [
    (TORCH_FIDELITY, "KID needs at least 1000 images, the samples have 20"),
    (CLEAN_FID, "KID needs at least 1000 images, the reference have 9"),
    (replace(DIGITS, kid=KidRule(subset_size=10)), "KID needs at least 10 images, the reference have 9"),
    (replace(DIGITS, kid=KidRule(subset_size=1), num_features=20), "FID on 20 features needs at least 21 images, the "
                                                                   "samples have 20; .*the reference have 9"),
    (ADM, "FID on 2048 features needs at least 2049 images, the samples have 20$"),
    (replace(ADM_REHEARSAL, first_features=20), "FID on 20 features needs at least 21 images, the samples have 20$"),
])
def test_sets_too_small_for_a_score(tmp_path, weights, protocol, match):
    with pytest.raises(ProtocolError, match=match):
        check(protocol, _samples(tmp_path), _reference(tmp_path), weights)


def test_digits_needs_no_weights(tmp_path):
    assert check(replace(DIGITS, kid=KidRule(subset_size=9)), _samples(tmp_path), _reference(tmp_path)) == ()


@pytest.mark.parametrize(("arrays", "images", "lacking", "metrics"), [
    (("mu", "sigma"), False, "no mu_s and sigma_s and no images, so there is no sfid, precision, recall",
     ("fid", "inception_score")),
    (("mu", "sigma", "mu_s", "sigma_s"), False, "no images, so there is no precision, recall",
     ("fid", "sfid", "inception_score")),
    (("mu", "sigma"), True, "no mu_s and sigma_s, so there is no sfid",
     ("fid", "inception_score", "precision", "recall")),
])
def test_adm_scores_what_a_reference_allows_and_says_what_it_does_not(tmp_path, weights, arrays, images, lacking,
                                                                      metrics):
    pixels = {"arr_0": np.zeros((9, 8, 8, 3), np.uint8)} if images else {}
    np.savez(tmp_path / "ref.npz", **{name: FEW[name] for name in arrays}, **pixels)
    reference = open_reference([tmp_path / "ref.npz"])
    assert SMALL.metrics_against(reference) == metrics
    (warning,) = [text for text in check(SMALL, _samples(tmp_path), reference, weights) if "so there is no" in text]
    assert warning == f"{tmp_path / 'ref.npz'}: has {lacking}"


def test_references_that_do_not_fit(tmp_path, weights):
    wrong = STATISTICS | {"mu": np.zeros(3), "sigma": np.eye(3)}
    with pytest.raises(ProtocolError, match="mu has 3 entries, expected 2048"):
        check(ADM, _samples(tmp_path), _reference(tmp_path, **wrong), weights)
    np.savez(tmp_path / "only.npz", **STATISTICS)
    only = open_reference([tmp_path / "only.npz"])
    with pytest.raises(ProtocolError, match="has statistics but no images"):
        check(TORCH_FIDELITY, _samples(tmp_path), only, weights)
    with pytest.raises(ProtocolError, match=r"none\.pth: no such file; expected inception-2015-12-05\.pt"):
        check(CLEAN_FID, _samples(tmp_path), _reference(tmp_path), tmp_path / "none.pth")


def test_extractors_are_opened_by_protocol(weights):
    torch.manual_seed(0)
    classifier = Classifier(feature_dim=4, num_classes=3, image_size=8).eval()
    for protocol in PROTOCOLS.values():
        if protocol.network == "classifier":
            extractor = open_extractor(protocol, classifier=classifier)
            assert {protocol.feature_layer, protocol.logits_layer} <= set(extractor.layers)
        else:
            with pytest.raises(ExtractorError, match="expected"):
                open_extractor(protocol, weights=weights, sha256="0" * 64)
        with pytest.raises(ProtocolError, match=f"protocol {protocol.name}"):
            open_extractor(protocol)
