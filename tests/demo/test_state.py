"""Values of controls: what they mean, and what is told beside the wrong ones."""

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from varient.config import load_config
from varient.demo.state import WrongValues, begin, read, stored_bits
from varient.sampling import Guidance
from varient.systems.ids import VarId

DIGITS, SMOKE = (load_config(ROOT / f"workflow/config/{name}.yaml") for name in ("digits", "smoke"))
START = begin(DIGITS, 4)


def test_it_begins_with_the_subnet_beside_the_full_network():
    state = read(START, DIGITS)
    assert [str(side.system) for side in state.sides] == ["free-d4-n6", "free-d30-n6"]
    assert state.guidance == Guidance(1.5, 0, 0.96, (1.0,) * 10) and state.seed == DIGITS.seed
    assert read(begin(SMOKE, 2), SMOKE).sides[1].system.depth == 6


@pytest.mark.parametrize(("changed", "system"), [
    ({"a layers": "prefix"}, VarId("free", 4, bridge=6, prefix=True)),
    ({"a layers": "random", "a N": 0}, VarId("free", 4, bridge=0, random=0)),
    ({"a window": 3}, VarId("free", 4, bridge=6, previous=3, coarsest=2)),
    ({"a window": 1, "a N": 1, "a bits": 8}, VarId("free", 4, bridge=1, previous=1, coarsest=1, kv_bits=8)),
    ({"a d": "16"}, VarId("free", 16, bridge=6)),
])
def test_controls_make_a_plan(changed, system):
    side = read(START | changed, DIGITS).sides[0]
    assert side.system == system
    system.plan(30, 10, 6)  # fits the network


@pytest.mark.parametrize(("control", "value", "bounds"), [
    ("class", 10, "0 to 9"), ("class", -1, "0 to 9"), ("seed", 2 ** 31, "0 to 2147483647"), ("images", 0, "1 to 64"),
    ("images", 2.5, "whole number"), ("guidance", float("nan"), "0 to 20"), ("guidance", None, "0 to 20"),
    ("top-p", 1.01, "0 to 1"), ("top-k", 65, "0 to 64"), ("temperature", 0, "0.01 to 10"),
    ("temperature", float("inf"), "0.01 to 10"), ("a d", 1, "2 to 30"), ("b d", 31, "2 to 30"), ("b N", 11, "0 to 10"),
    ("a window", 10, "0 to 9"), ("a bits", 5, "0, 8, 6, 4"), ("b layers", "even", "equidistant"),
    ("b cache", "fast", "lean, reference"), ("seed", "many", "whole number"),
])
def test_a_wrong_value_is_told_beside_its_control_and_no_other(control, value, bounds):
    with pytest.raises(WrongValues) as raised:
        read(START | {control: value}, DIGITS)
    assert list(raised.value.problems) == [control] and bounds in raised.value.problems[control]


def test_all_wrong_values_are_told_at_once():
    with pytest.raises(WrongValues) as raised:
        read(START | {"class": 99, "a d": 0, "b N": -1}, DIGITS)
    assert set(raised.value.problems) == {"class", "a d", "b N"}


@pytest.mark.parametrize("kept", [{"a window": 2}, {"a bits": 8}])
def test_the_reference_cache_keeps_all_as_computed(kept):
    with pytest.raises(WrongValues) as raised:
        read(START | kept | {"a cache": "reference"}, DIGITS)
    assert list(raised.value.problems) == ["a cache"]


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional={name: st.none() | st.integers(-3, 40) | st.floats() | st.text(max_size=3)
                                           for name in START}))
def test_whatever_controls_hold_is_drawn_or_told(changed):
    try:
        state = read(START | changed, DIGITS)
    except WrongValues as error:
        assert set(error.problems) <= set(START)
        return
    for side in state.sides:
        side.system.plan(30, 10, 6).kv.check_heads(
            DIGITS.transformer.num_heads, DIGITS.transformer.embed_dim // DIGITS.transformer.num_heads)


def test_bits_that_do_not_fill_bytes_are_not_offered():
    spec = DIGITS.transformer.model_copy(update={"embed_dim": 12, "num_heads": 2})
    assert stored_bits(DIGITS) == [0, 8, 6, 4]
    assert stored_bits(DIGITS.model_copy(update={"transformer": spec})) == [0, 8, 4]
