"""Windows and packed entries: what is computed with the cache is what one teacher-forced pass computes."""

from dataclasses import astuple, replace
from functools import partial

import pytest
import torch
from allocator_fixtures import allocator_peak
from conftest import TINY_PYRAMID, tiny_tokenizer, tiny_transformer
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from varient.cost.kv_accounting import cache_steps, kv_bytes, passes, row_steps
from varient.kv_scheme import BITS, KVScheme, Window
from varient.models.kv_cache import LeanCache, new_cache
from varient.models.scheme_cache import SchemeCache
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms

DEPTH, LABELS = 6, torch.tensor([1, 3, 0])
TINY_SCALES = TINY_PYRAMID.num_scales


def any_windows(num_scales, depth):
    """The same in all layers, or wider in some."""
    same = st.builds(Window, st.integers(1, num_scales - 1), st.integers(0, num_scales))
    wide = st.sets(st.integers(0, depth - 1)).map(tuple)
    return same | st.tuples(same, wide).map(lambda drawn: Window(
        *astuple(drawn[0])[:2], num_scales - 1, drawn[1]) if drawn[0].previous < num_scales - 1 else drawn[0])


same_windows = st.builds(Window, st.integers(1, TINY_SCALES - 1), st.integers(0, TINY_SCALES))
windows = any_windows(TINY_SCALES, DEPTH)
layers = st.sets(st.integers(0, DEPTH - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen)))
tiny_plans = st.lists(layers, min_size=TINY_SCALES, max_size=TINY_SCALES).map(
    lambda chosen: DepthPlan(DEPTH, tuple(chosen)))


def _generated(model, quantizer, plan, labels=LABELS, indices=range(3)):
    """What is generated without guidance, and the logits of all scales (B, L, V)."""
    logits = []
    result = generate(model, quantizer, labels, plan, Guidance(0.0, 0, 0.9),
                      SampledReadout(quantizer, image_uniforms(1, indices, TINY_PYRAMID.length)),
                      on_logits=lambda k, logits_BlV: logits.append(logits_BlV))
    return result, torch.cat(logits, dim=1)


def _both_ways(plan):
    """Logits of a generation, and those of one teacher-forced pass over its tokens."""
    model, quantizer = tiny_transformer(DEPTH), tiny_tokenizer().quantize
    result, cached = _generated(model, quantizer, plan)
    with torch.no_grad():
        return cached, model(LABELS, quantizer.teacher_input(result.idx_BL), plan)


@settings(deadline=None, max_examples=30)
@given(plan=tiny_plans, window=windows)
def test_a_window_hides_the_same_with_and_without_the_cache(plan, window):
    cached, forced = _both_ways(replace(plan, kv=KVScheme(window)))
    assert (cached - forced).abs().max() < 1e-5


@settings(deadline=None, max_examples=30)
@given(plan=tiny_plans, window=st.none() | windows, bits=st.sampled_from(BITS))
def test_packed_entries_are_seen_as_stored_with_and_without_the_cache(plan, window, bits):
    """Almost: float32 noise may move an integer by one, which is far less than packing all of them does."""
    kv = KVScheme(window, bits)
    cached, forced = _both_ways(replace(plan, kv=kv))
    unpacked = _both_ways(replace(plan, kv=KVScheme(window)))[1]
    assert (cached - forced).abs().mean() < 0.1 * (unpacked - forced).abs().mean() + 1e-5


def test_the_fewer_bits_the_further_the_logits_move():
    full, logits = DepthPlan.full(DEPTH, TINY_SCALES), {}
    model, quantizer = tiny_transformer(DEPTH), tiny_tokenizer().quantize
    tokens_BL = torch.arange(3 * TINY_PYRAMID.length).view(3, -1) % 32
    for bits in (None, *BITS):
        with torch.no_grad():
            logits[bits] = model(LABELS, quantizer.teacher_input(tokens_BL), replace(full, kv=KVScheme(bits=bits)))
    moved = [(logits[bits] - logits[None]).abs().mean().item() for bits in BITS]
    assert 1e-4 < moved[0] < moved[1] / 2 < moved[2] / 4


@settings(deadline=None, max_examples=30)
@given(window=same_windows, scale=st.integers(2, TINY_SCALES), seed=st.integers(0, 99))
def test_a_scale_that_is_not_seen_has_no_influence(window, scale, seed):
    """In one layer, other input at a scale changes the logits of exactly the scales that see it."""
    model, kv = tiny_transformer(1), KVScheme(window)
    plan = DepthPlan(1, ((0,),) * TINY_SCALES, kv)
    x_BLv = torch.randn(1, TINY_PYRAMID.length - 1, 8, generator=torch.Generator().manual_seed(seed))
    others_BLv = x_BLv.clone()
    others_BLv[:, TINY_PYRAMID.begin(scale) - 1:TINY_PYRAMID.end(scale) - 1] += 1.0  # scale 1 enters as the class
    with torch.no_grad():
        moved_L = (model(LABELS[:1], x_BLv, plan) - model(LABELS[:1], others_BLv, plan)).abs().sum(-1)[0]
    for k in TINY_PYRAMID.scales:
        changed = moved_L[TINY_PYRAMID.begin(k):TINY_PYRAMID.end(k)]
        assert (changed > 0).all() if kv.sees(k, scale) else (changed == 0).all()


