"""DINOv2 and CLIP from local files in the released layouts, with random weights, narrow and shallow, and no network.

Their networks are computed a second time here, by hand, from the tensors of the files.
"""

import logging
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.linalg import sqrtm
from torch.nn import functional as F
from torchvision import transforms

from varient.evaluation import encoders, protocols
from varient.evaluation.encoders import EMBEDDING, Clip, DinoV2
from varient.evaluation.extractors import ExtractorError
from varient.evaluation.fidelity import compare_files
from varient.evaluation.inputs import open_reference, open_samples
from varient.evaluation.protocols import CMMD, FD_DINOV2, ProtocolError, check
from varient.evaluation.scoring import score_files
from varient.files import sha256_of
from varient.models.build import without_weights
from varient.records import ScoreRecord, read_record

timm, open_clip = (pytest.importorskip(name, reason="needs varient[encoders]") for name in ("timm", "open_clip"))

DINOV2 = {"model_name": "vit_large_patch14_dinov2", "embed_dim": 16, "depth": 2, "num_heads": 2}
CLIP = {"embed_dim": 12, "quick_gelu": True,
        "vision_cfg": {"image_size": 336, "layers": 2, "width": 64, "patch_size": 14},  # heads of 64, as all of CLIP's
        "text_cfg": {"context_length": 7, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1}}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 24, 24), dtype=np.uint8)
pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The same families with fewer and narrower layers."""
    monkeypatch.setattr(encoders, "_DINOV2_MODEL", DINOV2)
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: CLIP)


def _random(state):
    """Values at which all parts of a network count: weights that keep the variance, scales about 1."""
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(value.shape, generator=draw) * (value[0].numel() ** -0.5 if value.ndim > 1 else 0.3)
            + (1.0 if value.ndim == 1 and name.endswith(("weight", "gamma")) else 0.0)
            for name, value in state.items()}


@pytest.fixture(scope="module")
def dinov2_file(tmp_path_factory):
    """As timm's: positions of 37 x 37 patches and the class token."""
    state = _random(timm.create_model(**DINOV2, pretrained=False).state_dict())
    state["pos_embed"] *= 4  # of 16 numbers each: else the positions would hardly count
    save_file(state, path := tmp_path_factory.mktemp("dinov2") / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    """As open_clip's, both towers."""
    save_file(_random(open_clip.CLIP(**CLIP).state_dict()),
              path := tmp_path_factory.mktemp("clip") / "open_clip_model.safetensors")
    return path


@pytest.fixture
def dinov2(dinov2_file):
    return DinoV2(dinov2_file)


@pytest.fixture
def clip(clip_file):
    return Clip(clip_file)


FILES = [(DinoV2, "dinov2_file"), (Clip, "clip_file")]


# What the networks see

def _reference_transform(encoder):
    """torchvision's, on a PIL image, as dgm-eval has it; for CMMD's code the same steps by NumPy."""
    if encoder is DinoV2:
        return transforms.Compose([
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC), transforms.ToTensor(),
            transforms.Normalize(np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225]))])

    def of_cmmd(image):
        resized = np.asarray(image.resize((336, 336), resample=Image.BICUBIC)).astype(np.float32) / 255
        scaled = (resized - np.float32(open_clip.OPENAI_DATASET_MEAN)) / np.float32(open_clip.OPENAI_DATASET_STD)
        return torch.from_numpy(scaled.transpose(2, 0, 1))

    return of_cmmd


@pytest.mark.parametrize("encoder", [DinoV2, Clip])
@pytest.mark.parametrize("side", [1, 8, 56, 224, 256, 336, 512])
def test_pixels_are_those_of_the_reference_implementation(encoder, side):
    images = np.random.default_rng(side).integers(0, 256, (2, 3, side, side), dtype=np.uint8)
    transform = _reference_transform(encoder)
    expected = torch.stack([transform(Image.fromarray(image.transpose(1, 2, 0))) for image in images])
    assert torch.equal(encoder.pixels(images), expected)


