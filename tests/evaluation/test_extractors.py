"""Both libraries' Inception from local files of random weights, through their real loaders, and nothing downloaded."""

import warnings

import numpy as np
import pytest
import torch
from evaluation_fixtures import ImageSet
from PIL import Image
from torch import Tensor, nn

from varient.evaluation.extractors import (
    CLEAN_FID_SHA256,
    POOL,
    SPATIAL,
    ClassifierExtractor,
    CleanInception,
    ExtractorError,
    FidelityInception,
)
from varient.evaluation.fidelity_classifier import FEATURES, LOGITS, register_classifier
from varient.files import sha256_of
from varient.models.classifier import Classifier

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 3, 24, 24), dtype=np.uint8)
pytestmark = pytest.mark.usefixtures("no_network")


# torch-fidelity

@pytest.fixture(scope="module")
def fidelity_file(tmp_path_factory):
    """A state dict as published: 472 tensors, no counters of batches; scaled so that features do not fade away."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        module = "torch_fidelity.feature_extractor_inceptionv3"
        patch.setattr(f"{module}.load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = FeatureExtractorInceptionV3("shape", ["2048"])
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert len(state) == 472
    for name, value in state.items():
        if name.endswith("conv.weight"):
            value.normal_(std=(2 / value[0].numel()) ** 0.5)
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def fidelity(fidelity_file):
    return FidelityInception(fidelity_file, sha256=sha256_of(fidelity_file))


@pytest.fixture(scope="module")
def fidelity_features(fidelity):
    return fidelity(IMAGES)


def test_layers_are_those_of_adm(fidelity, fidelity_features):
    assert {name: (value.shape, value.dtype) for name, value in fidelity_features.items()} == {
        POOL: ((10, 2048), np.float32), LOGITS: ((10, 1008), np.float32), SPATIAL: ((10, 7 * 17 * 17), np.float32)}
    assert all(value.std() > 1e-3 for value in fidelity_features.values())
    weight = fidelity._network.fc.weight.numpy()
    np.testing.assert_allclose(fidelity_features[LOGITS], fidelity_features[POOL] @ weight.T, rtol=1e-4, atol=1e-5)


def test_spatial_features_are_channels_last_as_in_a_reference_batch(fidelity, fidelity_features):
    seen = []
    hook = fidelity._network.Mixed_6d.branch1x1.bn.register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    fidelity(IMAGES[:2])
    hook.remove()
    expected = seen[0].relu().numpy().transpose(0, 2, 3, 1)[..., :7].reshape(2, -1)  # as in ADM's evaluator
    np.testing.assert_allclose(fidelity_features[SPATIAL][:2], expected, rtol=1e-5, atol=1e-6)


def test_features_are_those_that_torch_fidelity_computes_itself(fidelity_file, fidelity_features, tmp_path):
    from torch_fidelity import calculate_metrics

    metrics = calculate_metrics(
        input1=ImageSet(IMAGES), input2=ImageSet(IMAGES[:3]), feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(fidelity_file), isc=True, fid=True, isc_splits=2, cuda=False, batch_size=5,
        cache_root=str(tmp_path), input1_cache_name="samples", save_cpu_ram=True, verbose=False)
    for layer, theirs in ((POOL, "2048"), (LOGITS, "logits_unbiased")):
        cached = torch.load(tmp_path / f"samples-inception-v3-compat-features-{theirs}.pt", weights_only=True).numpy()
        np.testing.assert_allclose(fidelity_features[layer], cached, rtol=1e-5, atol=1e-6)
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric

    ours = torch.from_numpy(fidelity_features[POOL])
    fid = fid_statistics_to_metric(*map(fid_features_to_statistics, (ours, ours[:3])), verbose=False)
    isc = isc_features_to_metric(torch.from_numpy(fidelity_features[LOGITS]), splits=2)
    for key, value in (fid | isc).items():
        assert value == pytest.approx(metrics[key], rel=1e-4)


def test_an_image_has_the_same_features_in_any_batch(fidelity, fidelity_features):
    for layer, value in fidelity(IMAGES[4:6]).items():
        np.testing.assert_allclose(value, fidelity_features[layer][4:6], rtol=1e-5, atol=1e-6)


def test_resize_is_that_of_tensorflow_1():
    """Corner to corner, without half-pixel centres: pixel y of 299 lies at 24 y / 299; facts of the ADM graph."""
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    at = np.arange(299, dtype=np.float32) * np.float32(24 / 299)
    low = at.astype(int)
    high, share = np.minimum(low + 1, 23), at - low
    image = IMAGES[0, 0].astype(np.float32)
    across = image[:, low] + (image[:, high] - image[:, low]) * share
    expected = across[low] + (across[high] - across[low]) * share[:, None]
    resized = interpolate_bilinear_2d_like_tensorflow1x(torch.from_numpy(IMAGES[:1]).float(), (299, 299),
                                                        align_corners=False)
    np.testing.assert_allclose(resized[0, 0].numpy(), expected, atol=3e-4)


def test_tf32_is_off_while_features_are_computed_and_comes_back(fidelity, monkeypatch):
    states = []

    def watch(images):
        states.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32,
                       torch.backends.cudnn.benchmark))
        fidelity._spatial = torch.zeros(len(images), 2023)
        return torch.zeros(len(images), 2048), torch.zeros(len(images), 1008)

    monkeypatch.setattr(fidelity._network, "forward", watch)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        fidelity(IMAGES[:1])
        assert states == [(False, False, False)]
        assert matmul.allow_tf32 and cudnn.allow_tf32
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def _refused(match, make):
    with pytest.raises(ExtractorError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_the_published_ones_are_refused(fidelity_file, tmp_path):
    _refused(r"SHA-256 is [0-9a-f]{64}, expected 6726825d\.\.\.; expected is weights-inception-2015-12-05-6726825d.pth",
             lambda: FidelityInception(fidelity_file))
    _refused("expected 00000", lambda: FidelityInception(fidelity_file, sha256="0" * 64))
    _refused("is no SHA-256", lambda: FidelityInception(fidelity_file, sha256="6"))
    _refused(r"none.pth: no such file; expected weights-inception.*github.com/toshas/torch-fidelity",
             lambda: FidelityInception(tmp_path / "none.pth"))


class _RunsCode:
    """Pickles to a call."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return self._path.touch, ()


