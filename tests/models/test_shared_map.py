"""Guidance by one attention map, and guidance that ends: what is generated with the cache is what one pass over all
tokens without a cache computes."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY_PYRAMID, tiny_tokenizer, tiny_transformer
from hypothesis import given, settings
from hypothesis import strategies as st

from varient.kv_scheme import BITS, KVScheme, Window
from varient.models.kv_packing import as_stored
from varient.plan import DepthPlan
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms

DEPTH, SCALES, LABELS, CFG = 6, TINY_PYRAMID.num_scales, torch.tensor([1, 3, 0]), 1.5
GUIDED = Guidance(CFG, 20, 0.9)
FULL = DepthPlan.full(DEPTH, SCALES)
windows = st.builds(Window, st.integers(1, SCALES - 1), st.integers(0, SCALES))
layers = st.sets(st.integers(0, DEPTH - 1), min_size=1).map(lambda chosen: tuple(sorted(chosen)))
plans = st.lists(layers, min_size=SCALES, max_size=SCALES).map(lambda chosen: DepthPlan(DEPTH, tuple(chosen)))
ends = st.none() | st.integers(2, SCALES - 1)


def _generated(plan, guidance=GUIDED, labels=LABELS):
    """Tokens (B, L), and guided logits (B, L, V)."""
    model, quantizer, logits = tiny_transformer(DEPTH), tiny_tokenizer().quantize, []
    readout = SampledReadout(quantizer, image_uniforms(1, range(len(labels)), TINY_PYRAMID.length))
    found = generate(model, quantizer, labels, plan, guidance, readout,
                     on_logits=lambda k, logits_BlV: logits.append(logits_BlV))
    return found.idx_BL, torch.cat(logits, dim=1)


def _uncached(plan, idx_BL):
    """Guided logits (B, L, V) of given tokens: both halves in one pass over all tokens, each map written out."""
    model, quantizer, kv = tiny_transformer(DEPTH), tiny_tokenizer().quantize, plan.kv
    scale_L = model.scale_of_token()
    sees_KK = torch.tensor([[kv.sees(k, earlier) for earlier in TINY_PYRAMID.scales] for k in TINY_PYRAMID.scales])
    class_RC = model.condition(torch.cat([LABELS, torch.full_like(LABELS, model.num_classes)]))
    x_BLv = quantizer.teacher_input(idx_BL)
    x_RLC = torch.cat([model.embed_start(class_RC),
                       (model.word_embed(x_BLv) + model._positions(2, SCALES)).repeat(2, 1, 1)], dim=1)
    for layer in filter(plan.scales_of, range(DEPTH)):
        members_l = torch.isin(scale_L, torch.tensor(plan.scales_of(layer))).nonzero().squeeze(1)
        sees_ll = sees_KK[scale_L[members_l] - 1][:, scale_L[members_l] - 1]

        def attend(layer, q, k, v, sees_ll=sees_ll):
            if kv.bits:
                k, v = as_stored(k, kv.bits), as_stored(v, kv.bits)
            logits_RHll = model.blocks[layer].attn.softmax_scale * q @ k.transpose(2, 3)
            map_RHll = logits_RHll.masked_fill(~sees_ll, -torch.inf).softmax(-1)
            if kv.shared_map:
                map_RHll = map_RHll[:3].repeat(2, 1, 1, 1)
            return map_RHll @ v

        x_RLC[:, members_l] = model.blocks[layer](x_RLC[:, members_l], model.modulation(class_RC, [layer])[layer],
                                                  attend)
    conditional_BLV, unconditional_BLV = model.logits(x_RLC, class_RC).chunk(2)
    weight_L = torch.tensor([CFG * (k - 1) / (SCALES - 1) if kv.last_guided is None or k <= kv.last_guided else 0.0
                             for k in scale_L.tolist()]).unsqueeze(-1)
    return (1 + weight_L) * conditional_BLV - weight_L * unconditional_BLV


@settings(deadline=None, max_examples=40)
@given(plan=plans, window=st.none() | windows, shared_map=st.booleans(), last_guided=ends)
def test_guidance_is_the_same_with_and_without_the_cache(plan, window, shared_map, last_guided):
    plan = replace(plan, kv=KVScheme(window, None, shared_map, last_guided))
    idx_BL, cached = _generated(plan)
    with torch.no_grad():
        # Half of what guidance, 1 + w times one half less w times the other, makes of 1e-5 in the logits of each.
        assert (cached - _uncached(plan, idx_BL)).abs().max() < 2e-5


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shared_map", [False, True])
def test_packed_entries_are_those_of_both_halves(bits, shared_map):
    """Almost: float32 noise may move an integer by one, which is far less than packing all of them does."""
    plan = replace(FULL, kv=KVScheme(Window(2), bits, shared_map, 3))
    idx_BL, cached = _generated(plan)
    with torch.no_grad():
        uncached, unpacked = (_uncached(replace(plan, kv=replace(plan.kv, bits=b)), idx_BL) for b in (bits, None))
    assert (cached - uncached).abs().mean() < 0.1 * (unpacked - uncached).abs().mean() + 1e-5


def test_a_shared_map_is_another_system():
    """At scale 1 the unconditional half has no weight, so that its logits are those of plain guidance."""
    shared, plain = (_generated(replace(FULL, kv=kv))[1] for kv in (KVScheme(shared_map=True), KVScheme()))
    assert torch.equal(shared[:, :1], plain[:, :1])
    assert (shared[:, 1:2] - plain[:, 1:2]).abs().max() > 1e-3


@pytest.mark.parametrize("last", [2, 3, 4])
def test_up_to_its_end_guidance_is_what_it_was(last):
    """To the bit; later logits are the conditional ones of what was drawn."""
    plan, end = replace(FULL, kv=KVScheme(last_guided=last)), TINY_PYRAMID.end(last)
    (short_BL, short), (plain_BL, plain) = _generated(plan), _generated(FULL)
    assert torch.equal(short[:, :end], plain[:, :end]) and torch.equal(short_BL[:, :end], plain_BL[:, :end])
    assert not torch.equal(short[:, end:], plain[:, end:])
    model, quantizer = tiny_transformer(DEPTH), tiny_tokenizer().quantize
    with torch.no_grad():
        conditional = model(LABELS, quantizer.teacher_input(short_BL))
    assert (short[:, end:] - conditional[:, end:]).abs().max() < 1e-5


@pytest.mark.parametrize("kv", [KVScheme(shared_map=True), KVScheme(last_guided=3)])
def test_what_says_how_guidance_runs_needs_some(kv):
    with pytest.raises(ValueError, match=r"^[^\n]*cfg = 0[^\n]*$"):
        _generated(replace(FULL, kv=kv), Guidance(0.0, 20, 0.9))