@pytest.mark.parametrize("policy", ["lean", "reference"])
def test_a_window_over_all_scales_is_none(policy):
    model, quantizer = tiny_transformer(DEPTH), tiny_tokenizer().quantize
    plan = DepthPlan.bridge(DEPTH, 3, 2, TINY_SCALES)
    readout = SampledReadout(quantizer, image_uniforms(1, range(3), TINY_PYRAMID.length))
    all_of_them = replace(plan, kv=KVScheme(Window(TINY_SCALES - 1)))
    found = generate(model, quantizer, LABELS, all_of_them, Guidance(), readout)
    wanted = generate(model, quantizer, LABELS, plan, Guidance(), readout, cache_policy=policy)
    assert isinstance(found.cache, SchemeCache) and not isinstance(wanted.cache, SchemeCache)
    assert torch.equal(found.idx_BL, wanted.idx_BL)
    assert torch.equal(found.f_hat_BCHW, wanted.f_hat_BCHW)


@pytest.mark.parametrize("kv", [KVScheme(Window(1)), KVScheme(Window(2, 0)), KVScheme(Window(1, 1, 3, (0, 4))),
                                *(KVScheme(bits=bits) for bits in BITS),
                                KVScheme(Window(1), 4), KVScheme(shared_map=True), KVScheme(last_guided=3),
                                KVScheme(Window(2), 6, shared_map=True, last_guided=2)])
def test_an_image_depends_neither_on_its_batch_nor_on_its_shard(kv):
    model, quantizer = tiny_transformer(DEPTH), tiny_tokenizer().quantize
    plan = DepthPlan.bridge(DEPTH, 3, 2, TINY_SCALES)

    def tokens(indices):
        readout = SampledReadout(quantizer, image_uniforms(7, indices, TINY_PYRAMID.length))
        labels = torch.tensor([i % 5 for i in indices])
        return generate(model, quantizer, labels, replace(plan, kv=kv), Guidance(1.5, 20, 0.96), readout).idx_BL

    at_once = tokens(range(32))
    for size in (1, 7):
        assert torch.equal(torch.cat([tokens(range(32)[at:at + size]) for at in range(0, 32, size)]), at_once), size
    assert torch.equal(tokens([31, 3, 20]), at_once[[31, 3, 20]])


# -- memory ------------------------------------------------------------------------------------------------------------

@st.composite
def any_plans(draw):
    """Any plan with any window, any form of its entries and any guidance."""
    depth, num_scales = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    layers = st.sets(st.integers(0, depth - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen)))
    window = draw(st.none() | any_windows(num_scales, depth))
    kv = draw(st.builds(KVScheme, st.just(window), st.sampled_from((*BITS, None)), st.booleans(),
                        st.none() | st.integers(2, num_scales - 1) if num_scales > 2 else st.none()))
    assume(not kv.is_plain)
    plan = DepthPlan(depth, tuple(draw(st.lists(layers, min_size=num_scales, max_size=num_scales))), kv)
    sides = draw(st.lists(st.integers(1, 4), min_size=num_scales, max_size=num_scales))
    return plan, Pyramid(tuple(sorted(sides)))


@settings(max_examples=200, deadline=None)
@given(planned=any_plans(), images=st.integers(1, 3), heads=st.integers(1, 3),
       dtype=st.sampled_from([torch.float16, torch.float32]))
def test_counts_of_the_cost_model_are_the_caches_own(planned, images, heads, dtype):
    (plan, pyramid), rows, head_dim = planned, 2 * images, 8
    cache, live = SchemeCache(plan, pyramid), []
    for k in pyramid.scales:
        key, value = _new_entries(plan.kv, k, (rows, heads, pyramid.tokens(k), head_dim))
        for layer in plan.layers(k):
            seen, _ = cache.extend(layer, k, key, value.to(dtype))
            assert seen.shape[2] == sum(pyramid.tokens(s) for s in plan.scales_of(layer)
                                        if plan.kv.of_layer(layer).sees(k, s))
            assert cache.held_bytes == cache.live_bytes
        live.append(cache.live_bytes)
    counted = kv_bytes(row_steps(passes(plan, pyramid), "lean", plan.kv, rows, heads), plan.kv, head_dim=head_dim,
                       channel_bytes=2 * dtype.itemsize)
    assert counted.live == tuple(live)
    assert (max(counted.peak), counted.scratch) == (cache.peak_bytes, cache.scratch_bytes)
    assert cache.live_bytes == 0


