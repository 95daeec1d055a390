import numpy as np
import pytest
import torch
from conftest import (
    IMAGE_TOLERANCE,
    LATENT_TOLERANCE,
    ROUNDING,
    TINY_PYRAMID,
    assert_close,
    golden,
    tiny_tokenizer,
    tiny_transformer,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from varient.models.float32 import keep_float32
from varient.models.vqvae import to_uint8
from varient.plan import DepthPlan
from varient.sampling import (
    Guidance,
    NotFiniteError,
    SampledReadout,
    filter_logits,
    generate,
    guided_logits,
    image_uniforms,
    sample_tokens,
)

POLICIES = ["lean", "reference"]


class Race:
    """The released sampler's draw: the token with the largest probability over recorded exponential noise."""

    def __init__(self, quantizer, noise_BLV):
        self.quantizer, self.noise_BLV = quantizer, noise_BLV

    def __call__(self, k, logits_BlV):
        pyramid = self.quantizer.pyramid
        noise = self.noise_BLV[:, pyramid.begin(k):pyramid.end(k)]
        idx_Bl = (logits_BlV.softmax(-1) / noise).argmax(-1)
        return idx_Bl, self.quantizer.embedding(idx_Bl)


def _draw(quantizer, batch=2):
    return SampledReadout(quantizer, image_uniforms(0, range(batch), quantizer.pyramid.length))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("run", ["greedy", "sampled"])
def test_guided_sampling_matches_the_released_code(run, policy):
    case = golden("var_ar_small")
    model, tokenizer = case.transformer(), case.tokenizer()
    setting, seen = case.config[run], []
    readout = _draw(tokenizer.quantize) if run == "greedy" else Race(tokenizer.quantize, case["sampled/exp_noise"])
    result = generate(model, tokenizer.quantize, case["in/label_B"], DepthPlan.full(4, 4),
                      Guidance(case.config["cfg"], setting["top_k"], setting["top_p"]), readout, cache_policy=policy,
                      on_logits=lambda k, logits: seen.append(logits))
    assert torch.equal(result.idx_BL, case[f"{run}/idx"])
    assert_close(torch.cat(seen, dim=1), case[f"{run}/logits_cfg"])
    assert_close(result.f_hat_BCHW, case[f"{run}/f_hat"], LATENT_TOLERANCE)
    image = (tokenizer.decode_latent(result.f_hat_BCHW) + 1) / 2
    stride = 2 if run == "greedy" else 4
    assert_close(image[:, :, ::stride, ::stride], case[f"{run}/img_stride{stride}"], IMAGE_TOLERANCE)


def test_filtered_probabilities_match_the_released_code():
    case = golden("var_ar_small")
    setting = case.config["sampled"]
    probabilities = filter_logits(case["sampled/logits_cfg"], setting["top_k"], setting["top_p"]).softmax(-1)
    assert_close(probabilities, case["sampled/probs"], ROUNDING)


@pytest.mark.parametrize("policy", POLICIES)
def test_ten_official_scales_match_the_released_code(policy):
    case = golden("var_ar_k10")
    model, tokenizer, seen = case.transformer(), case.tokenizer(), []
    result = generate(model, tokenizer.quantize, case["in/label_B"], DepthPlan.full(2, 10), Guidance(1.5, 1, 0.0),
                      _draw(tokenizer.quantize, 1), cache_policy=policy,
                      on_logits=lambda k, logits: seen.append(logits))
    assert torch.equal(result.idx_BL, case["greedy/idx"])
    assert_close(torch.cat(seen, dim=1)[:, ::4], case["greedy/logits_cfg_every4"])
    assert_close(result.f_hat_BCHW, case["greedy/f_hat"], LATENT_TOLERANCE)
    image = (tokenizer.decode_latent(result.f_hat_BCHW) + 1) / 2
    assert_close(image[:, :, ::4, ::4], case["greedy/img_stride4"], IMAGE_TOLERANCE)
    assert_close(image[:, :, 96:128, 64:96], case["greedy/img_crop"], IMAGE_TOLERANCE)


@pytest.mark.gpu
@pytest.mark.parametrize("policy", POLICIES)
def test_ten_official_scales_on_a_gpu_match_the_released_code(policy):
    """Kernels there add in another order; TF32 in their place would be off by more than 1e-3."""
    keep_float32()
    case, seen = golden("var_ar_k10"), []
    model, tokenizer = case.transformer().cuda(), case.tokenizer().cuda()
    result = generate(model, tokenizer.quantize, case["in/label_B"], DepthPlan.full(2, 10), Guidance(1.5, 1, 0.0),
                      _draw(tokenizer.quantize, 1), cache_policy=policy,
                      on_logits=lambda k, logits: seen.append(logits.cpu()))
    assert torch.equal(result.idx_BL.cpu(), case["greedy/idx"])
    assert_close(torch.cat(seen, dim=1)[:, ::4], case["greedy/logits_cfg_every4"], 1e-4)
    assert_close(result.f_hat_BCHW.cpu(), case["greedy/f_hat"], 1e-4)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("setting", ["d2_N2", "d3_N2", "d4_N2", "d2_N3", "d3_N3", "d4_N3"])
def test_depth_switching_matches_the_released_blocks_switched_by_scale(setting, policy):
    case = golden("variant_depth_switch")
    model, tokenizer, seen = case.transformer(), case.tokenizer(), []
    plan = DepthPlan.bridge(6, int(setting[1]), int(setting[4]), 4)
    result = generate(model, tokenizer.quantize, case["in/label_B"], plan, Guidance(1.5, 1, 0.0),
                      _draw(tokenizer.quantize), cache_policy=policy, on_logits=lambda k, logits: seen.append(logits))
    assert torch.equal(result.idx_BL, case[f"{setting}/idx"])
    assert_close(torch.cat(seen, dim=1), case[f"{setting}/logits_cfg"])
    assert_close(result.f_hat_BCHW, case[f"{setting}/f_hat"], LATENT_TOLERANCE)
    image = (tokenizer.decode_latent(result.f_hat_BCHW) + 1) / 2
    assert_close(image[:, :, ::4, ::4], case[f"{setting}/img_stride4"], IMAGE_TOLERANCE)


def test_filter_matches_the_released_code_with_and_without_ties():
    case = golden("sampler_topk_topp")
    for ties in ("noties", "ties"):
        logits = case[f"in/logits_{ties}"]
        for number, setting in enumerate(case.config["settings"]):
            ours = filter_logits(logits, setting["top_k"], setting["top_p"]).softmax(-1)
            kept, theirs = case[f"out/{ties}/{number:02}_kept"], case[f"out/{ties}/{number:02}_probs"]
            free = case[f"out/{ties}/{number:02}_ambiguous"].bool()  # equal logits at the edge: any of them may stay
            assert torch.equal((ours > 0).long().masked_fill(free, 0), kept.masked_fill(free, 0)), (ties, setting)
            assert torch.equal((ours > 0).sum(-1), kept.sum(-1)), (ties, setting)
            assert_close(ours.masked_fill(free, 0), theirs.masked_fill(free, 0), ROUNDING)


def test_a_nucleus_however_small_keeps_the_most_likely_token():
    logits = torch.randn(4, 3, 32, generator=torch.Generator().manual_seed(0))
    kept = filter_logits(logits, 0, 1e-9).isfinite()  # 1 - p is 1 in float32
    assert torch.equal(kept.long().argmax(-1), logits.argmax(-1)) and (kept.sum(-1) == 1).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True).map(sorted), min_size=5, max_size=5),
       st.sampled_from(POLICIES))
