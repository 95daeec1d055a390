import torch
from conftest import assert_close, golden
from torch import nn

from varient.config import Optimizer
from varient.training.loop import fit
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
    assert_close(x_BLv, case["out/x_BLCv_wo_first_l"])
    logits = model(case["in/label_B"], x_BLv)
    assert_close(logits, case["out/logits"])
    assert_close(token_loss(logits, idx_BL), case["out/loss"][0])
    assert_close(token_loss(logits, idx_BL, label_smoothing=0.1), case["out/loss_label_smooth_0.1"][0])


def test_gradients_match_the_released_trainer():
    case, model, idx_BL, x_BLv = _case()
    token_loss(model(case["in/label_B"], x_BLv), idx_BL).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    norms = torch.stack([gradients[name].norm() for name in case.config["grad_norm_names"]])
    assert_close(norms, case["out/grad_norms"])
    assert_close(nn.utils.get_total_norm([p.grad for p in model.parameters()]), case["out/total_grad_norm"][0])
    for key in case.arrays:
        if key.startswith("out/grad/"):
            assert_close(gradients[key.removeprefix("out/grad/")], case[key])


def test_one_optimizer_step_matches_the_released_trainer(tmp_path):
    """Clipping, AdamW and which parameters decay."""
    case, model, idx_BL, x_BLv = _case()
    theirs = case.config["optimizer_step"]
    settings = Optimizer(learning_rate=theirs["lr"], batch_size=4, weight_decay=theirs["weight_decay"],
                         betas=theirs["betas"], clip_norm=theirs["grad_clip"])
    fit(model, lambda step: token_loss(model(case["in/label_B"], x_BLv), idx_BL), steps=1, settings=settings, seed=0,
        work_dir=tmp_path, identity="", title="one step")
    ours = dict(model.named_parameters())
    for key in case.arrays:
        if key.startswith("out/step/"):
            assert_close(ours[key.removeprefix("out/step/")], case[key])


def test_label_drop_hits_its_share():
    torch.manual_seed(0)
    dropped = drop_labels(torch.zeros(20_000, dtype=torch.long), 0.1, 10)
    assert set(dropped.tolist()) == {0, 10}
    assert abs((dropped == 10).float().mean() - 0.1) < 0.01