def test_a_resize_without_antialiasing_would_be_seen():
    """The other ways of the field differ by more than rounding: torch's own bicubic, and TF1's bilinear."""
    images = np.random.default_rng(1).integers(0, 256, (1, 3, 256, 256), dtype=np.uint8)
    ours = DinoV2.pixels(images)
    mean, std = (torch.tensor(values)[:, None, None] for values in (DinoV2.MEAN, DinoV2.STD))
    for settings in ({"mode": "bicubic"}, {"mode": "bilinear"}):
        other = (F.interpolate(torch.from_numpy(images).float() / 255, (224, 224), **settings) - mean) / std
        assert (ours - other).abs().mean() > 0.1


# What they make of it

def _attention(x, weight, bias, out_weight, out_bias, heads):
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in F.linear(x, weight, bias).chunk(3, dim=-1))
    share = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    return F.linear((share @ v).transpose(1, 2).flatten(2), out_weight, out_bias)


def _cubic_row(at, size):
    """Weights (size,) of the cubic filter with a = -3/4 at a position between the samples, borders repeated."""
    row, first = np.zeros(size), math.floor(at)
    for place in range(first - 1, first + 3):
        x = abs(at - place)
        weight = (1.25 * x ** 3 - 2.25 * x ** 2 + 1) if x <= 1 else -0.75 * (x ** 3 - 5 * x ** 2 + 8 * x - 4)
        row[min(max(place, 0), size - 1)] += weight
    return row


