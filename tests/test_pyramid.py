import pytest
from hypothesis import given
from hypothesis import strategies as st

from varient.pyramid import VAR_256, Pyramid

sides = st.lists(st.integers(1, 9), min_size=1, max_size=8).map(sorted)


def test_var_has_680_tokens_and_13_percent_of_them_in_the_bridge_zone():
    assert VAR_256.length == 680
    assert [VAR_256.end(k) for k in VAR_256.scales] == [1, 5, 14, 30, 55, 91, 155, 255, 424, 680]


@given(sides)
def test_scales_tile_the_sequence(patch_nums):
    pyramid = Pyramid(tuple(patch_nums))
    assert pyramid.begin(1) == 0
    for k in pyramid.scales:
        assert pyramid.end(k) - pyramid.begin(k) == pyramid.tokens(k) == pyramid.side(k) ** 2
        assert pyramid.begin(k) == pyramid.end(k - 1)
    assert pyramid.end(pyramid.num_scales) == pyramid.length


@pytest.mark.parametrize("patch_nums", [(), (0, 1), (2, 1), (1, 3, 2)])
def test_sides_that_are_no_pyramid_are_refused(patch_nums):
    with pytest.raises(ValueError, match="patch_nums"):
        Pyramid(patch_nums)


@pytest.mark.parametrize("k", [0, 11])
def test_a_scale_outside_the_pyramid_is_refused(k):
    with pytest.raises(ValueError, match=f"scale {k} is outside 1..10"):
        VAR_256.side(k)
