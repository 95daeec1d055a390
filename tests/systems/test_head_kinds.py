"""Kinds of heads: what is calibrated, on which weights, and what follows for a system."""

import pytest
import torch
from calibration_fixtures import write_calibrated
from conftest import TINY_PYRAMID, tiny_tokenizer, tiny_transformer

from varient.models.build import build_transformer
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.systems.calibration import Calibration
from varient.systems.head_kinds import column_variance
from varient.systems.registry import networks_of, resolve_system


def test_stripes_have_no_variance_and_a_diagonal_has_most():
    """Equal queries give a map of vertical stripes; a head whose queries meet their own keys has a diagonal."""
    model, quantizer = tiny_transformer(1), tiny_tokenizer().quantize
    attention = model.blocks[0].attn
    real = attention.queries_keys_values

    def planted(x_BlC, constants):
        q_BHlc, k_BHlc, v_BHlc = (tensor.clone() for tensor in real(x_BlC, constants))
        q_BHlc[:, 0] = q_BHlc[:, 0, :1]
        tokens, channels = k_BHlc.shape[2:]
        k_BHlc[:, 1:] = torch.eye(channels)[torch.arange(tokens) % channels]
        q_BHlc[:, 1:] = 50 * k_BHlc[:, 1:]
        return q_BHlc, k_BHlc, v_BHlc

    attention.queries_keys_values = planted
    idx_BL = torch.zeros(2, TINY_PYRAMID.length, dtype=torch.int64)
    found = column_variance(model, quantizer, torch.tensor([0, 1]), idx_BL)
    assert found.shape == (2, 1, model.spec.num_heads)
    assert found[:, 0, 0].abs().max() < 1e-10 and (found[:, 0, 1:] > 0.01).all()


def test_the_variance_by_hand():
    """Of the maps that the network itself computes for its last scale."""
    model, quantizer = tiny_transformer(3), tiny_tokenizer().quantize
    label_B, idx_BL = torch.tensor([0, 3]), torch.arange(2 * TINY_PYRAMID.length).view(2, -1) % 32
    maps, real = [], type(model.blocks[0].attn).softmax_attention
    last = TINY_PYRAMID.tokens(TINY_PYRAMID.num_scales)

    def watched(self, q, k, v, visible=None):
        if q.shape[2] >= last and k.shape[2] == TINY_PYRAMID.length:
            maps.append((self.softmax_scale * q[:, :, -last:] @ k.transpose(2, 3)).softmax(-1))
        return real(self, q, k, v, visible)

    with pytest.MonkeyPatch.context() as patched, torch.no_grad():
        patched.setattr(type(model.blocks[0].attn), "softmax_attention", watched)
        model(label_B, quantizer.teacher_input(idx_BL))
    wanted = torch.stack([((found - found.mean(2, keepdim=True)) ** 2).mean(2).sum(-1) for found in maps], dim=1)
    torch.testing.assert_close(column_variance(model, quantizer, label_B, idx_BL), wanted)


@pytest.fixture
def run_dir(smoke, tmp_path):
    return write_calibrated(smoke, tmp_path, "head-kinds")


def test_the_half_of_each_layer_with_the_smaller_variance_is_contextual(smoke, run_dir):
    found = Calibration("variance_DH", torch.zeros(6, 2))
    description = load_weights(run_dir / "head-kinds.safetensors", found)
    assert (description["images"], description["seed"], description["network"]) == (50, 0, "base")
    system = resolve_system("free-d4-heads30", smoke)
    assert system.weights == ("tokenizer", "base", "head-kinds")
    budgets = system.load(run_dir, "fp32").plan.kv.budgets
    assert budgets.contextual == tuple((head,) for head in found.variance_DH.argmin(dim=1).tolist())
    assert system.load(None, "fp32").plan.kv.budgets.contextual == ()
    assert system.protocol()["kv"] == {"window": None, "bits": None, "budgets": {"percent": 30}}
    again = run_dir / "again.safetensors"
    networks_of(smoke)["head-kinds"].make(run_dir, again)
    assert again.read_bytes() == (run_dir / "head-kinds.safetensors").read_bytes()


def test_a_calibration_of_other_weights_or_heads_is_refused(smoke, run_dir):
    system, path = resolve_system("var-d6-heads50", smoke), run_dir / "head-kinds.safetensors"
    save_weights(run_dir / "base.safetensors", build_transformer(smoke), {})
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{path}[^\n]*base\.safetensors[^\n]*$"):
        system.load(run_dir, "fp32")
    save_weights(path, Calibration("variance_DH", torch.zeros(6, 3)), {})
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{path}[^\n]*variance_DH[^\n]*$"):
        system.load(run_dir, "fp32")


@pytest.mark.parametrize(("name", "named"), [
    ("variant-d4-heads30", "heads<percent>"), ("var-d6-kv8-heads30", "alone"), ("var-d6-w1-heads30", "alone"),
    ("var-d6-heads100", "100 %"), ("var-d6-b1-heads30", "combined")])
def test_what_cannot_be_is_refused_in_one_line(smoke, name, named):
    with pytest.raises(ValueError, match=f"^[^\n]*{name}[^\n]*{named}[^\n]*$"):
        resolve_system(name, smoke)