def test_files_that_are_no_inception_are_refused(fidelity_file, tmp_path):
    path = tmp_path / "weights.pth"

    def load():
        return FidelityInception(path, sha256=sha256_of(path))

    state = torch.load(fidelity_file, weights_only=True)
    torch.save({name: value for name, value in state.items() if name != "fc.bias"}, path)
    _refused(r"not torch-fidelity's Inception: Missing key\(s\) in state_dict: \"fc.bias\"", load)
    torch.save(state | {"fc.bias": torch.zeros(3)}, path)
    _refused("not torch-fidelity's Inception: size mismatch for fc.bias", load)
    torch.save([1, 2], path)
    _refused("not a plain state dict", load)
    torch.save(nn.Linear(2, 2), path)
    _refused("not a plain state dict", load)
    torch.save(state | {"fc.bias": _RunsCode(tmp_path / "ran")}, path)
    _refused("not a plain state dict", load)
    assert not (tmp_path / "ran").exists()
    path.write_bytes(fidelity_file.read_bytes()[:100_000])
    _refused("not a plain state dict", load)


# clean-fid

class _Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 3)  # rounds by the layout of the images in memory

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(image).flatten(1)[:, ::131][:, :2048]


class _StandIn(nn.Module):
    """What clean-fid calls of NVIDIA's torchscript file."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _Layers()

    def forward(self, image: Tensor, return_features: bool = False) -> Tensor:
        return self.layers(image)


def _script(module, path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(path)


@pytest.fixture(scope="module")
def clean_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("clean") / "of-any-name.pt"
    _script(_StandIn(), path)
    return path


def test_clean_features_are_those_that_clean_fid_computes_itself(clean_file, tmp_path):
    from cleanfid.fid import get_folder_features

    extractor = CleanInception(clean_file, sha256=sha256_of(clean_file))
    for number, image in enumerate(IMAGES):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number:02d}.png")
    theirs = get_folder_features(str(tmp_path), extractor._network, num_workers=0, device=torch.device("cpu"),
                                 mode="clean", verbose=False)
    ours = extractor(IMAGES)
    assert set(ours) == {POOL} and ours[POOL].dtype == np.float32
    assert np.array_equal(ours[POOL], theirs)
    assert extractor.sha256 == sha256_of(clean_file) and extractor.sha256[:16] in extractor.name


def test_clean_fid_files_are_checked(clean_file, fidelity_file, tmp_path):
    def load(path):
        return CleanInception(path, sha256=sha256_of(path))

    _refused(r"no such file; expected inception-2015-12-05.pt \(from https", lambda: CleanInception(tmp_path / "none"))
    _refused("expected 0000", lambda: CleanInception(clean_file, sha256="0" * 64))
    _refused("no torchscript Inception", lambda: load(fidelity_file))
    (tmp_path / "short.pt").write_bytes(clean_file.read_bytes()[:500])
    _refused("no torchscript Inception", lambda: load(tmp_path / "short.pt"))
    _script(nn.Linear(2, 2), tmp_path / "other.pt")
    _refused("no torchscript Inception", lambda: load(tmp_path / "other.pt"))


def test_a_program_is_not_run_before_its_hash_is_known(clean_file, monkeypatch):
    def run(*_arguments, **_settings):
        raise AssertionError("the program was loaded")

    monkeypatch.setattr(torch.jit, "load", run)
    _refused(f"SHA-256 is {sha256_of(clean_file)}, expected {CLEAN_FID_SHA256}", lambda: CleanInception(clean_file))
    for part in (sha256_of(clean_file)[:8], "", "g" * 64):
        _refused("is no SHA-256", lambda part=part: CleanInception(clean_file, sha256=part))


@pytest.mark.parametrize("network", [FidelityInception, CleanInception])
@pytest.mark.parametrize(("content", "kind"), [
    (b"<!DOCTYPE html><title>403</title>", "an HTML page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:6726825d\n", "a Git LFS pointer"),
    (b"", "an empty file"),
])
def test_what_is_no_file_of_weights_is_named_before_its_hash(tmp_path, network, content, kind):
    (tmp_path / "weights.pt").write_bytes(content)
    _refused(kind, lambda: network(tmp_path / "weights.pt"))


@pytest.mark.parametrize(("bias", "kind"), [
    (torch.full((1008,), float("nan")), "1 not finite"), (torch.full((1008,), float("inf")), "1 not finite"),
    (torch.zeros(1008).to_sparse(), "sparse"), (torch.zeros(1008, dtype=torch.complex64), "complex")])
def test_an_inception_whose_numbers_are_none_is_refused(fidelity_file, tmp_path, bias, kind):
    path = tmp_path / "weights.pth"
    torch.save(torch.load(fidelity_file, weights_only=True) | {"fc.bias": bias}, path)
    with pytest.raises(ExtractorError, match=kind) as caught:
        FidelityInception(path, sha256=sha256_of(path))
    assert "fc.bias" in str(caught.value) and "\n" not in str(caught.value)


# Ours

@pytest.fixture(scope="module")
def digits():
    torch.manual_seed(0)
    return ClassifierExtractor(Classifier(feature_dim=8, num_classes=5, image_size=24).eval().requires_grad_(False))


def test_the_classifier_is_an_extractor(digits):
    features = digits(IMAGES)
    assert digits.name == register_classifier(digits._classifier) and set(features) == {FEATURES, LOGITS}
    with torch.no_grad():
        assert np.array_equal(features[FEATURES], digits._classifier(torch.from_numpy(IMAGES))[0].numpy())
    with pytest.raises(ValueError, match="images are float32"):
        digits(IMAGES.astype(np.float32))
