import pytest
import torch
from conftest import ROUNDING, assert_close, golden
from torch import nn

from varient.config import Optimizer
from varient.training.loop import _decay_groups, fit
from varient.training.tokens import drop_labels, token_loss


def _case():
    case = golden("var_train_loss")
    model, tokenizer = case.transformer(), case.tokenizer()
    with torch.no_grad():
        idx_BL = tokenizer.encode(case["in/img"])
        x_BLv = tokenizer.quantize.teacher_input(idx_BL)
    return case, model, idx_BL, x_BLv


def test_tokens_inputs_logits_and_loss_match_the_released_trainer():
    case, model, idx_BL, x_BLv = _case()
    assert torch.equal(idx_BL, case["out/gt_idx"])
    assert_close(x_BLv, case["out/x_BLCv_wo_first_l"], ROUNDING)
    logits = model(case["in/label_B"], x_BLv)
    assert_close(logits, case["out/logits"])
    assert_close(token_loss(logits, idx_BL), case["out/loss"][0], ROUNDING)
    assert_close(token_loss(logits, idx_BL, label_smoothing=0.1), case["out/loss_label_smooth_0.1"][0], 6e-6)


def test_gradients_match_the_released_trainer():
    case, model, idx_BL, x_BLv = _case()
    token_loss(model(case["in/label_B"], x_BLv), idx_BL).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    norms = torch.stack([gradients[name].norm() for name in case.config["grad_norm_names"]])
    assert_close(norms, case["out/grad_norms"], ROUNDING)
    assert_close(nn.utils.get_total_norm([p.grad for p in model.parameters()]), case["out/total_grad_norm"][0], 5e-6)
    for key in case.arrays:
        if key.startswith("out/grad/"):
            assert_close(gradients[key.removeprefix("out/grad/")], case[key], ROUNDING)


def _check_step(folder, monkeypatch, **wrong):
    """One step of our loop against the released trainer's: the parameters after it, and the moments that it leaves.

    The first step of Adam hardly depends on the length of a gradient or on the betas; the moments do.
    """
    optimizers = []

    class Watched(torch.optim.AdamW):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            optimizers.append(self)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    case, model, idx_BL, x_BLv = _case()
    theirs = case.config["optimizer_step"]
    settings = Optimizer(**{"learning_rate": theirs["lr"], "batch_size": 4, "weight_decay": theirs["weight_decay"],
                            "betas": theirs["betas"], "clip_norm": theirs["grad_clip"]} | wrong)
    fit(model, lambda step: token_loss(model(case["in/label_B"], x_BLv), idx_BL), steps=1, settings=settings, seed=0,
        work_dir=folder, identity="", title="one step")
    ours, state = dict(model.named_parameters()), optimizers[0].state
    clipping = theirs["grad_clip"] / case["out/total_grad_norm"][0]
    assert clipping < 0.8
    for key in case.arrays:
        if key.startswith("out/step/"):
            assert_close(ours[key.removeprefix("out/step/")], case[key], 5e-7)  # 1.5e-8 measured
        elif key.startswith("out/grad/"):
            gradient, moments = case[key] * clipping, state[ours[key.removeprefix("out/grad/")]]
            for name, beta, moment in zip(("exp_avg", "exp_avg_sq"), theirs["betas"], (gradient, gradient ** 2),
                                          strict=True):
                expected = (1 - beta) * moment
                assert_close(moments[name], expected, 1e-4 * expected.abs().max().item())


def test_one_optimizer_step_matches_the_released_trainer(tmp_path, monkeypatch):
    """Clipping, AdamW and which parameters decay."""
    _check_step(tmp_path, monkeypatch)


@pytest.mark.parametrize("wrong", [{"weight_decay": 0.0}, {"weight_decay": 0.04}, {"clip_norm": 1e9},
                                   {"clip_norm": 1.9}, {"betas": (0.9, 0.999)}, {"betas": (0.95, 0.95)},
                                   {"learning_rate": 1.01e-3}])
def test_a_step_with_other_settings_would_be_seen(tmp_path, monkeypatch, wrong):
    with pytest.raises(AssertionError, match="not close"):
        _check_step(tmp_path, monkeypatch, **wrong)


def test_parameters_decay_that_decay_in_the_released_trainer():
    case, model, *_ = _case()
    assert _decaying(model) == set(case.config["weight_decay"])
    assert set(dict(model.named_parameters())) - _decaying(model) == set(case.config["no_weight_decay"])


def test_shared_adaln_parameters_do_not_decay():
    """The released trainer names `ada_gss` beside those of the recorded case, which does not have it."""
    plain, shared = _decaying(golden("var_tf_l2").transformer("sd/")), golden("var_tf_l2_saln").transformer("sd/")
    own = {name for name in plain if "blocks" in name and "ada_lin" in name}
    assert _decaying(shared) == plain - own | {"shared_ada_lin.1.weight"}
    assert any("ada_gss" in name for name, _ in shared.named_parameters())


def _decaying(model):
    decayed, spared = _decay_groups(model, 0.05)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    return {names[id(parameter)] for parameter in decayed["params"]}


def test_label_drop_hits_its_share():
    torch.manual_seed(0)
    dropped = drop_labels(torch.zeros(20_000, dtype=torch.long), 0.1, 10)
    assert set(dropped.tolist()) == {0, 10}
    assert abs((dropped == 10).float().mean() - 0.1) < 0.01
