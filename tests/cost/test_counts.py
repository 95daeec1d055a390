"""Bytes, parameters and FLOPs of the cost model, against the caches, the modules and torch's counter."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from conftest import TINY_PYRAMID, VAR_PARAMETERS, tiny_tokenizer, tiny_transformer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from varient.config import TokenizerSpec, TransformerSpec
from varient.cost.baseline_work import DiTPasses, DiTShape, LlamaGenPasses, LlamaGenShape
from varient.cost.kv_accounting import cache_steps, kv_peak_bytes, passes, token_layers
from varient.cost.paper_systems import paper_system, released_shape
from varient.cost.parameters import dit_parameters, llamagen_parameters, var_parameters, vqvae_parameters
from varient.cost.printer import cost_answer
from varient.cost.quantities import PRECISIONS
from varient.cost.roofline import MIB, system_cost
from varient.cost.work import VARPasses, VARShape, var_work
from varient.kv_scheme import KVScheme, Window
from varient.models.kv_cache import LeanCache, ReferenceCache
from varient.models.transformer import VAR
from varient.models.vqvae import VQVAE
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms

AUTOCAST = PRECISIONS["fp16-autocast"]


@pytest.mark.parametrize(("subnet_depth", "bridge", "batch_size", "reference_mib"), [
    (30, 6, 64, 28687.5), (16, 6, 64, 17091.6), (8, 6, 64, 10465.3), (4, 6, 64, 7152.2), (2, 6, 64, 5495.6),
    (8, 6, 128, 20930.6), (2, 6, 128, 10991.2), (2, 6, 256, 21982.5), (16, 7, 64, 18351.6)])
def test_reference_cache_has_the_bytes_of_the_paper(subnet_depth, bridge, batch_size, reference_mib):
    plan = DepthPlan.bridge(30, subnet_depth, bridge, 10)
    peak = kv_peak_bytes(plan, VAR_256, 2 * batch_size, 1920, "reference", key_bytes=4, value_bytes=2)
    assert peak / MIB == pytest.approx(reference_mib, abs=0.06)


@pytest.mark.parametrize(("subnet_depth", "lean_mib"), [
    (30, 12165.0), (16, 6600.0), (8, 3420.0), (4, 1830.0), (2, 1614.4)])
def test_lean_cache_at_paper_scale(subnet_depth, lean_mib):
    plan = DepthPlan.bridge(30, subnet_depth, 6, 10)
    assert kv_peak_bytes(plan, VAR_256, 128, 1920, "lean", 2, 2) / MIB == pytest.approx(lean_mib, abs=0.06)


@st.composite
def plans(draw):
    """Any plan: each scale runs any layers, bridge or not."""
    depth, num_scales = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    layers = st.sets(st.integers(0, depth - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen)))
    plan = DepthPlan(depth, tuple(draw(st.lists(layers, min_size=num_scales, max_size=num_scales))))
    sides = draw(st.lists(st.integers(1, 4), min_size=num_scales, max_size=num_scales))
    return plan, Pyramid(tuple(sorted(sides)))


@settings(max_examples=200, deadline=None)
@given(planned=plans(), rows=st.integers(1, 3), width=st.integers(1, 4))
@pytest.mark.parametrize(("policy", "cache_type", "key_dtype", "value_dtype"), [
    ("lean", LeanCache, torch.float16, torch.float16), ("lean", LeanCache, torch.float32, torch.float32),
    ("reference", ReferenceCache, torch.float32, torch.float16)])
def test_counts_equal_the_caches_own(policy, cache_type, key_dtype, value_dtype, planned, rows, width):
    plan, pyramid = planned
    cache, live = cache_type(plan, pyramid), []
    for k in pyramid.scales:
        key = torch.zeros(rows, 1, pyramid.tokens(k), width, dtype=key_dtype)
        live.append([])
        for layer in plan.layers(k):
            cache.extend(layer, k, key, key.to(value_dtype))
            live[-1].append(cache.live_bytes)
    arguments = (plan, pyramid, rows, width, policy, key_dtype.itemsize, value_dtype.itemsize)
    assert kv_peak_bytes(*arguments) == cache.peak_bytes
    token_bytes = rows * width * (key_dtype.itemsize + value_dtype.itemsize)
    steps = cache_steps(passes(plan, pyramid), policy)
    assert [step.live * token_bytes for step in steps] == list(chain.from_iterable(live))
    assert max(step.scratch for step in steps) * token_bytes == cache.scratch_bytes


def test_scratch_at_paper_scale():
    def scratch(trips, policy):
        return max(step.scratch for step in cache_steps(trips, policy))

    trips = passes(DepthPlan.bridge(30, 2, 6, 10), VAR_256)
    assert scratch(trips, "reference") == 424  # what scale 10 finds in a layer
    assert scratch(trips, "lean") == 680       # and what it leaves there
    assert scratch(passes(DepthPlan.full(2, 1), Pyramid((3,))), "lean") == 0


def test_token_layers():
    assert token_layers(passes(DepthPlan.full(30, 10), VAR_256)) == 30 * 680
    assert token_layers(passes(DepthPlan.bridge(30, 16, 6, 10), VAR_256)) == 30 * 91 + 16 * 589


def test_scales_that_run_different_layers_cannot_enter_together():
    with pytest.raises(ValueError, match="7 scales cannot enter in one pass"):
        passes(DepthPlan.bridge(30, 16, 6, 10), VAR_256, prefilled=7)


@pytest.mark.parametrize("depth", [16, 20, 24, 30])
def test_parameters_of_released_networks(depth):
    assert paper_system(f"var-d{depth}").transformer_parameters == (VAR_PARAMETERS[depth],)


@pytest.mark.parametrize("settings", [{}, {"shared_aln": True}, {"attn_l2_norm": False}, {"mlp_ratio": 2.5}])
def test_transformer_formula_counts_the_module(settings):
    spec = TransformerSpec(depth=3, embed_dim=24, num_heads=2, **settings)
    sizes = {"num_classes": 5, "vocab_size": 33, "z_channels": 7}
    with torch.device("meta"):
        model = VAR(spec, TINY_PYRAMID, **sizes)
    assert var_parameters(spec, TINY_PYRAMID, **sizes) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("depth", "count"), [(16, 310_283_520), (30, 2_010_020_356)])
def test_transformer_formula_counts_the_module_at_paper_scale(depth, count):
    shape = released_shape(depth)
    sizes = {"num_classes": shape.num_classes, "vocab_size": shape.vocab_size, "z_channels": shape.z_channels}
    with torch.device("meta"):
        model = VAR(shape.spec, shape.pyramid, **sizes)
    assert sum(p.numel() for p in model.parameters()) == var_parameters(shape.spec, VAR_256, **sizes) == count


@pytest.mark.parametrize("settings", [
    {}, {"share_quant_resi": 0}, {"share_quant_resi": 1}, {"using_sa": False, "ch_mult": (1, 3)},
    {"using_mid_sa": False, "num_res_blocks": 1, "z_channels": 8, "vocab_size": 10, "in_channels": 1}])
def test_tokenizer_formula_counts_the_module(settings):
    spec = TokenizerSpec(**{"ch": 32, **settings} if settings else {})
    with torch.device("meta"):
        model = VQVAE(spec, VAR_256)
    count = sum(p.numel() for p in model.parameters())
    assert vqvae_parameters(spec, VAR_256.num_scales) == count
    assert settings or count == 108_948_355


def test_parameters_of_the_baselines_and_the_papers_column():
    assert llamagen_parameters() == 1_410_972_672
    assert dit_parameters() == 675_129_632
    assert paper_system("var-d30").parameter_bytes(AUTOCAST) / MIB == pytest.approx(8085, rel=1e-3)


@pytest.mark.parametrize("cfg", [0, 1.5])
@pytest.mark.parametrize("plan", [
    DepthPlan.full(6, 5), DepthPlan.bridge(6, 3, 2, 5), DepthPlan.window(6, 2, 1, 3, 5),
    replace(DepthPlan.full(6, 5), kv=KVScheme(Window(1, 1))),
    replace(DepthPlan.bridge(6, 3, 2, 5), kv=KVScheme(bits=4))])
@pytest.mark.parametrize("settings", [{}, {"shared_aln": True}])
def test_flops_equal_torchs_count_of_a_generation(plan, cfg, settings):
    model, quantizer, images = tiny_transformer(**settings), tiny_tokenizer().quantize, 3
    readout = SampledReadout(quantizer, image_uniforms(1, range(images), TINY_PYRAMID.length))
    # Plain products: torch before 2.15 does not count its fused attention on a CPU.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        generate(model, quantizer, torch.arange(images), plan, Guidance(cfg=cfg), readout)
    shape = VARShape(model.spec, TINY_PYRAMID, num_classes=5, vocab_size=32, z_channels=8)
    works = var_work(VARPasses(shape, plan), images, 2 * images if cfg else images, "lean", PRECISIONS["fp32"])
    assert counter.get_total_flops() == sum(
        work.flops for trip in works for part, work in trip.parts.items() if part != "sampling")


def test_bytes_of_a_small_case_by_hand():
    spec = TransformerSpec(depth=1, embed_dim=2, num_heads=1)
    stage = VARPasses(VARShape(spec, Pyramid((1, 2))), DepthPlan.full(1, 2))
    first, second = (trip.parts for trip in var_work(stage, 1, 1, "lean", PRECISIONS["fp32"]))
    # Keys and values of 2 channels at 4 bytes: 16 bytes a token.  Scale 1 is stored and read; scale 2 joins 1 + 4.
    assert (first["attention_scores"].kv_read_bytes, first["attention_scores"].kv_written_bytes) == (16 + 16, 16)
    assert (second["attention_scores"].kv_read_bytes, second["attention_scores"].kv_written_bytes) == (80 + 80, 80)
    assert first["mlp"].weight_bytes == 4 * (2 * 8 + 8 + 8 * 2 + 2)
    autocast = var_work(stage, 1, 1, "reference", AUTOCAST)[1].parts
    assert autocast["mlp"].weight_bytes == 2 * first["mlp"].weight_bytes  # read as 4 bytes, written and read as 2
    # Cached 12 bytes a token; joined (read, written), keys cast (8 read, 4 written), then 8 read by the kernel.
    assert autocast["attention_scores"].kv_read_bytes == 5 * (12 + 8 + 8)
    assert autocast["attention_scores"].kv_written_bytes == 5 * (12 + 4)


def test_code_refiner_takes_the_drafted_tokens_in_at_once():
    drafter, refiner = paper_system("code-n6").stages
    assert [trip.tokens for trip in drafter.passes] == [1, 4, 9, 16, 25, 36]
    assert [trip.tokens for trip in refiner.passes] == [155, 100, 169, 256]
    cost = system_cost("code-n6", policy="reference")
    assert [max(stage.kv_peak_bytes) / MIB for stage in cost.stages] == [3839.0625, 8160.0]
    assert cost.kv_cache_bytes / MIB == 8160.0
    assert system_cost("code-n9", policy="reference").kv_cache_bytes / MIB == 17887.5  # there the drafter's is larger


def _flops(trips):
    """Of one pass, without those of sampling, which are an estimate."""
    (trip,) = trips
    return sum(work.flops for part, work in trip.parts.items() if part != "sampling")


def test_dit_has_the_published_multiply_adds():
    # 119 GFLOPs in its README are multiply-adds of a row: 12 C^2 a token and layer, 2 T C of attention, 6 C^2 of adaLN.
    expected = 28 * (256 * (12 * 1152 ** 2 + 2 * 256 * 1152) + 6 * 1152 ** 2)
    expected += 256 * (16 * 1152 + 1152 * 32) + 256 * 1152 + 1152 ** 2 + 2 * 1152 ** 2  # ends; timestep; final adaLN
    flops = _flops(DiTPasses(DiTShape(), 50).work(1, 1, "none", AUTOCAST))
    assert flops == 2 * expected
    assert flops / 2e9 == pytest.approx(118.6, abs=0.05)
    for system, steps in (("dit-xl2", 50), ("dit-xl2-250", 250)):
        document = cost_answer(system_cost(system, batch_size=3)).document
        assert document["flops"] == 2 * expected * steps * 2 * 3  # two rows an image


def test_llamagen_by_hand():
    # Of a row and a token: 4 C^2 + 3 C F multiply-adds a layer, 2 x 584 C of attention, and the head.
    per_token = 48 * (4 * 1536 ** 2 + 3 * 1536 * 4096 + 2 * 584 * 1536) + 1536 * 16384
    document = cost_answer(system_cost("llamagen-xxl", batch_size=64, precision="bf16")).document
    assert document["flops"] == 2 * per_token * 576 * 128  # 1 class + 575 tokens enter, two rows an image
    assert document["kv_cache_bytes"] == 2 * 48 * 1536 * 584 * 128 * 2
    assert document["kv_read_bytes"] == 576 * document["kv_cache_bytes"]
    assert document["kv_written_bytes"] == 576 * document["kv_cache_bytes"] // 584
    # All parameters once a token, but for both embedding tables.
    assert document["weight_bytes"] == 576 * 2 * (1_410_972_672 - 1001 * 1536 - 16384 * 1536)


def test_dit_moves_its_weights_once_a_step():
    document = cost_answer(system_cost("dit-xl2", batch_size=64, precision="fp16")).document
    # All parameters, but for the class table and the fixed positions.
    assert document["weight_bytes"] == 50 * 2 * (675_129_632 - 1001 * 1152 - 256 * 1152)
    assert document["kv_read_bytes"] == document["kv_written_bytes"] == 0


def _counted(run):
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_dit_flops_equal_torchs_count_of_such_a_network():
    depth, width, side, channels, rows = 2, 24, 4, 3, 5

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
            self.fc1, self.fc2 = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)
            self.ada = torch.nn.Linear(width, 6 * width)

        def forward(self, x, c):
            shift, scale, gate, shift2, scale2, gate2 = self.ada(c)[:, None].chunk(6, dim=2)
            q, k, v = (self.qkv(x * scale + shift).reshape(rows, -1, 3, 2, width // 2).permute(2, 0, 3, 1, 4))
            attended = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + gate * self.proj(attended)
            return x + gate2 * self.fc2(self.fc1(x * scale2 + shift2))

    patches, blocks = torch.nn.Conv2d(channels, width, 2, 2), [Block() for _ in range(depth)]
    timestep = torch.nn.Sequential(torch.nn.Linear(10, width), torch.nn.Linear(width, width))
    final_ada, final = torch.nn.Linear(width, 2 * width), torch.nn.Linear(width, 2 * 4 * channels)

    def run():
        x, c = patches(torch.zeros(rows, channels, 2 * side, 2 * side)).flatten(2).mT, timestep(torch.zeros(rows, 10))
        for block in blocks:
            x = block(x, c)
        shift, scale = final_ada(c)[:, None].chunk(2, dim=2)
        final(x * scale + shift)

    shape = DiTShape(depth, width, side * side, 4 * channels, 10)
    assert _counted(run) == _flops(DiTPasses(shape, 7).work(3, rows, "none", PRECISIONS["fp32"]))
    modules = [patches, *blocks, timestep, final_ada, final]
    weights = sum(parameter.numel() for module in modules for parameter in module.parameters())
    (trip,) = DiTPasses(shape, 7).work(3, rows, "none", PRECISIONS["fp32"])
    assert sum(work.weight_bytes for work in trip.parts.values()) == 4 * weights


def test_llamagen_flops_equal_torchs_count_of_such_a_network():
    depth, width, hidden, vocab, tokens, rows = 2, 12, 20, 33, 9, 5

    def matrix(width_in, width_out):
        return torch.nn.Linear(width_in, width_out, bias=False)

    layers = [(matrix(width, 3 * width), matrix(width, width), matrix(width, hidden), matrix(width, hidden),
               matrix(hidden, width)) for _ in range(depth)]
    head, shape = matrix(width, vocab), LlamaGenShape(depth, width, hidden, vocab, tokens)
    cache = torch.zeros(2, depth, rows, 2, shape.positions, width // 2)
    assert shape.positions == 16  # 10 rounded up

    def run():
        for position in range(tokens):
            x = torch.zeros(rows, 1, width)
            mask = torch.arange(shape.positions) <= position
            for layer, (wqkv, wo, w1, w3, w2) in enumerate(layers):
                q, k, v = wqkv(x).reshape(rows, 1, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
                cache[:, layer, :, :, position:position + 1] = torch.stack((k, v))
                attended = torch.nn.functional.scaled_dot_product_attention(q, *cache[:, layer], attn_mask=mask)
                x = x + wo(attended.transpose(1, 2).flatten(2))
                x = x + w2(torch.nn.functional.silu(w1(x)) * w3(x))
            head(x)

    stage = LlamaGenPasses(shape)
    assert _counted(run) == tokens * _flops(stage.work(3, rows, "static", PRECISIONS["fp32"]))
    assert stage.kv(rows, "static", PRECISIONS["fp32"]).peak == (cache.nbytes,)
    assert [trip.times * trip.tokens for trip in stage.passes] == [tokens]
