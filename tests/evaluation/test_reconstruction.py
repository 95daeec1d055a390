"""Real images rebuilt from their first scales, and the record of their scores."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from varient.evaluation.features import extract_in_memory
from varient.evaluation.inputs import open_samples
from varient.evaluation.protocols import ProtocolError
from varient.evaluation.reconstruction import encoded, reconstructed, score_reconstructions
from varient.evaluation.reference import archive_real_images
from varient.evaluation.scoring import open_networks, protocol_of, recognised_share
from varient.models.build import build_tokenizer
from varient.models.checkpoint import save_weights
from varient.models.classifier import Classifier
from varient.models.vqvae import VQVAE, from_uint8, to_uint8
from varient.records import ReconstructionRecord, read_record


@pytest.fixture
def run_dir(smoke, tmp_path):
    """Untrained networks of an experiment, and its real images."""
    torch.manual_seed(0)
    save_weights(tmp_path / "tokenizer.safetensors", build_tokenizer(smoke), {})
    for role in ("features", "judge"):
        network = Classifier(smoke.evaluation.classifier.feature_dim, smoke.data.num_classes, smoke.data.image_size)
        save_weights(tmp_path / f"classifier-{role}.safetensors", network, {})
    archive_real_images(smoke, "train", tmp_path / "train.npz")
    return tmp_path


def _tokenizer(smoke):
    torch.manual_seed(0)
    return build_tokenizer(smoke).eval()


def test_with_all_scales_it_is_the_tokenizers_reconstruction(smoke, run_dir):
    images, tokenizer = open_samples([run_dir / "train.npz"]).part(0, 20), _tokenizer(smoke)
    whole = reconstructed(images, encoded(images, tokenizer), tokenizer, smoke.pyramid.num_scales)
    with torch.no_grad():
        expected = to_uint8(tokenizer.decode(tokenizer.encode(from_uint8(torch.from_numpy(images.batch(0, 20))))))
    np.testing.assert_array_equal(whole.batch(0, 20), expected.numpy())
    assert whole.sha256 != images.sha256 and whole.labels.tolist() == images.labels.tolist()


def test_scales_that_are_left_out_have_no_say(smoke, run_dir):
    """Other tokens at the later scales, the same picture."""
    images, tokenizer = open_samples([run_dir / "train.npz"]).part(0, 4), _tokenizer(smoke)
    with torch.no_grad():
        idx_BL = tokenizer.encode(from_uint8(torch.from_numpy(images.batch(0, 4))))
        idx_BL[:, smoke.pyramid.end(6):] = 0
        expected = to_uint8(tokenizer.decode_latent(tokenizer.quantize.f_hats(idx_BL, 6)[-1]))
    rebuilt = reconstructed(images, encoded(images, tokenizer), tokenizer, 6)
    np.testing.assert_array_equal(rebuilt.batch(0, 4), expected.numpy())


def test_a_protocol_without_fid_is_refused_before_any_work(smoke, run_dir):
    evaluation = smoke.evaluation.model_copy(update={"protocol": "cmmd"})
    real = run_dir / "train.npz"
    with pytest.raises(ProtocolError, match="protocol cmmd: has no FID"):
        score_reconstructions(smoke.model_copy(update={"evaluation": evaluation}), run_dir / "tokenizer.safetensors",
                              [real], [real], run_dir, run_dir / "record.json")


def test_the_record_has_the_scores_that_the_images_would_get(smoke, run_dir):
    real = run_dir / "train.npz"
    record = score_reconstructions(smoke, run_dir / "tokenizer.safetensors", [real], [real], run_dir,
                                   run_dir / "record.json")
    assert read_record(run_dir / "record.json", ReconstructionRecord) == record
    assert [scale.scale for scale in record.scales] == list(smoke.pyramid.scales)
    assert [scale.tokens for scale in record.scales] == [side ** 2 for side in smoke.patch_nums]
    images, protocol = open_samples([real]), protocol_of(smoke.evaluation, 1437, 1437)
    extractor, judge, _ = open_networks(smoke, protocol, run_dir, "cpu")
    tokenizer = _tokenizer(smoke)
    rebuilt = reconstructed(images, encoded(images, tokenizer), tokenizer, 7)
    theirs, ours = (extract_in_memory(source, extractor).layers[protocol.feature_layer].astype(np.float64)
                    for source in (images, rebuilt))
    covariances = [np.cov(features, rowvar=False) for features in (theirs, ours)]
    expected = (np.square(theirs.mean(0) - ours.mean(0)).sum()
                + np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real))
    assert record.scales[6].fid == pytest.approx(expected, rel=1e-8)
    assert record.scales[6].recognised == recognised_share(judge, rebuilt)
    assert len({scale.fid for scale in record.scales}) == len(record.scales)


def test_each_image_is_encoded_once(smoke, run_dir, monkeypatch):
    real, seen = run_dir / "train.npz", []
    encode = VQVAE.encode

    def counted(self, image_B3SS):
        seen.append(len(image_B3SS))
        return encode(self, image_B3SS)

    monkeypatch.setattr(VQVAE, "encode", counted)
    record = score_reconstructions(smoke, run_dir / "tokenizer.safetensors", [real], [real], run_dir,
                                   run_dir / "record.json")
    assert sum(seen) == record.num_images
