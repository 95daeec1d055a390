"""The cost of windows and packed entries at the paper's size, by hand where a sum is short enough."""

from dataclasses import replace

import pytest

from varient.config import TransformerSpec
from varient.cost.kv_accounting import token_layers
from varient.cost.paper_systems import paper_system
from varient.cost.roofline import MIB, system_cost
from varient.cost.work import PRECISIONS, VARPasses, VARShape, var_work
from varient.kv_scheme import KVScheme, Window
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid


@pytest.mark.parametrize(("system", "peak_mib"), [
    ("var-d30-w1", 5133.8), ("var-d30-w2", 7946.2), ("var-d30-w3", 9746.2), ("var-d30-w4", 10758.8),
    ("var-d30-w9", 12165.0), ("var-d30", 12165.0)])
def test_peaks_of_windows(system, peak_mib):
    """d = 30, batch 64, C = 2, 16 bits."""
    assert system_cost(system).kv_cache_bytes / MIB == pytest.approx(peak_mib, abs=0.06)


@pytest.mark.parametrize(("bits", "all_mib", "lean_mib"), [
    (8, 9861.3, 6272.6), (6, 7470.7, 4752.0), (4, 5080.1, 3231.3)])
def test_packed_entries(bits, all_mib, lean_mib):
    """All entries of d30 at batch 64 (the convention of 28687.5 MiB), and those alive at once."""
    tokens = token_layers(paper_system("var-d30").stages[0].passes)
    assert 128 * tokens * KVScheme(bits=bits).token_bytes(30, 64, 4) / MIB == pytest.approx(all_mib, abs=0.06)
    assert system_cost(f"var-d30-kv{bits}").kv_cache_bytes / MIB == pytest.approx(lean_mib, abs=0.06)


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


def _attention(kv, sides=(1, 2, 3)):
    """Reads and writes of the cache in each pass of one layer with one head of 4 channels, in 32 bits."""
    spec = TransformerSpec(depth=1, embed_dim=4, num_heads=1)
    plan = replace(DepthPlan.full(1, len(sides)), kv=kv)
    works = [trip.parts["attention_scores"]
             for trip in var_work(VARPasses(VARShape(spec, Pyramid(sides)), plan), 1, 1, "lean", PRECISIONS["fp32"])]
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


def test_the_only_cache_is_the_lean_one():
    asked = system_cost("variant-d8-w1-kv8", policy="reference")
    assert (asked.policy, asked.kv_cache_bytes) == ("lean", system_cost("variant-d8-w1-kv8").kv_cache_bytes)
    assert asked.peak_memory is not None


@pytest.mark.parametrize(("system", "named"), [
    ("var-d30-w0", "W = 0"), ("var-d30-w10", "W = 10"), ("var-d30-w1-c11", "C = 11"), ("variant-d8-w1-c7", "C = 7"),
    ("var-d30-kv3", "3 bits"), ("var-d30-c2", "-c2"), ("dit-xl2-w1", "unknown"), ("code-n6-kv8", "unknown")])
def test_bad_input_ends_in_one_line(system, named):
    with pytest.raises(ValueError, match=f"^[^\n]*{system}[^\n]*$") as error:
        system_cost(system)
    assert named in str(error.value)
