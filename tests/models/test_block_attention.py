"""The blocks compute what one masked call over all tokens computes, and little of what the mask forbids."""

from functools import partial
from unittest import mock

import pytest
import torch
from conftest import ROOT, TINY_PYRAMID, assert_close, tiny_tokenizer, tiny_transformer
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from varient.config import TransformerSpec, load_config
from varient.models import transformer
from varient.models.block_attention import attend_in_ranges, query_ranges
from varient.models.transformer import VAR, initialize
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid

ONE_CALL = 2 ** 31
DEPTH = 6

scale_tokens = st.lists(st.integers(1, 40), min_size=1, max_size=8)
limits = st.integers(0, 160)
plans = st.lists(st.sets(st.integers(0, DEPTH - 1), min_size=1).map(lambda layers: tuple(sorted(layers))),
                 min_size=1, max_size=TINY_PYRAMID.num_scales).map(lambda layers: DepthPlan(DEPTH, tuple(layers)))


def _visible(tokens: list[int]) -> Tensor:
    """The scale mask, as the model had it before there were blocks."""
    scale_l = torch.arange(len(tokens)).repeat_interleave(torch.tensor(tokens))
    return scale_l[:, None] >= scale_l[None, :]


def _bounds(pyramid: Pyramid, scales: int) -> list[tuple[int, int, bool]]:
    blocks = query_ranges([pyramid.tokens(k) for k in range(1, scales + 1)])
    return [(begin, end, visible_lt is not None) for begin, end, visible_lt in blocks]


def test_the_papers_scales_are_one_masked_block_and_four_without_a_mask():
    assert _bounds(VAR_256, 10) == [(0, 91, True), (91, 155, False), (155, 255, False), (255, 424, False),
                                    (424, 680, False)]
    assert _bounds(VAR_256, 6) == [(0, 91, True)]


def test_the_digits_are_one_block():
    """Their training is then the same, bit for bit, as with one masked call."""
    pyramid = load_config(ROOT / "workflow/config/digits.yaml").pyramid
    assert _bounds(pyramid, 10) == [(0, 65, True)]
    tokens = [pyramid.tokens(k) for k in pyramid.scales]
    assert torch.equal(query_ranges(tokens)[0].visible_lt, _visible(tokens))


@given(scale_tokens, limits)
def test_blocks_cover_all_tokens_and_see_what_the_scale_mask_allows(tokens, limit):
    visible_ll, before = _visible(tokens), 0
    for begin, end, visible_lt in query_ranges(tokens, shared_tokens=limit):
        assert begin == before < end
        block_lt = torch.ones(end - begin, end, dtype=torch.bool) if visible_lt is None else visible_lt
        assert torch.equal(block_lt, visible_ll[begin:end, :end])
        assert not visible_ll[begin:end, end:].any()
        if visible_lt is not None:
            assert end - begin <= limit
            assert (~visible_lt).sum() < (end - begin) ** 2 / 2
        before = end
    assert before == sum(tokens)


