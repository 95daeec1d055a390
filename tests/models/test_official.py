import pytest
import torch
from conftest import assert_close, golden

from varient.files import sha256_of
from varient.models.build import build_tokenizer, build_transformer
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.models.official import (
    PUBLISHED_SHA256,
    import_tokenizer,
    import_transformer,
    load_var,
    load_vqvae,
    read_state_dict,
)
from varient.models.transformer import initialize


def test_a_released_file_is_read_and_mapped(tmp_path):
    case = golden("var_tf_l2")
    torch.save(case.state_dict("sd/"), tmp_path / "var.pth")
    model = case.transformer("sd/")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    load_var(model, read_state_dict(tmp_path / "var.pth"), "var.pth")
    assert_close(model(case["in/label_B"], case["in/x_BLCv_wo_first_l"]), case["out/logits"])


@pytest.mark.parametrize(("change", "message"), [
    (lambda sd: sd.pop("head.bias"), "1 missing: head.bias"),
    (lambda sd: sd.update(extra=torch.zeros(1)), "1 unexpected: extra"),
    (lambda sd: sd.update({"head.bias": torch.zeros(3)}), r"head.bias \(3,\), expected \(64,\)"),
    (lambda sd: sd["blocks.0.attn.zero_k_bias"].add_(1), "zero_k_bias is not zero"),
    (lambda sd: sd["lvl_1L"].add_(1), "for other scales"),
])
def test_a_wrong_file_says_what_is_wrong(change, message):
    tensors = golden("var_tf_l2").state_dict("sd/")
    change(tensors)
    with pytest.raises(CheckpointError, match=message):
        load_var(golden("var_tf_l2").transformer("sd/"), tensors, "file.pth")


def test_a_swapped_file_is_recognised():
    vqvae = golden("vqvae_k10_qsr4")
    with pytest.raises(CheckpointError, match="looks like a VAR VQVAE"):
        load_var(golden("var_tf_l2").transformer("sd/"), vqvae.state_dict("sd/"), "vae.pth")
    with pytest.raises(CheckpointError, match="looks like a VAR transformer"):
        load_vqvae(vqvae.tokenizer("sd/"), golden("var_tf_l2").state_dict("sd/"), "var.pth")


@pytest.mark.parametrize(("content", "message"), [
    ({"trainer": {"var_wo_ddp": {}}}, "VAR training checkpoint"),
    ({"model": {}, "ema": {}, "opt": {}}, "DiT training checkpoint"),
    ({"model": {}}, "an unknown layout without tensors"),
    ([1, 2], "found list"),
])
def test_nested_files_are_named(tmp_path, content, message):
    torch.save(content, tmp_path / "nested.pth")
    with pytest.raises(CheckpointError, match=message):
        read_state_dict(tmp_path / "nested.pth")


class _Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_file_with_code_in_it_is_refused_without_running_it(tmp_path, capsys):
    torch.save({"x": _Payload()}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match="evil.pth: not a readable torch checkpoint"):
        read_state_dict(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out


def test_missing_and_truncated_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_state_dict(tmp_path / "none.pth")
    torch.save({"x": torch.zeros(1000)}, tmp_path / "cut.pth")
    data = (tmp_path / "cut.pth").read_bytes()
    for kept in (0, 10, len(data) // 2, len(data) * 9 // 10, len(data) - 1):
        (tmp_path / "cut.pth").write_bytes(data[:kept])
        with pytest.raises(CheckpointError, match=r"cut.pth: not a readable"):
            read_state_dict(tmp_path / "cut.pth")


def test_own_weights_round_trip_with_their_description(tmp_path):
    model, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    save_weights(tmp_path / "w.safetensors", model, {"kind": "test", "n": 1})
    assert load_weights(tmp_path / "w.safetensors", other) == {"kind": "test", "n": 1}
    assert torch.equal(model.weight, other.weight)


def test_own_weights_of_another_shape_or_damaged_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, torch.nn.Linear(3, 2), {})
    with pytest.raises(CheckpointError, match=r"does not fit Linear: .*weight \(2, 3\), expected \(2, 4\)"):
        load_weights(path, torch.nn.Linear(4, 2))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_weights(path, torch.nn.Linear(3, 2))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_weights(tmp_path / "none", torch.nn.Linear(3, 2))


@pytest.fixture
def training(tmp_path, smoke):
    """A file as VAR's trainer leaves it, of the smoke experiment's networks."""
    torch.manual_seed(0)
    transformer, tokenizer = build_transformer(smoke), build_tokenizer(smoke)
    initialize(transformer, gamma=1.0)
    path = tmp_path / "ar-ckpt-last.pth"
    torch.save({"epoch": 3, "trainer": {
        "config": {}, "var_opt": {}, "vae_local": tokenizer.state_dict(),
        "var_wo_ddp": {f"_orig_mod.{name}": value for name, value in transformer.state_dict().items()}}}, path)
    return path, transformer, tokenizer


def test_an_import_says_what_it_took_and_from_where(smoke, training, caplog):
    path, transformer, tokenizer = training
    for importing, network, place in ((import_transformer, transformer, "trainer.var_wo_ddp"),
                                      (import_tokenizer, tokenizer, "trainer.vae_local")):
        caplog.clear()
        model, described = importing(smoke, path)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in network.state_dict().items())
        assert (described["taken"], described["imported_sha256"]) == (place, sha256_of(path))
        assert "trainer.config" in described["left_out"] and "epoch" in described["left_out"]
        assert described["released"] == "unknown" and f"'{place}' is used" in caplog.text


def test_a_file_under_the_name_of_a_published_one_is_compared_with_it(smoke, training, tmp_path, monkeypatch, caplog):
    named = training[0].rename(tmp_path / "vae_ch160v4096z32.pth")
    caplog.clear()
    assert import_tokenizer(smoke, named)[1]["released"] == "unknown"
    assert f"{named} has the SHA-256 {sha256_of(named)}" in caplog.text
    monkeypatch.setitem(PUBLISHED_SHA256, named.name, sha256_of(named))
    caplog.clear()
    assert import_tokenizer(smoke, named)[1]["released"] == "known" and "SHA-256" not in caplog.text
    other = named.rename(tmp_path / "renamed.pth")
    assert import_tokenizer(smoke, other)[1]["released"] == "known"


@pytest.mark.parametrize(("name", "change", "kind"), [
    ("head.weight", lambda tensor: tensor * torch.nan, "not finite"),
    ("class_emb.weight", lambda tensor: tensor - torch.inf, "not finite"),
    ("head.bias", lambda tensor: tensor.double() + 1e300, "not finite"),
    ("head.bias", torch.Tensor.long, "integer"), ("head.bias", torch.Tensor.bool, "boolean"),
])
def test_a_released_network_that_cannot_work_is_refused(name, change, kind):
    tensors = golden("var_tf_l2").state_dict("sd/")
    tensors[name] = change(tensors[name])
    with pytest.raises(CheckpointError, match=f"var.pth .*{kind}.*{name}|var.pth .*{name}.*{kind}"):
        load_var(golden("var_tf_l2").transformer("sd/"), tensors, "var.pth")


def test_the_masks_of_a_released_file_may_be_infinite():
    tensors = golden("var_tf_l2").state_dict("sd/")
    assert tensors["attn_bias_for_masking"].isinf().any()
    load_var(golden("var_tf_l2").transformer("sd/"), tensors, "var.pth")
