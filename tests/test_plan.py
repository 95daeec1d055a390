from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from varient.plan import DepthPlan, equidistant_layers, nested_layers, prefix_layers, random_layers

depths = st.integers(2, 40).flatmap(lambda depth: st.tuples(st.just(depth), st.integers(2, depth)))


def test_eq2_gives_the_papers_sets():
    assert equidistant_layers(30, 2) == (0, 29)
    assert equidistant_layers(30, 4) == (0, 9, 19, 29)
    assert equidistant_layers(30, 8) == (0, 4, 8, 12, 16, 20, 24, 29)
    assert equidistant_layers(30, 16) == (0, *range(1, 30, 2))


def test_the_papers_sets_are_not_nested():
    assert not set(equidistant_layers(30, 8)) <= set(equidistant_layers(30, 16))
    assert not set(equidistant_layers(30, 4)) <= set(equidistant_layers(30, 8))


@given(depths)
def test_selections_keep_both_ends_and_have_d_layers(pair):
    depth, subnet_depth = pair
    ladder = (depth // 2, depth // 3)
    for layers in (equidistant_layers(depth, subnet_depth), nested_layers(depth, subnet_depth, ladder)):
        assert len(set(layers)) == len(layers) == subnet_depth
        assert layers[0] == 0 and layers[-1] == depth - 1
        assert list(layers) == sorted(layers)


@given(depths, st.integers(0, 2 ** 32))
def test_other_selections_have_d_layers_in_order(pair, seed):
    depth, subnet_depth = pair
    assert prefix_layers(depth, subnet_depth) == tuple(range(subnet_depth))
    layers = random_layers(depth, subnet_depth, seed)
    assert layers == random_layers(depth, subnet_depth, seed)
    assert len(set(layers)) == len(layers) == subnet_depth
    assert list(layers) == sorted(layers) and set(layers) <= set(range(depth))


def test_random_layers_are_those_of_their_seed_and_any_layer_may_be_among_them():
    assert random_layers(30, 8, 0) == (2, 3, 5, 7, 12, 15, 20, 25)
    drawn = [random_layers(30, 8, seed) for seed in range(100)]
    assert len(set(drawn)) == 100
    assert set().union(*drawn) == set(range(30))


@pytest.mark.parametrize("select", [prefix_layers, lambda depth, d: random_layers(depth, d, 0)])
def test_no_subnet_has_more_layers_than_the_network(select):
    with pytest.raises(ValueError, match="d = 7 is above the full depth D = 6"):
        select(6, 7)


def test_nested_selection_is_nested():
    family = [set(nested_layers(30, d, ladder=(16, 8, 4, 2))) for d in (2, 4, 8, 16)]
    assert all(small < large for small, large in pairwise(family))


def test_bridge_runs_all_layers_up_to_n_and_the_subnet_after():
    plan = DepthPlan.bridge(30, 8, 6, 10)
    assert all(plan.layers(k) == tuple(range(30)) for k in range(1, 7))
    assert all(plan.layers(k) == equidistant_layers(30, 8) for k in range(7, 11))
    assert plan.scales_of(4) == tuple(range(1, 11))
    assert plan.scales_of(5) == tuple(range(1, 7))


@given(depths, st.integers(1, 10))
def test_a_bridge_over_all_scales_and_a_subnet_of_all_layers_are_the_full_network(pair, num_scales):
    depth, subnet_depth = pair
    full = DepthPlan.full(depth, num_scales)
    assert DepthPlan.bridge(depth, subnet_depth, num_scales, num_scales) == full
    assert DepthPlan.bridge(depth, depth, 0, num_scales) == full
    assert full.is_full


def test_windows_of_table_1():
    early, mid, late = (DepthPlan.window(30, 16, first, last, 10) for first, last in ((1, 3), (4, 6), (7, 10)))
    assert [len(layers) for layers in early.layers_per_scale] == [16] * 3 + [30] * 7
    assert [len(layers) for layers in mid.layers_per_scale] == [30] * 3 + [16] * 3 + [30] * 4
    assert late == DepthPlan.bridge(30, 16, 6, 10)


@given(depths, st.integers(0, 6))
def test_stretches_visit_each_layer_once_in_order(pair, bridge):
    depth, subnet_depth = pair
    plan = DepthPlan.bridge(depth, subnet_depth, bridge, 6)
    visited = [layer for layers, _ in plan.stretches() for layer in layers]
    assert visited == [layer for layer in range(depth) if plan.scales_of(layer)]
    for layers, scales in plan.stretches():
        assert all(plan.scales_of(layer) == scales for layer in layers)


@pytest.mark.parametrize(("arguments", "message"), [
    ((30, 31, 6, 10), "d = 31 is above the full depth D = 30"),
    ((30, 1, 6, 10), "d >= 2"),
    ((30, 8, 11, 10), "N = 11 is outside 0..10"),
    ((30, 8, -1, 10), "N = -1 is outside 0..10"),
])
def test_impossible_bridges_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DepthPlan.bridge(*arguments)


@pytest.mark.parametrize(("layers", "message"), [
    ((), "at least one scale"),
    (((0,), ()), "scale 2 has no layer"),
    *((((0,), layers), rf"scale 2: layers \({layers[0]}, {layers[1]}\) are not ascending indices below 3")
      for layers in ((1, 0), (0, 0), (0, 3), (-1, 0))),
])
def test_malformed_plans_are_refused(layers, message):
    with pytest.raises(ValueError, match=message):
        DepthPlan(3, layers)