def test_cached_sampling_equals_teacher_forcing_on_the_same_tokens(layers, policy):
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    plan = DepthPlan(6, tuple(map(tuple, layers)))
    label_B, seen = torch.tensor([3, 1]), []
    result = generate(model, quantizer, label_B, plan, Guidance(0.0, 0, 0.9), _draw(quantizer), cache_policy=policy,
                      on_logits=lambda k, logits: seen.append(logits))
    forced = model(label_B, quantizer.teacher_input(result.idx_BL), plan)
    assert_close(torch.cat(seen, dim=1), forced, 1e-5)


def test_guidance_zero_is_the_conditional_model_and_the_ramp_starts_at_zero():
    logits = torch.randn(4, 3, 8)
    assert torch.equal(guided_logits(logits, 1, TINY_PYRAMID, 1.5), logits[:2])
    expected = logits[:2] + 1.5 * (logits[:2] - logits[2:])
    assert_close(guided_logits(logits, 5, TINY_PYRAMID, 1.5), expected, 1e-6)
    assert torch.equal(guided_logits(logits, 5, TINY_PYRAMID, 0.0), logits)


def test_an_image_depends_neither_on_its_batch_nor_on_its_shard():
    model, tokenizer = tiny_transformer(), tiny_tokenizer()
    plan, guidance = DepthPlan.bridge(6, 3, 2, 5), Guidance(1.5, 20, 0.96)

    def images(indices):
        readout = SampledReadout(tokenizer.quantize, image_uniforms(7, indices, TINY_PYRAMID.length))
        labels = torch.tensor([i % 5 for i in indices])
        return to_uint8(tokenizer.decode_latent(generate(model, tokenizer.quantize, labels, plan, guidance,
                                                         readout).f_hat_BCHW)).numpy()

    at_once = images(range(64))
    for size in (1, 7):
        parts = [images(range(64)[at:at + size]) for at in range(0, 64, size)]
        assert np.array_equal(np.concatenate(parts), at_once), size
    assert np.array_equal(images([41, 3, 60]), at_once[[41, 3, 60]])