def _new_entries(kv, k, shape):
    """Keys and values of a scale as `VAR.scale_step` hands them to the cache; ``shape`` has both halves of guidance."""
    rows, *rest = shape
    if not kv.guided(k):
        return torch.zeros(rows // 2, *rest), torch.zeros(rows // 2, *rest)
    if kv.shared_map:
        heads, tokens, channels = rest
        return torch.zeros(rows // 2, *rest), torch.zeros(rows // 2, heads, tokens, 2, channels)
    return torch.zeros(shape), torch.zeros(shape)


@pytest.mark.parametrize("kv", [KVScheme(Window(1)), KVScheme(Window(2, 0)), KVScheme(shared_map=True),
                                KVScheme(last_guided=9), KVScheme(Window(1), shared_map=True, last_guided=9)])
def test_the_allocator_sees_what_the_cache_counts(kv):
    """Entries, those of one layer joined for the kernel, and nothing else."""
    plan, shape = replace(DepthPlan.full(6, 10), kv=kv), (8, 4, 64)
    cache = SchemeCache(plan, VAR_256)
    peak = allocator_peak(cache, plan, VAR_256, shape, partial(_new_entries, kv))
    assert peak == cache.peak_bytes + cache.scratch_bytes


def test_packed_entries_take_their_bytes_and_one_layer_unpacked():
    """int8 in place of float32, at the allocator: the peak is that of the entries, and of a few layers' temporaries."""
    full = DepthPlan.full(30, 10)
    packed, lean = SchemeCache(replace(full, kv=KVScheme(bits=8)), VAR_256), LeanCache(full, VAR_256)
    peaks = [allocator_peak(cache, full, VAR_256, (2, 4, 64)) for cache in (packed, lean)]
    assert packed.peak_bytes == pytest.approx(0.25 * lean.peak_bytes, rel=0.04)
    assert packed.peak_bytes + packed.scratch_bytes <= peaks[0] < 0.4 * peaks[1]


# -- what does not fit -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kv", [KVScheme(Window(1)), KVScheme(bits=8), KVScheme(shared_map=True),
                                KVScheme(last_guided=2)])
def test_the_reference_cache_keeps_all_as_computed(kv):
    with pytest.raises(ValueError, match="'reference'.*need 'lean'"):
        new_cache("reference", replace(DepthPlan.full(2, 5), kv=kv), TINY_PYRAMID)
    with pytest.raises(ValueError, match="need the lean one"):
        cache_steps(passes(DepthPlan.full(2, 5), TINY_PYRAMID), "reference", kv)


def test_scales_that_enter_together_have_no_window():
    model, quantizer = tiny_transformer(2), tiny_tokenizer().quantize
    plan = replace(DepthPlan.full(2, TINY_SCALES), kv=KVScheme(Window(1)))
    drafted_BL = torch.zeros(1, TINY_PYRAMID.end(2), dtype=torch.int64)
    readout = SampledReadout(quantizer, image_uniforms(0, [0], TINY_PYRAMID.length))
    with pytest.raises(ValueError, match="window"):
        generate(model, quantizer, torch.tensor([0]), plan, Guidance(), readout, drafted_BL=drafted_BL)
    with pytest.raises(ValueError, match="window"):
        passes(plan, TINY_PYRAMID, prefilled=3)


def test_scales_that_enter_together_are_guided_alike():
    model, quantizer = tiny_transformer(2), tiny_tokenizer().quantize
    plan, guidance = replace(DepthPlan.full(2, TINY_SCALES), kv=KVScheme(last_guided=3)), Guidance()
    drafted_BL = torch.zeros(1, TINY_PYRAMID.end(2), dtype=torch.int64)
    readout = SampledReadout(quantizer, image_uniforms(0, [0], TINY_PYRAMID.length))
    with pytest.raises(ValueError, match="an end of guidance"):
        generate(model, quantizer, torch.tensor([0]), plan, guidance, readout, drafted_BL=drafted_BL)
    with pytest.raises(ValueError, match="end of guidance"):
        passes(plan, TINY_PYRAMID, prefilled=3)
    shared = replace(plan, kv=KVScheme(shared_map=True))
    tokens_BL = generate(model, quantizer, torch.tensor([0]), shared, guidance, readout).idx_BL
    later = generate(model, quantizer, torch.tensor([0]), shared, guidance, readout,
                     drafted_BL=tokens_BL[:, :TINY_PYRAMID.end(2)])
    assert torch.equal(later.idx_BL, tokens_BL)
