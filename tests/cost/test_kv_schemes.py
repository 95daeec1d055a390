"""The cost of windows and packed entries at the paper's size, by hand where a sum is short enough."""

from dataclasses import replace

import pytest

from varient.config import TransformerSpec
from varient.cost.kv_accounting import token_layers
from varient.cost.paper_systems import paper_system
from varient.cost.quantities import PRECISIONS
from varient.cost.roofline import MIB, system_cost
from varient.cost.work import VARPasses, VARShape, var_work
from varient.head_budgets import HeadBudgets
from varient.kv_scheme import KVScheme, Window
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid


@pytest.mark.parametrize(("system", "peak_mib"), [
    ("var-d30-w1", 5133.8), ("var-d30-w2", 7946.2), ("var-d30-w3", 9746.2), ("var-d30-w4", 10758.8),
    ("var-d30-w9", 12165.0), ("var-d30", 12165.0)])
def test_peaks_of_windows(system, peak_mib):
    """d = 30, batch 64, C = 2, 16 bits."""
    assert system_cost(system).kv_cache_bytes / MIB == pytest.approx(peak_mib, abs=0.06)


def test_the_peak_of_windows_by_layer_does_not_depend_on_the_layers():
    """Half of the layers with W = 1, half with W = 3; the peak is at the beginning of the last scale."""
    (stage,), entry = paper_system("var-d30-w1to3").stages, 128 * 1920 * 4
    for layers in (range(15), range(15, 30), range(0, 30, 2)):
        passes = replace(stage, plan=replace(stage.plan, kv=stage.plan.kv.with_wide_layers(layers)))
        assert max(passes.kv(128, "lean", PRECISIONS["fp16"]).peak) == (15 * 174 + 15 * 338 + 256) * entry
    assert system_cost("var-d30-w1to3").kv_cache_bytes == (15 * 174 + 15 * 338 + 256) * entry


@pytest.mark.parametrize(("bits", "all_mib", "lean_mib"), [
    (8, 9861.3, 6272.6), (6, 7470.7, 4752.0), (4, 5080.1, 3231.3)])
def test_packed_entries(bits, all_mib, lean_mib):
    """All entries of d30 at batch 64 (the convention of 28687.5 MiB), and those alive at once."""
    tokens = token_layers(paper_system("var-d30").stages[0].passes)
    assert 128 * tokens * KVScheme(bits=bits).token_bytes(30, 64, 4) / MIB == pytest.approx(all_mib, abs=0.06)
    assert system_cost(f"var-d30-kv{bits}").kv_cache_bytes / MIB == pytest.approx(lean_mib, abs=0.06)


@pytest.mark.parametrize(("system", "peak_mib"), [
    ("var-d30-gmap", 0.75 * 12165.0), ("variant-d16-gmap", 0.75 * 6600.0), ("var-d30-kv8-gmap", 0.75 * 6272.578125),
    ("var-d30-g6", 0.5 * 12165.0), ("variant-d8-g6", 0.5 * 3420.0)])
def test_peaks_of_other_guidance(system, peak_mib):
    """Without the keys of the unconditional half a quarter less; without that half at the last scale, half."""
    assert system_cost(system).kv_cache_bytes / MIB == peak_mib


@pytest.mark.parametrize(("percent", "contextual", "structural"), [(50, 85, 424), (30, 51, 357)])
def test_peaks_of_budgets_by_head(percent, contextual, structural):
    """Before scale 10, a head keeps its budget and at most the 424 tokens of r1-r9; 256 new ones in one layer."""
    entry = 128 * 64 * 4  # of one head
    tokens = 15 * (contextual + structural)
    assert system_cost(f"var-d30-heads{percent}").kv_cache_bytes == (30 * tokens + 30 * 256) * entry


