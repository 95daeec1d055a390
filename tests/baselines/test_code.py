import pytest
import torch
from conftest import (
    IMAGE_TOLERANCE,
    LATENT_TOLERANCE,
    TINY_PYRAMID,
    assert_close,
    golden,
    tiny_tokenizer,
    tiny_transformer,
)
from test_sampling import Race

from varient.baselines.code.decoding import collaborate
from varient.cost.kv_accounting import cache_steps, passes
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms


@pytest.mark.parametrize("policy", ["lean", "reference"])
@pytest.mark.parametrize("run", ["greedy", "sampled"])
def test_drafting_and_refining_match_the_released_code(run, policy):
    case = golden("code_draft_refine")
    setting, drafted_scales = case.config[run], case.config["draft_steps"]
    drafter, refiner = case.transformer("sd/draft/", "draft"), case.transformer("sd/refine/", "refine")
    tokenizer, seen = case.tokenizer(), {}
    quantizer = tokenizer.quantize
    readout = (SampledReadout(quantizer, image_uniforms(0, range(2), quantizer.pyramid.length)) if run == "greedy"
               else Race(quantizer, case["sampled/exp_noise"]))
    guidance = Guidance(case.config["cfg"], setting["top_k"], setting["top_p"], tuple(setting["temp"]))
    result = collaborate(drafter, refiner, quantizer, case["in/label_B"], drafted_scales, readout, guidance=guidance,
                         cache_policy=policy, on_logits=seen.__setitem__)
    assert torch.equal(result.refined.idx_BL, case[f"{run}/idx"])
    logits = [seen[k] for k in quantizer.pyramid.scales]
    assert_close(torch.cat(logits[:drafted_scales], dim=1), case[f"{run}/logits_cfg_draft"])
    assert_close(torch.cat(logits[drafted_scales:], dim=1), case[f"{run}/logits_cfg_refine"])
    assert_close(result.drafted.f_hat_BCHW, case[f"{run}/f_hat_draft"], LATENT_TOLERANCE)
    assert_close(result.refined.f_hat_BCHW, case[f"{run}/f_hat"], LATENT_TOLERANCE)
    image = (tokenizer.decode_latent(result.refined.f_hat_BCHW) + 1) / 2
    assert_close(image[:, :, ::4, ::4], case[f"{run}/img_stride4"], IMAGE_TOLERANCE)


def test_what_the_drafter_hands_over_matches_the_released_code():
    case = golden("code_draft_refine")
    quantizer = case.tokenizer().quantize
    f_hats = quantizer.f_hats(case["greedy/idx"], case.config["draft_steps"])
    hub = torch.cat([quantizer.next_input(k, f_hat) for k, f_hat in enumerate(f_hats, start=1)], dim=1)
    assert_close(hub, case["greedy/token_hub"], LATENT_TOLERANCE)


@pytest.mark.parametrize("drafted_scales", [1, 2, 3, 4])
def test_a_network_that_refines_its_own_draft_is_itself(drafted_scales):
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    readout, labels = SampledReadout(quantizer, image_uniforms(2, range(4), TINY_PYRAMID.length)), torch.arange(4)
    alone = generate(model, quantizer, labels, DepthPlan.full(6, 5), Guidance(), readout)
    together = collaborate(model, model, quantizer, labels, drafted_scales, readout, guidance=Guidance())
    assert torch.equal(together.refined.idx_BL, alone.idx_BL)
    assert_close(together.refined.f_hat_BCHW, alone.f_hat_BCHW, 1e-5)


@pytest.mark.parametrize("policy", ["lean", "reference"])
@pytest.mark.parametrize("drafted_scales", [1, 3, 4])
def test_both_caches_count_what_the_cost_model_says(drafted_scales, policy):
    drafter, refiner, quantizer = tiny_transformer(), tiny_transformer(depth=3), tiny_tokenizer().quantize
    readout = SampledReadout(quantizer, image_uniforms(0, range(4), TINY_PYRAMID.length))
    result = collaborate(drafter, refiner, quantizer, torch.arange(4), drafted_scales, readout, cache_policy=policy,
                         guidance=Guidance())
    token_layer_bytes = 8 * 16 * (4 + 4)  # guided rows, width, float32 keys and values
    draft = passes(DepthPlan.full(6, drafted_scales), Pyramid(TINY_PYRAMID.patch_nums[:drafted_scales]))
    refine = passes(DepthPlan.full(3, 5), TINY_PYRAMID, prefilled=drafted_scales + 1)
    expected = [max(step.in_flight for step in cache_steps(trips, policy)) * token_layer_bytes
                for trips in (draft, refine)]
    assert [result.drafted.cache.peak_bytes, result.refined.cache.peak_bytes] == expected
    assert result.kv_peak_bytes == max(expected)


def test_impossible_divisions_of_work_are_refused():
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    readout = SampledReadout(quantizer, image_uniforms(0, [0], TINY_PYRAMID.length))
    for drafted_scales in (0, 5):
        with pytest.raises(ValueError, match="the drafter takes 1..4 scales"):
            collaborate(model, model, quantizer, torch.tensor([0]), drafted_scales, readout, guidance=Guidance())
    other = tiny_transformer()
    other.pyramid = Pyramid((1, 2, 3, 4))
    with pytest.raises(ValueError, match="different scales"):
        collaborate(model, other, quantizer, torch.tensor([0]), 2, readout, guidance=Guidance())
    with pytest.raises(ValueError, match="4 drafted tokens: they must fill whole scales"):
        generate(model, quantizer, torch.tensor([0]), DepthPlan.full(6, 5), Guidance(), readout,
                 drafted_BL=torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"scales 1..3 are processed together"):
        generate(model, quantizer, torch.tensor([0]), DepthPlan.bridge(6, 3, 2, 5), Guidance(), readout,
                 drafted_BL=torch.zeros(1, 2, dtype=torch.long))
