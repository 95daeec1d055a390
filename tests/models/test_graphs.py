"""Calls over static buffers.  Here no graph is captured: tests/nullgpu/test_null_graphs.py does that."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY_PYRAMID, tiny_tokenizer, tiny_transformer

from varient.models.float32 import keep_float32
from varient.models.graphs import Replays
from varient.plan import DepthPlan
from varient.sampling import Guidance, NotFiniteError
from varient.systems.pipeline import Pipeline

CPU = torch.device("cpu")
PLANS = (DepthPlan.full(6, 5), DepthPlan.bridge(6, 3, 2, 5), DepthPlan.window(6, 3, 1, 2, 5))


def test_the_function_always_gets_the_same_buffers():
    replays, seen = Replays(CPU), []

    def add(a, b):
        seen.append((a.data_ptr(), b.data_ptr()))
        return a + b, a - b

    one, two = torch.tensor([1, 2]), torch.tensor([10, 20])
    for left, right in ((one, two), (two, one)):
        total, difference = replays("add", add, left, right)
        assert torch.equal(total, left + right) and torch.equal(difference, left - right)
    assert len(set(seen)) == 1 and one.data_ptr() not in seen[0] and len(replays) == 1
    assert torch.equal(one, torch.tensor([1, 2])) and torch.equal(two, torch.tensor([10, 20]))


def test_another_key_shape_or_dtype_has_buffers_of_its_own():
    replays = Replays(CPU)
    for key, value in (("a", torch.ones(2)), ("b", torch.ones(2)), ("a", torch.ones(3)), ("a", torch.ones(2).int()),
                       ("a", torch.zeros(2))):
        assert torch.equal(replays(key, lambda x: (x + 1,), value)[0], value + 1)
    assert len(replays) == 4


@pytest.fixture
def pipelines():
    """A pipeline that launches kernel by kernel, and the same over static buffers."""
    model, tokenizer, guidance = tiny_transformer(), tiny_tokenizer(), Guidance(1.5, 20, 0.96)
    return tuple(Pipeline(model, tokenizer, PLANS[0], guidance, 4, replays) for replays in (None, Replays(CPU)))


def _labels(indices):
    return [index % 5 for index in indices]


@pytest.mark.parametrize("policy", ["lean", "reference"])
def test_a_generation_over_static_buffers_has_the_same_bits(pipelines, policy):
    """Also in a batch of another size, such as the last of a shard, and after one: buffers keep nothing."""
    plain, static = pipelines
    for plan in PLANS:
        for indices in (range(4), range(4, 8), range(8, 11), range(4)):
            expected, found = (replace(pipeline, plan=plan).latents(_labels(indices), indices, 7, cache_policy=policy)
                               for pipeline in (plain, static))
            assert torch.equal(found, expected)
    assert len(static.replays) == 2 * len(PLANS)


def test_a_watched_cache_is_of_a_generation_that_runs(pipelines):
    plain, static = pipelines
    seen = []
    for pipeline in (plain, static):
        pipeline.latents([1, 2], range(2), 0, on_cache=seen.append)
    assert len(static.replays) == 0 and seen[0].peak_bytes == seen[1].peak_bytes > 0


def test_watched_scales_are_of_a_generation_that_runs(pipelines):
    plain, static = pipelines
    seen = []
    for pipeline in (plain, static):
        pipeline.latents([1, 2], range(2), 0, on_scale=seen.append)
    assert len(static.replays) == 0 and seen == 2 * [*plain.told_scales] and not static.told_scales


def test_labels_are_checked_and_values_that_are_not_finite_are_found(pipelines):
    _, static = pipelines
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.4"):
        static.latents([5], range(1), 0)
    static.latents([4], range(1), 0)
    static.model.head.bias.data[0] = torch.nan
    with pytest.raises(NotFiniteError, match="VAR computes values that are not finite"):
        static.latents([4], range(1), 0)


@pytest.mark.gpu
def test_a_graph_draws_what_single_launches_draw():
    device = torch.device("cuda", 0)
    keep_float32()
    for dtype in (torch.float32, torch.float16):
        plain = Pipeline(tiny_transformer().requires_grad_(False).to(device, dtype), tiny_tokenizer().to(device),
                         PLANS[1], Guidance(1.5, 20, 0.96), 4)
        static = replace(plain, replays=Replays(device))
        for indices in (range(4), range(4, 8), range(8, 11), range(4)):
            expected, found = (each.latents(_labels(indices), indices, 7) for each in (plain, static))
            assert torch.equal(found, expected)
        assert len(static.replays) == 2


def test_uniforms_are_those_of_the_images():
    """Buffers hold them, not the seed: the same graph serves all batches."""
    replays = Replays(CPU)
    pipeline = Pipeline(tiny_transformer(), tiny_tokenizer(), PLANS[1], Guidance(), 4, replays)
    first, other_seed, other_images = (pipeline.latents([3, 1], indices, seed)
                                       for indices, seed in ((range(2), 0), (range(2), 1), (range(2, 4), 0)))
    assert not torch.equal(first, other_seed) and not torch.equal(first, other_images)
    assert len(replays) == 1 and first.shape[-1] == TINY_PYRAMID.patch_nums[-1]