@given(scale_tokens, limits, st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_attention_in_blocks_and_its_gradients_are_those_of_one_masked_call(tokens, limit, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(4, 2, 2, sum(tokens), 8, generator=generator)
    q, k, v = (part.clone().requires_grad_() for part in draw[:3])
    blocks = query_ranges(tokens, shared_tokens=limit)
    found = attend_in_ranges(F.scaled_dot_product_attention, q, k, v, blocks)
    wanted = F.scaled_dot_product_attention(q, k, v, _visible(tokens))
    assert_close(found, wanted.detach(), 1e-5)
    pairs = zip(torch.autograd.grad(found, (q, k, v), draw[3]), torch.autograd.grad(wanted, (q, k, v), draw[3]),
                strict=True)
    for ours, theirs in pairs:
        assert_close(ours, theirs, 1e-5)


def _logits_and_gradients(model: VAR, plan: DepthPlan, limit: int) -> tuple[Tensor, dict[str, Tensor]]:
    quantizer = tiny_tokenizer().quantize
    torch.manual_seed(5)
    x_BLv = quantizer.teacher_input(torch.randint(32, (2, TINY_PYRAMID.length)))
    model.zero_grad()
    with mock.patch.object(transformer, "query_ranges", partial(query_ranges, shared_tokens=limit)):
        logits_BLV = model(torch.arange(2), x_BLv, plan)
    logits_BLV.square().mean().backward()
    return logits_BLV.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@given(plans, st.integers(0, 20))
@settings(deadline=None, max_examples=40)
def test_the_network_and_its_gradients_do_not_depend_on_the_blocks(plan, limit):
    model = tiny_transformer(DEPTH)
    logits, gradients = _logits_and_gradients(model, plan, limit)
    wanted_logits, wanted = _logits_and_gradients(model, plan, ONE_CALL)
    assert_close(logits, wanted_logits, 1e-5)
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_close(gradients[name], gradient, 1e-5)


def _watched(plan: DepthPlan) -> tuple[list[tuple[int, int, bool]], Tensor, VAR]:
    """(queries, keys, masked) of each attention call of a small network over the paper's scales, and its logits."""
    torch.manual_seed(0)
    model = VAR(TransformerSpec(depth=plan.depth, embed_dim=16, num_heads=2), VAR_256, num_classes=3, vocab_size=32,
                z_channels=8).eval()
    initialize(model, gamma=1.0)
    attention, calls = F.scaled_dot_product_attention, []

    def watch(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, **others: object) -> Tensor:
        calls.append((q.shape[2], k.shape[2], attn_mask is not None))
        return attention(q, k, v, attn_mask=attn_mask, **others)

    x_BLv = torch.randn(1, VAR_256.length - 1, 8, generator=torch.Generator().manual_seed(1))
    with mock.patch.object(F, "scaled_dot_product_attention", watch):
        logits_BLV = model(torch.arange(1), x_BLv, plan)
    return calls, logits_BLV, model


_BRIDGE = [(91, 91, True)]
_ALL = [*_BRIDGE, (64, 155, False), (100, 255, False), (169, 424, False), (256, 680, False)]


def test_full_only_layers_see_bridge_tokens_alone_and_no_layer_what_comes_later():
    plan = DepthPlan.bridge(5, 2, 6, 10)
    calls, *_ = _watched(plan)
    assert calls == [*_ALL, *_BRIDGE, *_BRIDGE, *_BRIDGE, *_ALL]
    allowed = _visible([VAR_256.tokens(k) for k in VAR_256.scales]).sum().item()
    assert allowed <= sum(queries * keys for queries, keys, _ in _ALL) < 1.011 * allowed


@pytest.mark.parametrize("plan", [DepthPlan.full(4, 10), DepthPlan.bridge(4, 2, 6, 10), DepthPlan.bridge(4, 2, 0, 10),
                                  DepthPlan.window(4, 3, 4, 6, 10), DepthPlan.full(4, 8)])
def test_the_papers_scales_in_blocks_are_those_in_one_call(plan):
    calls, found, _ = _watched(plan)
    with mock.patch.object(transformer, "query_ranges", partial(query_ranges, shared_tokens=ONE_CALL)):
        dense_calls, wanted, _ = _watched(plan)
    assert len(calls) > len(dense_calls)
    assert_close(found, wanted.detach(), 1e-6 * wanted.abs().max().item())


def test_half_precision_reaches_the_kernel_as_before():
    """Normalised queries and keys are float32; the blocks get them in the dtype of the weights."""
    model, attention, dtypes = tiny_transformer(DEPTH).bfloat16(), F.scaled_dot_product_attention, set()

    def watch(*q_k_v: Tensor, **others: object) -> Tensor:
        dtypes.update(tensor.dtype for tensor in q_k_v)
        return attention(*q_k_v, **others)

    x_BLv = torch.randn(2, TINY_PYRAMID.length - 1, 8, generator=torch.Generator().manual_seed(1))
    dense = model(torch.arange(2), x_BLv)
    with (mock.patch.object(transformer, "query_ranges", partial(query_ranges, shared_tokens=0)),
          mock.patch.object(F, "scaled_dot_product_attention", watch)):
        found = model(torch.arange(2), x_BLv)
    assert dtypes == {torch.bfloat16}
    assert 8 < dense.abs().max() < 16
    assert_close(found, dense.detach(), 2 * 2 ** -4)  # two units in the last place of a bfloat16 in [8, 16)