def test_work_of_budgets_by_hand():
    """At scale 10 a contextual head reads 51 + 256 tokens, a structural one 357 + 256; observers at r4-r9 beside it."""
    full, budgets = system_cost("var-d30"), system_cost("var-d30-heads30")
    assert {part for part in full.work if budgets.work[part] != full.work[part]} == {"attention_scores"}
    products = 0
    for budget in (51, 357):
        stored = 0
        for k in VAR_256.scales:
            new = VAR_256.tokens(k)
            seen = stored + new
            stored = min(seen, budget)
            observed = len(range(0, new, -(-new // 32))) if k < 10 and stored < seen else 0
            products += seen * (2 * new + observed)
    assert budgets.work["attention_scores"].flops == 30 * 128 * 15 * 64 * 2 * products


def test_the_unconditional_half_dies_with_its_last_scale():
    """Layer by layer: when scale 9 enters the first layer, all layers still have both halves of r1..r8."""
    (stage,) = system_cost("var-d30-g9").stages
    entry = 64 * 1920 * 4  # a token of one half in one layer
    assert stage.kv_peak_bytes[8] == (30 * 255 + 169) * 2 * entry
    assert stage.kv_live_bytes[8] == 30 * 424 * entry
    assert stage.kv_peak_bytes[9] == (30 * 424 + 256) * entry


def test_work_of_other_guidance_by_hand():
    """A quarter less attention under one map, whose other work stays; half of the rows after the end of guidance."""
    full, shared, short = (system_cost(name) for name in ("var-d30", "var-d30-gmap", "var-d30-g6"))
    assert {part for part in full.work if shared.work[part] != full.work[part]} == {"attention_scores"}
    assert shared.work["attention_scores"].flops == 0.75 * full.work["attention_scores"].flops
    rows = [2 if k <= 6 else 1 for k in VAR_256.scales]
    tokens = [rows * VAR_256.tokens(k) for k, rows in zip(VAR_256.scales, rows, strict=True)]
    seen = [count * VAR_256.end(k) for k, count in zip(VAR_256.scales, tokens, strict=True)]
    assert short.work["mlp"].flops == 30 * 64 * sum(tokens) * 2 * 2 * 1920 * 7680
    assert short.work["attention_projections"].flops == 30 * 64 * sum(tokens) * 2 * 4 * 1920 ** 2
    assert short.work["attention_scores"].flops == 30 * 64 * sum(seen) * 4 * 1920
    assert short.work["head"].flops == 64 * 2 * 1920 * (sum(rows) * 2 * 1920 + sum(tokens) * 4096)
    assert short.work["adaln"] == full.work["adaln"] and short.work["mlp"].weight_bytes == full.work["mlp"].weight_bytes
    assert short.latency_s < 0.6 * full.latency_s and short.peak_memory.transformer_mib < (
        full.peak_memory.transformer_mib - 0.5 * full.kv_cache_bytes / MIB)


def test_depth_window_and_bits_compose():
    """At scale 10, with scale 9 and r1, r2: 174 tokens in all layers of the subnet, and 256 new ones in one."""
    cost = system_cost("variant-d8-w1-kv8")
    assert cost.kv_cache_bytes == max(30 * (5 + 25) + 36, 8 * 174 + 256) * 128 * 2 * (1920 + 2 * 30)
    parts = [system_cost(name).kv_cache_bytes for name in ("variant-d8", "variant-d8-w1", "variant-d8-kv8")]
    assert cost.kv_cache_bytes < min(parts)


def test_only_attention_and_the_cache_change():
    full, window, packed = (system_cost(name) for name in ("var-d30", "var-d30-w1", "var-d30-kv8"))
    for cost in (window, packed):
        assert {part for part in full.work if cost.work[part] != full.work[part]} == {"attention_scores"}
    seen = [1, 5, 14, 5 + 9 + 16, 5 + 16 + 25, 5 + 25 + 36, 5 + 36 + 64, 5 + 64 + 100, 5 + 100 + 169, 5 + 169 + 256]
    flops = sum(new * before for new, before in zip([side ** 2 for side in VAR_256.patch_nums], seen, strict=True))
    assert window.work["attention_scores"].flops == 30 * 128 * 4 * 1920 * flops
    assert packed.work["attention_scores"].flops == full.work["attention_scores"].flops
    assert packed.work["attention_scores"].moved_bytes > full.work["attention_scores"].moved_bytes


def _attention(kv, sides=(1, 2, 3), rows=1, heads=1):
    """Reads and writes of the cache in each pass of one layer with 4 channels in all heads, in 32 bits."""
    spec = TransformerSpec(depth=1, embed_dim=4, num_heads=heads)
    plan = replace(DepthPlan.full(1, len(sides)), kv=kv)
    works = [trip.parts["attention_scores"]
             for trip in var_work(VARPasses(VARShape(spec, Pyramid(sides)), plan), 1, rows, "lean", PRECISIONS["fp32"])]
    return [(work.kv_read_bytes, work.kv_written_bytes) for work in works]


def test_traffic_of_a_window_by_hand():
    """32 bytes a token.  Scales of 1, 4 and 9 tokens; scale 3 sees scale 2 alone, so scale 1 is dropped before it."""
    first, second, third = _attention(KVScheme(Window(1, 0)))
    assert first == (32 + 32, 32)                                # stored, seen by the kernel
    assert second == (5 * 32 + 5 * 32 + 4 * 32, 5 * 32 + 4 * 32)   # joined, seen; scale 2 is copied
    assert third == (13 * 32 + 13 * 32, 13 * 32)


def test_traffic_of_packed_entries_by_hand():
    """A token takes 32 bytes as computed and 2 (4 + 2) = 12 packed."""
    first, second, _ = _attention(KVScheme(bits=8))
    assert first == (32 + 3 * 32 + 12 + 32, 32 + 12 + 2 * 32)
    assert second == (5 * 32 + 4 * 3 * 32 + 5 * 12 + 5 * (12 + 32), 4 * (32 + 12) + 5 * 12 + 5 * 2 * 32)


def test_traffic_of_a_shared_map_by_hand():
    """A token has one key and two values of 16 bytes; new values are first put beside each other."""
    first, second, third = _attention(KVScheme(shared_map=True), rows=2)
    assert first == (2 * 16 + 48 + 48, 2 * 16 + 48)
    assert second == (4 * 32 + 5 * 48 + 5 * 48, 4 * 32 + 5 * 48)
    assert third == (9 * 32 + 14 * 48 + 14 * 48, 9 * 32 + 14 * 48)


def test_traffic_of_an_end_of_guidance_by_hand():
    """32 bytes a token and half; after scale 2 what is kept of the conditional half is copied."""
    first, second, third = _attention(KVScheme(last_guided=2), rows=2)
    assert first == (2 * (32 + 32), 2 * 32)
    assert second == (2 * (5 * 32 + 5 * 32) + 5 * 32, 2 * 5 * 32 + 5 * 32)
    assert third == (14 * 32 + 14 * 32, 14 * 32)


def test_traffic_of_budgets_by_hand():
    """Two heads of 2 channels in 32 bits: 16 bytes a token and head.  10 % of 14 tokens are 1, so each head keeps 1."""
    first, second, third = _attention(KVScheme(budgets=HeadBudgets(10)), heads=2)
    taken, observed = 2 * 16, 4  # of a new token by head; queries of scale 2, whose map is of 5 tokens for each head
    assert first == (taken + 32, taken)
    contextual = {"read": 4 * 16 + 5 * 16 + (1 + 4) * 16 + 5 * 8 * 2 + 2 * observed * 5 * 4 + 2 * 16,
                  "written": 4 * 16 + 5 * 16 + 5 * 8 + 2 * observed * 5 * 4 + 2 * 16}
    structural = {"read": 4 * 16 + 5 * 16 + (1 + 4) * 16, "written": 4 * 16 + 5 * 16}  # r1 and r2 are kept
    assert second == tuple(contextual[way] + structural[way] for way in ("read", "written"))
    assert third == (9 * taken + (10 + 14) * 16 + (10 + 14) * 16, 9 * taken + (10 + 14) * 16)


def test_the_only_cache_is_the_lean_one():
    asked = system_cost("variant-d8-w1-kv8", policy="reference")
    assert (asked.policy, asked.kv_cache_bytes) == ("lean", system_cost("variant-d8-w1-kv8").kv_cache_bytes)
    assert asked.peak_memory is not None


@pytest.mark.parametrize(("system", "named"), [
    ("var-d30-w0", "W = 0"), ("var-d30-w10", "W = 10"), ("var-d30-w1-c11", "C = 11"), ("variant-d8-w1-c7", "C = 7"),
    ("var-d30-g0", "first 0"), ("variant-d8-g10", "first 10"), ("var-d30-gmap-plain", "gmap and plain"),
    ("var-d30-kv3", "3 bits"), ("var-d30-c2", "-c2"), ("dit-xl2-w1", "unknown"), ("code-n6-kv8", "unknown")])
def test_bad_input_ends_in_one_line(system, named):
    with pytest.raises(ValueError, match=f"^[^\n]*{system}[^\n]*$") as error:
        system_cost(system)
    assert named in str(error.value)