def _dinov2_by_hand(path, images):
    state = load_file(path)
    x = F.conv2d(DinoV2.pixels(images), state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    rows = torch.tensor(np.stack([_cubic_row((at + 0.5) * 37 / 16.1 - 0.5, 37) for at in range(16)])).float()
    grid = torch.einsum("yh,xw,hwd->yxd", rows, rows, state["pos_embed"][0, 1:].reshape(37, 37, -1))
    x = x + torch.cat([state["pos_embed"][0, :1], grid.flatten(0, 1)])
    for at in range(2):
        of = {name.removeprefix(f"blocks.{at}."): value for name, value in state.items()}
        normed = F.layer_norm(x, (16,), of["norm1.weight"], of["norm1.bias"], 1e-6)
        x = x + of["ls1.gamma"] * _attention(normed, of["attn.qkv.weight"], of["attn.qkv.bias"],
                                             of["attn.proj.weight"], of["attn.proj.bias"], heads=2)
        normed = F.layer_norm(x, (16,), of["norm2.weight"], of["norm2.bias"], 1e-6)
        hidden = F.gelu(F.linear(normed, of["mlp.fc1.weight"], of["mlp.fc1.bias"]))
        x = x + of["ls2.gamma"] * F.linear(hidden, of["mlp.fc2.weight"], of["mlp.fc2.bias"])
    return F.layer_norm(x, (16,), state["norm.weight"], state["norm.bias"], 1e-6)[:, 0].numpy()


def _clip_by_hand(path, images):
    state = {name.removeprefix("visual."): value for name, value in load_file(path).items() if "visual." in name}
    x = F.conv2d(Clip.pixels(images), state["conv1.weight"], stride=14).flatten(2).transpose(1, 2)
    x = torch.cat([state["class_embedding"].expand(len(x), 1, -1), x], dim=1) + state["positional_embedding"]
    x = F.layer_norm(x, (64,), state["ln_pre.weight"], state["ln_pre.bias"], 1e-5)
    for at in range(2):
        of = {name.removeprefix(f"transformer.resblocks.{at}."): value for name, value in state.items()}
        normed = F.layer_norm(x, (64,), of["ln_1.weight"], of["ln_1.bias"], 1e-5)
        x = x + _attention(normed, of["attn.in_proj_weight"], of["attn.in_proj_bias"], of["attn.out_proj.weight"],
                           of["attn.out_proj.bias"], heads=1)
        normed = F.layer_norm(x, (64,), of["ln_2.weight"], of["ln_2.bias"], 1e-5)
        hidden = F.linear(normed, of["mlp.c_fc.weight"], of["mlp.c_fc.bias"])
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        x = x + F.linear(hidden, of["mlp.c_proj.weight"], of["mlp.c_proj.bias"])
    x = F.layer_norm(x[:, 0], (64,), state["ln_post.weight"], state["ln_post.bias"], 1e-5) @ state["proj"]
    return (x / x.norm(dim=1, keepdim=True)).numpy()


@pytest.mark.parametrize(("encoder", "file", "by_hand"), [(DinoV2, "dinov2_file", _dinov2_by_hand),
                                                          (Clip, "clip_file", _clip_by_hand)])
def test_features_are_those_of_the_definition(request, encoder, file, by_hand):
    path = request.getfixturevalue(file)
    found = encoder(path)(IMAGES)
    assert list(found) == list(encoder.layers) == [EMBEDDING]
    feature = found[EMBEDDING]
    assert feature.dtype == np.float32 and feature.std(axis=0).min() > 1e-3
    np.testing.assert_allclose(feature, by_hand(path, IMAGES), atol=2e-5)


def test_positions_are_those_of_the_released_code_and_not_timms(dinov2, dinov2_file):
    antialiased = timm.create_model(**DINOV2, pretrained=False)
    antialiased.load_state_dict(load_file(dinov2_file))
    antialiased.set_input_size((224, 224))
    other = antialiased.eval()(DinoV2.pixels(IMAGES)).detach().numpy()
    assert np.abs(other - dinov2(IMAGES)[EMBEDDING]).max() > 1e-3  # 50 times what the definition is held to


@pytest.mark.parametrize(("encoder", "file"), FILES)
def test_an_image_has_the_same_features_in_any_batch_and_order(request, encoder, file):
    network = encoder(request.getfixturevalue(file))
    whole, order = network(IMAGES)[EMBEDDING], [3, 0, 5]
    np.testing.assert_allclose(network(IMAGES[order])[EMBEDDING], whole[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(network(IMAGES[4:5])[EMBEDDING], whole[4:5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("images", [IMAGES.astype(np.float32), IMAGES[0], IMAGES[:, :1]])
def test_other_images_are_refused(dinov2, images):
    with pytest.raises(ValueError, match="expected uint8"):
        dinov2(images)


# Files

def test_the_released_checkpoint_of_dinov2_gives_the_same(dinov2, dinov2_file, tmp_path):
    torch.save(load_file(dinov2_file) | {"mask_token": torch.zeros(1, 16)}, tmp_path / "dinov2_vitl14_pretrain.pth")
    other = DinoV2(tmp_path / "dinov2_vitl14_pretrain.pth")
    assert np.array_equal(other(IMAGES)[EMBEDDING], dinov2(IMAGES)[EMBEDDING])
    assert other.name != dinov2.name and other.name.startswith("dgm-eval-dinov2-vit-l-14-")
    assert dinov2.sha256 == sha256_of(dinov2_file) and dinov2.sha256[:16] in dinov2.name and dinov2.device == "cpu"


def test_the_text_tower_is_left_out_and_that_is_said(clip_file, tmp_path, caplog):
    state = load_file(clip_file)
    visual = {name: value for name, value in state.items() if name.startswith("visual.")}
    save_file(visual, tmp_path / "visual.safetensors")
    with caplog.at_level(logging.WARNING):
        alone = Clip(tmp_path / "visual.safetensors")
        assert not caplog.records
        whole = Clip(clip_file)
    (record,) = caplog.records
    assert str(clip_file) in record.message and f"text tower ({len(state) - len(visual)} tensors)" in record.message
    assert np.array_equal(alone(IMAGES)[EMBEDDING], whole(IMAGES)[EMBEDDING])


def test_half_precision_is_read_as_float32(clip_file, tmp_path):
    save_file({name: value.half() for name, value in load_file(clip_file).items()}, tmp_path / "half.safetensors")
    found, whole = Clip(tmp_path / "half.safetensors")(IMAGES)[EMBEDDING], Clip(clip_file)(IMAGES)[EMBEDDING]
    assert found.dtype == np.float32 and 0 < np.abs(found - whole).max() < 1e-2


def _change(path, target, **tensors):
    state = load_file(path) | tensors
    save_file({name: value for name, value in state.items() if value is not None}, target)
    return target


@pytest.mark.parametrize(("encoder", "file", "other", "expected"), [
    (DinoV2, "dinov2_file", "clip_file", "model.safetensors"),
    (Clip, "clip_file", "dinov2_file", "open_clip_model.safetensors")])
def test_another_file_is_refused_in_one_line(request, tmp_path, encoder, file, other, expected):
    own, foreign = request.getfixturevalue(file), request.getfixturevalue(other)
    name = {DinoV2: "blocks.1.mlp.fc1.weight", Clip: "visual.transformer.resblocks.1.mlp.c_fc.weight"}[encoder]
    (tmp_path / "page.safetensors").write_text("<!doctype html><title>Log in</title>")
    (tmp_path / "cut.safetensors").write_bytes(own.read_bytes()[:-100])
    torch.save({"model": {"x": torch.zeros(2)}}, tmp_path / "nested.pth")
    short, last = name.removeprefix("visual."), {name: None}
    cases = [
        (tmp_path / "none.safetensors", None, "no such file"), (tmp_path, None, "a folder"),
        (tmp_path / "page.safetensors", None, "an HTML page"), (tmp_path / "cut.safetensors", None, "not a readable"),
        (tmp_path / "nested.pth", None, "nested.pth"), (own, "0" * 64, "SHA-256 is"), (foreign, None, "missing"),
        (_change(own, tmp_path / "lacks.safetensors", **last), None, f"1 missing: {short}"),
        (_change(own, tmp_path / "more.safetensors", head=torch.zeros(2)), None, "1 unexpected: head"),
        (_change(own, tmp_path / "wide.safetensors", **{name: torch.zeros(3, 5)}), None, f"{short} (3, 5)"),
        (_change(own, tmp_path / "nan.safetensors", **{name: load_file(own)[name] * torch.nan}), None, "not finite")]
    for path, digest, said in cases:
        with pytest.raises(ExtractorError) as refused:
            encoder(path, sha256=digest)
        text = str(refused.value)
        assert said in text and path.name in text and f"expected {expected}" in text.replace("expected is", "expected")
        assert len(text.splitlines()) == 1
    with pytest.raises(ExtractorError, match="is no SHA-256"):
        encoder(own, sha256="abc")
    assert encoder(own, sha256=sha256_of(own)).sha256 == sha256_of(own)


@pytest.mark.parametrize(("protocol", "file", "package"), [("fd-dinov2", "dinov2_file", "timm"),
                                                           ("cmmd", "clip_file", "open_clip")])
def test_a_missing_package_is_said_in_one_line_before_any_work(request, tmp_path, monkeypatch, protocol, file, package):
    monkeypatch.setitem(sys.modules, package, None)
    samples = _images(tmp_path / "a.npz", 1100)
    with pytest.raises(ExtractorError, match=rf"{package}: pip install 'varient\[encoders\]'$"):
        _score(protocol, samples, samples, tmp_path, request.getfixturevalue(file))
    assert not list(tmp_path.glob("*features*")) and not (tmp_path / "out.json").exists()


def test_the_true_networks_have_the_released_names_and_shapes(monkeypatch):
    """On the meta device."""
    monkeypatch.undo()
    state = without_weights(lambda: timm.create_model(**encoders._DINOV2_MODEL, pretrained=False)).state_dict()
    assert len(state) == 4 + 24 * 14 + 2
    # Size of the released checkpoint, which has a mask_token more, less what it stores beside the numbers.
    assert 0 < 1_217_586_395 - 4 * (sum(value.numel() for value in state.values()) + 1024) < 2 ** 17
    assert {name: tuple(state[name].shape) for name in (
        "cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.23.attn.qkv.weight", "blocks.23.ls2.gamma",
        "blocks.23.mlp.fc1.weight", "norm.bias")} == {
        "cls_token": (1, 1, 1024), "pos_embed": (1, 1 + 37 ** 2, 1024), "patch_embed.proj.weight": (1024, 3, 14, 14),
        "blocks.23.attn.qkv.weight": (3072, 1024), "blocks.23.ls2.gamma": (1024,),
        "blocks.23.mlp.fc1.weight": (4096, 1024), "norm.bias": (FD_DINOV2.num_features,)}
    whole = without_weights(lambda: open_clip.CLIP(**open_clip.get_model_config(encoders._CLIP_MODEL)))
    state = whole.state_dict()
    visual = {name: value for name, value in state.items() if name.startswith("visual.")}
    assert len(visual) == 3 + 1 + 2 + 24 * 12 + 2 and len(state) == len(visual) + 12 * 12 + 6
    assert {name: tuple(visual[f"visual.{name}"].shape) for name in (
        "class_embedding", "positional_embedding", "conv1.weight", "transformer.resblocks.23.attn.in_proj_weight",
        "transformer.resblocks.23.mlp.c_fc.weight", "proj")} == {
        "class_embedding": (1024,), "positional_embedding": (1 + 24 ** 2, 1024), "conv1.weight": (1024, 3, 14, 14),
        "transformer.resblocks.23.attn.in_proj_weight": (3072, 1024),
        "transformer.resblocks.23.mlp.c_fc.weight": (4096, 1024), "proj": (1024, CMMD.num_features)}
    assert type(whole.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"


# Scores of files

def _images(path, count, side=8, seed=0, **statistics):
    pixels = np.random.default_rng(seed).integers(seed * 20, 256, (count, side, side, 3), dtype=np.uint8)
    np.savez(path, arr_0=pixels, **statistics)
    return path


def _score(protocol, samples, reference, folder, weights, extrapolate=False):
    return score_files(protocol, [samples], [reference], folder / "out.json", weights=weights, sha256=None,
                       device="cpu", extrapolate=extrapolate)


@pytest.fixture
def few_features(monkeypatch):
    """FD-DINOv2 of the narrow network."""
    monkeypatch.setitem(protocols.PROTOCOLS, "fd-dinov2", replace(FD_DINOV2, num_features=16))


def _pixels(path):
    return np.load(path)["arr_0"].transpose(0, 3, 1, 2)


def test_fd_dinov2_is_the_frechet_distance_of_the_features(few_features, dinov2, dinov2_file, tmp_path):
    samples, reference = _images(tmp_path / "a.npz", 60, seed=1), _images(tmp_path / "b.npz", 40, side=16)
    record = _score("fd-dinov2", samples, reference, tmp_path, dinov2_file, extrapolate=True)
    a, b = (dinov2(_pixels(path))[EMBEDDING].astype(np.float64) for path in (samples, reference))
    root = sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(
        np.cov(a, rowvar=False) + np.cov(b, rowvar=False) - 2 * root)
    assert record.fid == pytest.approx(expected, rel=1e-5) and record.fid > 0 and record.fid_sd > 0
    assert record.fid_infinity < record.fid and (record.num_images, record.num_reference) == (60, 40)
    assert record.extractor == dinov2.name and record.provenance.weights_sha256 == {"extractor": dinov2.sha256}
    for absent in ("cmmd", "inception_score", "kid", "precision", "sfid", "density", "mind"):
        assert getattr(record, absent) is None
    assert read_record(tmp_path / "out.json", ScoreRecord) == record and record.summary().startswith("FID ")


def _cmmd(a, b):
    def mean(x, y):
        return np.exp(-((x[:, None] - y[None]) ** 2).sum(-1) / 200).mean()

    return 1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b))


def test_cmmd_is_the_discrepancy_of_the_embeddings(clip, clip_file, tmp_path):
    samples, reference = _images(tmp_path / "a.npz", 9, seed=3), _images(tmp_path / "b.npz", 2)
    record = _score("cmmd", samples, reference, tmp_path, clip_file, extrapolate=True)
    a, b = (clip(_pixels(path))[EMBEDDING].astype(np.float64) for path in (samples, reference))
    assert record.cmmd == pytest.approx(_cmmd(a, b), rel=1e-4) and record.cmmd > 1e-3 and record.cmmd_sd > 0
    assert record.fid is record.fid_sd is record.fid_bias is record.fid_infinity is None
    assert read_record(tmp_path / "out.json", ScoreRecord) == record
    assert record.summary().startswith("CMMD ") and "FID" not in record.summary()
    assert _score("cmmd", samples, samples, tmp_path, clip_file).cmmd == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("protocol", "file"), [("fd-dinov2", "dinov2_file"), ("cmmd", "clip_file")])
def test_kept_features_are_read_again(request, few_features, tmp_path, monkeypatch, protocol, file):
    samples, reference = _images(tmp_path / "a.npz", 20), _images(tmp_path / "b.npz", 20, seed=1)
    path = request.getfixturevalue(file)
    first = _score(protocol, samples, reference, tmp_path, path)
    monkeypatch.setattr(encoders._Encoder, "__call__", lambda *_: pytest.fail("features were computed again"))
    again = _score(protocol, samples, reference, tmp_path, path)
    assert (again.fid, again.cmmd) == (first.fid, first.cmmd)


@pytest.mark.parametrize(("protocol", "file"), [("fd-dinov2", "dinov2_file"), ("cmmd", "clip_file")])
def test_pairs_are_compared_by_the_same_features(request, few_features, tmp_path, protocol, file):
    """FID* where the protocol has a FID."""
    sets = [open_samples([_images(tmp_path / f"{seed}.npz", 20, side=16, seed=seed)]) for seed in (1, 2)]
    record = compare_files(*sets, tmp_path / "out.json", protocol_name=protocol, weights=request.getfixturevalue(file))
    (found,) = record.systems
    assert found.feature_distance > 0 and (found.fid is None) == (protocol == "cmmd")
    assert any("no FID*: protocol cmmd" in text for text in record.warnings) == (protocol == "cmmd")


# What is asked for before any work

@pytest.mark.parametrize(("protocol", "samples", "reference", "said"), [
    ("fd-dinov2", 1024, 1025, "FID on 1024 features needs at least 1025 images, the samples have 1024"),
    ("fd-dinov2", 1025, 1024, "FID on 1024 features needs at least 1025 images, the reference have 1024"),
    ("cmmd", 3, 2, "a standard deviation needs at least 4 images, the samples have 3"),
    ("cmmd", 4, 1, "CMMD needs at least 2 images, the reference have 1")])
def test_too_few_images_are_seen_from_counts(tmp_path, dinov2_file, protocol, samples, reference, said):
    sets = [_images(tmp_path / f"{name}.npz", count) for name, count in (("a", samples), ("b", reference))]
    with pytest.raises(ProtocolError, match=said):
        _score(protocol, *sets, tmp_path, dinov2_file)


@pytest.mark.parametrize(("protocol", "network"), [(FD_DINOV2, "DINOv2"), (CMMD, "CLIP")])
def test_a_reference_of_statistics_alone_and_missing_weights_are_said(tmp_path, protocol, network):
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(1024), sigma=np.eye(1024))
    samples = open_samples([_images(tmp_path / "a.npz", 1100)])
    with pytest.raises(ProtocolError) as refused:
        check(protocol, samples, open_reference([tmp_path / "statistics.npz"]))
    for part in (f"no file of {network} weights was given (--weights)", "has statistics but no images"):
        assert part in str(refused.value)


def test_an_adm_batch_is_a_reference_of_its_images_and_that_is_named(tmp_path, dinov2_file):
    batch = _images(tmp_path / "adm.npz", 1100, side=16, mu=np.zeros(2048), sigma=np.eye(2048))
    samples = open_samples([_images(tmp_path / "a.npz", 1100)])
    told = check(FD_DINOV2, samples, open_reference([batch]), dinov2_file)
    for part in ("1100 images, published numbers are of 50000; FID depends on how many",
                 "adm.npz: 1100 images, published numbers are against 50000", "DINOv2 resizes both"):
        assert any(part in text for text in told), part
    assert any("CLIP resizes both" in text for text in check(CMMD, samples, open_reference([batch]), dinov2_file))