def test_uniforms_belong_to_seed_and_index_alone():
    many = image_uniforms(3, range(10), 20)
    assert torch.equal(image_uniforms(3, [7], 20)[0], many[7])
    assert torch.equal(image_uniforms(3, [7], 5)[0], many[7, :5])
    assert not torch.equal(image_uniforms(4, [7], 20)[0], many[7])
    assert many.min() >= 0 and many.max() < 1


def test_drawn_tokens_follow_the_filtered_distribution():
    quantizer = tiny_tokenizer().quantize
    torch.manual_seed(0)
    logits_V = filter_logits(torch.randn(1, 1, 32) * 2, 8, 0.9)
    draws = 20_000
    readout = SampledReadout(quantizer, image_uniforms(0, range(draws), TINY_PYRAMID.length))
    idx, _ = readout(1, logits_V.expand(draws, 1, 32))
    frequency = torch.bincount(idx.flatten(), minlength=32) / draws
    probability = logits_V.softmax(-1).flatten()
    assert (frequency[probability == 0] == 0).all()
    spread = (probability * (1 - probability) / draws).sqrt()
    assert ((frequency - probability).abs() <= 5 * spread).all()


@pytest.mark.parametrize("uniform", [0.0, 1 - 2 ** -24])
def test_extreme_uniforms_never_draw_a_filtered_token(uniform):
    quantizer = tiny_tokenizer().quantize
    logits = torch.full((1, 1, 32), -torch.inf)
    logits[..., 10:20] = torch.randn(10)
    readout = SampledReadout(quantizer, torch.full((1, TINY_PYRAMID.length), uniform))
    idx, _ = readout(1, logits)
    assert idx.item() == (10 if uniform == 0 else 19)


def test_wrong_labels_and_plans_are_refused():
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4"):
        generate(model, quantizer, torch.tensor([5]), DepthPlan.full(6, 5), Guidance(), _draw(quantizer, 1))
    with pytest.raises(ValueError, match="plan is for 6 layers and 6 scales"):
        generate(model, quantizer, torch.tensor([0]), DepthPlan.full(6, 6), Guidance(), _draw(quantizer, 1))
    with pytest.raises(ValueError, match="known: lean, reference"):
        generate(model, quantizer, torch.tensor([0]), DepthPlan.full(6, 5), Guidance(), _draw(quantizer, 1),
                 cache_policy="none")


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(1.5, 20, 0.96), Guidance(0, 3, 0), Guidance(0, 0, 0)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["head.bias", "class_emb.weight", "blocks.2.attn.proj.weight"])
def test_a_network_that_computes_no_finite_logits_stops_the_sampling(guidance, value, place):
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    model.get_parameter(place).data.view(-1)[0] = value
    with pytest.raises(NotFiniteError, match="VAR computes values that are not finite.*float32") as caught:
        generate(model, quantizer, torch.tensor([0, 1]), DepthPlan.full(6, 5), guidance, _draw(quantizer))
    assert "\n" not in str(caught.value)


def test_one_look_at_the_logits_after_the_last_scale(monkeypatch):
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    looks, scales, look = [], [], torch.Tensor.__bool__
    monkeypatch.setattr("varient.sampling.check_finite", lambda sums, network: looks.append(len(sums)))
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: scales.append(tensor) or look(tensor))
    generate(model, quantizer, torch.tensor([0, 1]), DepthPlan.full(6, 5), Guidance(), _draw(quantizer))
    assert looks == [5] and not scales


def test_logits_near_the_largest_float_are_finite():
    model, quantizer = tiny_transformer(), tiny_tokenizer().quantize
    model.head.weight.data.zero_()
    model.head.bias.data.fill_(1e38)  # thousands of them add up to more than float32 holds
    generate(model, quantizer, torch.tensor([0, 1]), DepthPlan.full(6, 5), Guidance(0, 0, 0), _draw(quantizer))


def test_draws_from_nan_stay_inside_the_vocabulary():
    idx = sample_tokens(torch.full((1, 2, 8), float("nan")), torch.tensor([[0.0, 0.9]]))
    assert ((idx >= 0) & (idx < 8)).all()
