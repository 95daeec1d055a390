"""Which scales a scale sees, and how many bytes a token takes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from varient.kv_scheme import BITS, KVScheme, Window

windows = st.none() | st.builds(Window, st.integers(1, 9), st.integers(0, 10))


def test_a_window_shows_the_coarsest_scales_and_those_just_before():
    seen = {k: [s for s in range(1, 11) if KVScheme(Window(2)).sees(k, s)] for k in (1, 2, 5, 10)}
    assert seen == {1: [1], 2: [1, 2], 5: [1, 2, 3, 4, 5], 10: [1, 2, 8, 9, 10]}
    assert [s for s in range(1, 11) if KVScheme(Window(1, 0)).sees(10, s)] == [9, 10]
    assert [s for s in range(1, 11) if KVScheme().sees(7, s)] == list(range(1, 8))


def test_a_wide_layer_has_the_wider_window():
    kv = KVScheme(Window(1, 0, 3, (2, 5)), 8)
    assert kv.of_layer(0) == kv.of_layer(3) == KVScheme(Window(1, 0), 8)
    assert kv.of_layer(2) == kv.of_layer(5) == KVScheme(Window(3, 0), 8)
    assert kv.with_wide_layers([0]).of_layer(2) == KVScheme(Window(1, 0), 8)
    assert KVScheme(bits=4).of_layer(3) == KVScheme(bits=4).with_wide_layers([3]) == KVScheme(bits=4)


@given(windows, st.sets(st.integers(1, 10), min_size=1))
def test_what_a_later_scale_still_needs_is_what_a_scale_sees(window, scales):
    """So a cache that frees entries after their last reader holds what each scale sees, and no scale needs a mask."""
    kv = KVScheme(window)
    for k in scales:
        held = {s for s in scales if s < k and kv.last_reader(s, scales) >= k}
        assert held == {s for s in scales if s < k and kv.sees(k, s)}


@pytest.mark.parametrize(("bits", "token_bytes"), [(None, 256), (8, 132), (6, 100), (4, 68)])
def test_bytes_of_a_token(bits, token_bytes):
    """One head of 64 channels: key and value in 16 bits, or packed with a factor of 2 bytes each."""
    assert KVScheme(bits=bits).token_bytes(1, 64, 4) == token_bytes


@pytest.mark.parametrize(("make", "named"), [
    (lambda: Window(0), "W = 0"), (lambda: Window(-1), "W = -1"), (lambda: Window(1, -1), "C = -1"),
    (lambda: Window(2, 2, 2), "W = 2 to 2"), (lambda: Window(0, 2, 2), "W = 0"),
    (lambda: KVScheme(Window(1, 2, 5)).check_fits(5), "W = 5"),
    (lambda: KVScheme(bits=3), "3 bits"), (lambda: KVScheme(bits=0), "0 bits"), (lambda: KVScheme(bits=16), "16 bits"),
    (lambda: KVScheme(Window(5)).check_fits(5), "W = 5"), (lambda: KVScheme(Window(1, 6)).check_fits(5), "C = 6"),
    *((lambda last=last: KVScheme(last_guided=last).check_fits(5), f"first {last}") for last in (0, 1, 5)),
    (lambda: KVScheme(bits=6).check_heads(2, 10), "6 bits"), (lambda: KVScheme(bits=4).check_heads(2, 7), "4 bits")])
def test_what_no_cache_keeps_is_refused_in_a_line(make, named):
    with pytest.raises(ValueError, match=f"^[^\n]*{re.escape(named)}[^\n]*$"):
        make()


@pytest.mark.parametrize("bits", BITS)
def test_what_fits_is_not_refused(bits):
    for last_guided in (None, 2, 4):
        KVScheme(Window(4, 5), bits, last_guided=last_guided).check_fits(5)
    KVScheme(Window(4, 5), bits).check_heads(2, 8)
