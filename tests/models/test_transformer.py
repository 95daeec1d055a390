import pytest
import torch
from conftest import TINY_PYRAMID, VAR_PARAMETERS, assert_close, golden, tiny_tokenizer, tiny_transformer
from torch import nn

from varient.config import TransformerSpec
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.pyramid import VAR_256


@pytest.mark.parametrize("name", ["var_tf_l2", "var_tf_l2_saln", "var_tf_nol2"])
def test_teacher_forced_logits_match_the_released_code(name):
    case = golden(name)
    model = case.transformer("sd/")
    assert_close(model(case["in/label_B"], case["in/x_BLCv_wo_first_l"]), case["out/logits"])


def test_the_epsilon_of_every_norm_is_the_released_one():
    """That of the norm before the head costs no more than rounding in the recorded logits; in faint input it shows."""
    model = golden("var_tf_l2").transformer("sd/")
    faint_BlC = 1e-3 * torch.randn(2, 3, model.spec.embed_dim, generator=torch.Generator().manual_seed(0))
    class_BC = model.condition(torch.tensor([0, 1]))
    scale_B1C, shift_B1C = model.head_nm.ada_lin(class_BC).unsqueeze(1).chunk(2, dim=2)
    variance_Bl1 = faint_BlC.var(-1, correction=0, keepdim=True)
    normed_BlC = (faint_BlC - faint_BlC.mean(-1, keepdim=True)) / (variance_Bl1 + 1e-6).sqrt()
    expected = model.head(normed_BlC * (1 + scale_B1C) + shift_B1C).detach()
    assert_close(model.logits(faint_BlC, class_BC), expected)
    assert {block.norm_eps for block in model.blocks} == {1e-6}


@pytest.mark.parametrize("setting", ["d2_N2", "d3_N2", "d4_N2", "d2_N3", "d3_N3", "d4_N3"])
def test_depth_switching_matches_the_released_blocks_switched_by_scale(setting):
    case = golden("variant_depth_switch")
    model, quantizer = case.transformer(), case.tokenizer().quantize
    depth, bridge = int(setting[1]), int(setting[4])
    plan = DepthPlan.bridge(model.spec.depth, depth, bridge, model.pyramid.num_scales)
    assert plan.layers(model.pyramid.num_scales) == tuple(case[f"{setting}/layers"].tolist())
    x_BLv = quantizer.teacher_input(case[f"{setting}/idx"])
    assert_close(model(case["in/label_B"], x_BLv, plan), case[f"{setting}/tf_logits_cond"])
    if f"{setting}/tf_logits_null" in case.arrays:
        nobody = torch.full_like(case["in/label_B"], model.num_classes)
        assert_close(model(nobody, x_BLv, plan), case[f"{setting}/tf_logits_null"])


@pytest.mark.parametrize("depth", [16, 20, 24, 30])
def test_released_sizes_have_the_released_number_of_parameters(depth):
    with torch.device("meta"):
        model = VAR(TransformerSpec.released(depth), VAR_256, num_classes=1000, vocab_size=4096, z_channels=32)
    assert sum(p.numel() for p in model.parameters()) == VAR_PARAMETERS[depth]


def _inputs(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    quantizer = tiny_tokenizer().quantize
    torch.manual_seed(5)
    idx_BL = torch.randint(32, (batch, TINY_PYRAMID.length))
    return torch.arange(batch), quantizer.teacher_input(idx_BL)


def test_a_full_plan_is_plain_var():
    model, (label_B, x_BLv) = tiny_transformer(), _inputs()
    plain = model(label_B, x_BLv)
    assert torch.equal(model(label_B, x_BLv, DepthPlan.full(6, 5)), plain)
    assert torch.equal(model(label_B, x_BLv, DepthPlan.bridge(6, 2, 5, 5)), plain)


def test_a_skip_all_plan_is_the_extracted_small_network():
    model, (label_B, x_BLv) = tiny_transformer(), _inputs()
    plan = DepthPlan.bridge(6, 3, 0, 5)
    small = tiny_transformer(depth=3)
    layers = plan.layers(1)
    small.blocks = nn.ModuleList(model.blocks[layer] for layer in layers)
    for own, block in enumerate(small.blocks):
        block.layer = own
    for name in ("pos_start", "pos_1LC", "word_embed", "class_emb", "lvl_embed", "head_nm", "head"):
        setattr(small, name, getattr(model, name))
    assert_close(model(label_B, x_BLv, plan), small(label_B, x_BLv), 1e-6)


def test_scales_see_only_themselves_and_earlier_ones():
    model, (label_B, x_BLv) = tiny_transformer(), _inputs()
    before = model(label_B, x_BLv)
    changed = x_BLv.clone()
    changed[:, TINY_PYRAMID.begin(4) - 1:] += 1  # inputs of scales 4 and 5
    after = model(label_B, changed)
    untouched = TINY_PYRAMID.begin(4)
    assert torch.equal(after[:, :untouched], before[:, :untouched])
    assert (after[:, untouched:] - before[:, untouched:]).abs().max() > 1e-3


def test_in_a_subnet_batch_skipped_layers_learn_from_the_bridge_zone_alone():
    model, (label_B, x_BLv) = tiny_transformer(), _inputs()
    skipped = model.blocks[3].ffn.fc1.weight
    bridge_tokens = TINY_PYRAMID.end(3)
    model(label_B, x_BLv, DepthPlan.bridge(6, 2, 3, 5))[:, :bridge_tokens].square().sum().backward()
    from_bridge = skipped.grad.clone()
    assert from_bridge.abs().sum() > 0
    model.zero_grad()
    model(label_B, x_BLv, DepthPlan.bridge(6, 2, 0, 5)).square().sum().backward()
    assert skipped.grad is None


def test_a_plan_for_another_network_is_refused():
    model, (label_B, x_BLv) = tiny_transformer(), _inputs()
    with pytest.raises(ValueError, match="plan is for 7 layers and 5 scales, the network has 6 layers"):
        model(label_B, x_BLv, DepthPlan.full(7, 5))


def test_stochastic_depth_acts_in_training_only():
    model, (label_B, x_BLv) = tiny_transformer(drop_path_rate=0.5), _inputs()
    assert torch.equal(model(label_B, x_BLv), model(label_B, x_BLv))
    model.train()
    assert not torch.equal(model(label_B, x_BLv), model(label_B, x_BLv))
