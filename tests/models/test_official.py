import pytest
import torch
from conftest import assert_close, golden

from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.models.official import load_var, load_vqvae, read_state_dict


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
    ({"model": {}}, "LlamaGen checkpoint"),
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
