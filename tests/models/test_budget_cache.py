"""The cache with budgets by head, held to sets of positions, to the teacher-forced pass and to the cost model."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY_PYRAMID, tiny_tokenizer, tiny_transformer
from hypothesis import given, settings
from hypothesis import strategies as st

from varient.cost.kv_accounting import cache_steps, kv_bytes, passes, row_steps
from varient.head_budgets import FIRST_SCALES, HeadBudgets, observer_stride
from varient.kv_scheme import KVScheme
from varient.models.budget_cache import BudgetCache
from varient.models.kv_cache import new_cache
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms

DEPTH, SCALES, LABELS = 4, TINY_PYRAMID.num_scales, torch.tensor([1, 3, 0])
layers = st.sets(st.integers(0, DEPTH - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen)))
tiny_plans = st.lists(layers, min_size=SCALES, max_size=SCALES).map(lambda chosen: DepthPlan(DEPTH, tuple(chosen)))


def _budgeted(plan, percent, contextual=()):
    return replace(plan, kv=KVScheme(budgets=HeadBudgets(percent, contextual)))


@settings(deadline=None, max_examples=30)
@given(percent=st.integers(5, 95), seed=st.integers(0, 99), contextual=st.sampled_from(
    [((0,), (2,)), ((1, 2), (0, 3)), ((0, 1, 2), (0, 1, 3))]),
       second=st.sampled_from([(3, 5), (2, 4, 5), (1, 3, 4, 5)]))
def test_each_head_attends_to_the_positions_that_it_keeps(percent, seed, contextual, second):
    """Position by position, in a layer of all scales and one of some, with other contextual heads."""
    pyramid, heads, rows, channels = Pyramid((1, 2, 3, 4, 5)), 4, 2, 8
    budgets, scales_of = HeadBudgets(percent, contextual), ((1, 2, 3, 4, 5), second)
    plan = DepthPlan(2, tuple(tuple(layer for layer in (0, 1) if k in scales_of[layer]) for k in pyramid.scales),
                     KVScheme(budgets=budgets))
    attention, cache = tiny_transformer(1).blocks[0].attn, BudgetCache(plan, pyramid)
    q, k, v = torch.randn(3, rows, heads, pyramid.length, channels,
                          generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    alive = {(layer, row, head): [] for layer in (0, 1) for row in range(rows) for head in range(heads)}
    for scale in pyramid.scales:
        begin, end = pyramid.begin(scale), pyramid.end(scale)
        found = {layer: cache.attend(layer, scale, *(tensor[:, :, begin:end] for tensor in (q, k, v)), attention)
                 for layer in plan.layers(scale)}
        for (layer, row, head), kept in alive.items():
            if layer not in found:
                continue
            seen = [*kept, *range(begin, end)]
            scores_lt = attention.softmax_scale * q[row, head, begin:end] @ k[row, head, seen].T
            torch.testing.assert_close(found[layer][row, head], scores_lt.softmax(-1) @ v[row, head, seen])
            observed_t = scores_lt.float().softmax(-1)[::observer_stride(end - begin)].sum(0)
            alive[layer, row, head] = _kept(seen, observed_t, budgets, head in contextual[layer], pyramid, scale)
    assert cache.held_bytes == cache.live_bytes == 0


def _kept(seen, observed_t, budgets, contextual, pyramid, scale):
    """Positions that a head keeps after a scale."""
    budget = budgets.budget("contextual" if contextual else "structural", pyramid.length)
    safe = set() if contextual else {at for at in seen if at < pyramid.end(min(scale, FIRST_SCALES))
                                     or at >= pyramid.begin(scale)}
    wanted = sorted((at for at in seen if at not in safe), key=lambda at: -observed_t[seen.index(at)])
    return sorted(safe | set(wanted[:max(budget - len(safe), 0)]))


@settings(deadline=None, max_examples=30)
@given(plan=tiny_plans, percent=st.integers(5, 95))
def test_a_generation_is_what_one_teacher_forced_pass_computes(plan, percent):
    model, quantizer, plan = tiny_transformer(DEPTH), tiny_tokenizer().quantize, _budgeted(plan, percent)
    logits = []
    result = generate(model, quantizer, LABELS, plan, Guidance(0.0, 0, 0.9),
                      SampledReadout(quantizer, image_uniforms(1, range(3), TINY_PYRAMID.length)),
                      on_logits=lambda k, logits_BlV: logits.append(logits_BlV))
    with torch.no_grad():
        forced = model(LABELS, quantizer.teacher_input(result.idx_BL), plan)
    assert (torch.cat(logits, dim=1) - forced).abs().max() < 1e-5


def test_eviction_changes_what_is_computed():
    model, full = tiny_transformer(DEPTH), DepthPlan.full(DEPTH, SCALES)
    x_BLv = torch.randn(1, TINY_PYRAMID.length - 1, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain, little, most = (model(LABELS[:1], x_BLv, plan) for plan in (
            full, _budgeted(full, 10), _budgeted(full, 60)))
    assert (plain - little).abs().mean() > (plain - most).abs().mean() > 0


@pytest.mark.parametrize("percent", [20, 50])
def test_an_image_depends_neither_on_its_batch_nor_on_its_shard(percent):
    model, quantizer = tiny_transformer(DEPTH), tiny_tokenizer().quantize
    plan = _budgeted(DepthPlan.bridge(DEPTH, 2, 2, SCALES), percent, ((0,), (1,), (1,), (0,)))

    def tokens(indices):
        readout = SampledReadout(quantizer, image_uniforms(7, indices, TINY_PYRAMID.length))
        labels = torch.tensor([i % 5 for i in indices])
        return generate(model, quantizer, labels, plan, Guidance(1.5, 20, 0.96), readout).idx_BL

    at_once = tokens(range(32))
    for size in (1, 7):
        assert torch.equal(torch.cat([tokens(range(32)[at:at + size]) for at in range(0, 32, size)]), at_once), size
    assert torch.equal(tokens([31, 3, 20]), at_once[[31, 3, 20]])


@settings(max_examples=200, deadline=None)
@given(data=st.data(), images=st.integers(1, 3), heads=st.integers(2, 5), percent=st.integers(1, 99),
       dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_counts_of_the_cost_model_are_the_caches_own(data, images, heads, percent, dtype):
    half = st.permutations(range(heads)).map(lambda order: tuple(sorted(order[:heads // 2])))
    contextual = data.draw(st.just(()) | st.lists(half, min_size=DEPTH, max_size=DEPTH).map(tuple))
    plan = _budgeted(data.draw(tiny_plans), percent, contextual)
    sides = data.draw(st.lists(st.integers(1, 5), min_size=SCALES, max_size=SCALES))
    pyramid, head_dim, live = Pyramid(tuple(sorted(sides))), 8, []
    cache, attention = BudgetCache(plan, pyramid), tiny_transformer(1).blocks[0].attn
    for k in pyramid.scales:
        entries = torch.randn(2 * images, heads, pyramid.tokens(k), head_dim)
        for layer in plan.layers(k):
            cache.attend(layer, k, entries, entries, entries.to(dtype), attention)
            assert cache.held_bytes == cache.live_bytes
        live.append(cache.live_bytes)
    rows = row_steps(passes(plan, pyramid), "lean", plan.kv, 2 * images, heads)
    counted = kv_bytes(rows, plan.kv, head_dim=head_dim, channel_bytes=2 * dtype.itemsize)
    assert counted.live == tuple(live)
    assert (max(counted.peak), counted.scratch) == (cache.peak_bytes, cache.scratch_bytes)
    assert cache.live_bytes == 0


def test_what_cannot_be():
    plan = _budgeted(DepthPlan.full(DEPTH, SCALES), 50)
    with pytest.raises(ValueError, match="^[^\n]*'reference'[^\n]*budgets[^\n]*$"):
        new_cache("reference", plan, TINY_PYRAMID)
    with pytest.raises(ValueError, match="^[^\n]*kind of heads[^\n]*$"):
        cache_steps(passes(plan, TINY_PYRAMID), "lean", plan.kv)
    for policy in ("reference", "nonsense"):
        with pytest.raises(ValueError, match=f"^[^\n]*{policy}[^\n]*$"):
            row_steps(passes(plan, TINY_PYRAMID), policy, plan.kv, 2, 2)
    with pytest.raises(ValueError, match="^[^\n]*one pass[^\n]*budgets by head[^\n]*$"):
        passes(plan, TINY_PYRAMID, prefilled=2)
    model, quantizer = tiny_transformer(DEPTH), tiny_tokenizer().quantize
    with pytest.raises(ValueError, match="^[^\n]*together[^\n]*budgets by head[^\n]*$"):
        generate(model, quantizer, LABELS, plan, Guidance(0.0, 0, 0.9), None,
                 drafted_BL=torch.zeros(3, TINY_PYRAMID.end(2), dtype=torch.int64))
