"""Reading and writing ids are inverse, and nobody else reads or writes them."""

import re
from dataclasses import replace

import pytest
from conftest import ROOT
from hypothesis import assume, given
from hypothesis import strategies as st

from varient.head_budgets import HeadBudgets
from varient.kv_scheme import BITS, KVScheme, Window
from varient.plan import DepthPlan, random_layers
from varient.systems.ids import CodeId, DiTId, LlamaGenId, VarId, is_recipe_name, parse
from varient.systems.names import BaseId, SupernetId, base_pattern, supernet_pattern

COUNTS, WORDS = st.integers(1, 10 ** 6), st.from_regex(r"p\d{1,3}|[a-z]{2}[a-z0-9]{0,6}", fullmatch=True)
RECIPES = st.none() | WORDS.filter(is_recipe_name)
LAYERS = st.fixed_dictionaries({}) | st.fixed_dictionaries({"bridge": st.integers(0, 99)})
CHOSEN = st.sampled_from([{}, {"prefix": True}, {"nested": True}, {"random": 0}, {"random": 12}])
SEEN = st.fixed_dictionaries({}, optional={"previous": COUNTS, "base": st.integers(1, 99)}) | st.fixed_dictionaries(
    {"previous": COUNTS, "coarsest": st.integers(0, 99)})
BY_LAYER = st.fixed_dictionaries({"previous_by_layer": st.tuples(COUNTS, COUNTS).map(
    lambda widths: (widths[0], widths[0] + widths[1]))}, optional={"coarsest": st.integers(0, 99)})
OF_ALL = st.fixed_dictionaries({}, optional={"kv_bits": st.sampled_from(BITS)})
GUIDANCE = st.just({"plain": True}) | st.fixed_dictionaries({}, optional={"shared_map": st.just(True),
                                                                         "guided": st.integers(0, 99)})
CACHES, _BASE_CACHES = (st.tuples(seen, OF_ALL, GUIDANCE).map(lambda parts: parts[0] | parts[1] | parts[2])
                        for seen in (SEEN, SEEN | BY_LAYER))
BASE_CACHES = _BASE_CACHES | st.fixed_dictionaries({"budget": st.integers(1, 99)}, optional={"plain": st.just(True)})
IDS = st.one_of(
    st.builds(lambda depth, cache: VarId("var", depth, **cache), COUNTS, BASE_CACHES),
    st.builds(lambda depth, recipe, seed, kept, layers, cache: VarId("variant", depth, recipe, seed, **kept, **layers,
                                                                     **cache), COUNTS,
              RECIPES, st.integers(0, 99), st.sampled_from([{}, {"epoch": 7}, {"phase": 2}]),
              LAYERS | st.just({"full": True}), CACHES),
    st.builds(lambda depth, layers, chosen, cache: VarId("free", depth, **layers, **chosen, **cache), COUNTS,
              LAYERS | st.tuples(COUNTS, COUNTS).map(lambda ends: {"window": tuple(sorted(ends))}), CHOSEN,
              BASE_CACHES),
    st.builds(CodeId, st.integers(0, 99), st.booleans()),
    st.builds(DiTId, st.from_regex(r"[a-z0-9]+", fullmatch=True), st.none() | COUNTS),
    st.builds(LlamaGenId, st.from_regex(r"[a-z0-9]+", fullmatch=True)))


@given(IDS)
def test_an_id_is_read_as_it_was_written(system):
    assert parse(str(system)) == system


@given(st.from_regex(r"(var|variant|free)-d\d{1,3}(-[a-z]{1,5}\d{0,3}(to\d)?){0,4}", fullmatch=True))
def test_what_is_read_is_written_the_same(text):
    try:
        system = parse(text)
    except ValueError:
        assume(False)
    assert system is None or str(system) == text


@given(st.none() | COUNTS, RECIPES, st.integers(0, 99), st.none() | COUNTS, st.integers(0, 99))
def test_a_supernet_is_read_as_it_was_written(depth, recipe, seed, epoch, base):
    assume(depth or recipe)
    name = SupernetId(depth, recipe, seed, epoch, base)
    assert SupernetId.parse(str(name)) == name
    assert (re.fullmatch(supernet_pattern(), str(name)) is not None) == (epoch is None)


@given(st.integers(0, 99))
def test_a_base_network_is_read_as_it_was_written(base):
    assert BaseId.parse(str(BaseId(base))) == BaseId(base) and re.fullmatch(base_pattern(), str(BaseId(base)))


@pytest.mark.parametrize("text", ["base-b0", "base-b01", "base-s1", "base-", "basement", "supernet-d4-b1"])
def test_other_names_are_no_base_networks(text):
    assert BaseId.parse(text) is None and not re.fullmatch(base_pattern(), text)


@pytest.mark.parametrize("text", ["variant-d016", "variant-d16-s0", "variant-d16-n07", "variant-d16-n7-s1", "var-d0",
                                  "Variant-d16", "variant-d16-", "variant-d١٦", "code-n06", "dit-", "real-holdout"])
def test_other_texts_are_no_ids(text):
    assert parse(text) is None


@pytest.mark.parametrize("text", ["variant-d16-n7-full", "variant-d16-e5-end1", "free-d8-n6-r1to3", "free-d8-r4to3",
                                  "var-d30-n6", "var-d30-full", "free-d8-s1", "variant-d8-r1to3",
                                  "variant-d8-prefix", "var-d30-random1", "free-d8-prefix-nested",
                                  "free-d8-nested-random0", "var-d30-c1", "free-d8-c0-kv8", "var-d30-gmap-plain",
                                  "variant-d8-g6-plain", "free-d8-gmap-g6-plain", "variant-d8-w1to3",
                                  "var-d30-w1-w1to3", "var-d30-b1-w1to3", "free-d8-w3to3", "var-d30-w3to1",
                                  "var-d30-b1-heads30", "variant-d8-heads30", "var-d30-kv8-heads30"])
def test_parts_that_exclude_each_other_are_refused(text):
    with pytest.raises(ValueError, match=f"system {text}"):
        parse(text)


@pytest.mark.parametrize(("text", "named"), [
    ("var-d30-w0", "W = 0"), ("var-d30-w0to2", "W = 0"), ("free-d8-w2to2", "W = 2 to 2"),
    ("var-d30-w4to3", "W = 4 to 3"), ("variant-d8-w0-c0", "W = 0"), ("var-d30-kv3", "3 bits"),
    ("free-d8-w1-kv16", "16 bits"), ("var-d30-heads0", "0 %"), ("free-d8-heads100", "100 %"),
    ("var-d30-w1-heads30", "alone")])
def test_caches_that_nobody_keeps_are_refused(text, named):
    with pytest.raises(ValueError, match=f"^system {text}: [^\n]*{named}[^\n]*$"):
        parse(text)


@pytest.mark.parametrize(("text", "named"), [
    ("var-d30-w10", "W = 10"), ("var-d30-w1to10", "W = 10"), ("var-d30-w1-c11", "C = 11"),
    ("variant-d8-w2-c7", "C = 7"), ("free-d8-n1-w1", "C = 2"),
    ("var-d30-g0", "first 0 scales"), ("var-d30-g1", "first 1 scales"), ("variant-d8-gmap-g10", "first 10 scales")])
def test_windows_and_guided_scales_that_do_not_fit_the_network_are_refused(text, named):
    with pytest.raises(ValueError, match=f"^[^\n]*{named}[^\n]*$"):
        parse(text).plan(30, 10, 6)


@pytest.mark.parametrize(("text", "layers"), [
    ("free-d4", (0, 9, 19, 29)), ("free-d4-prefix", (0, 1, 2, 3)), ("free-d4-nested", (0, 7, 15, 29)),
    ("free-d4-random0", random_layers(30, 4, 0))])
def test_layers_of_an_untrained_subnet(text, layers):
    plan = parse(text).plan(30, 10, 6, ladder=(16, 8, 4, 2))
    assert (plan.layers(6), plan.layers(7)) == (tuple(range(30)), layers)


def test_a_cache_is_that_of_the_same_layers():
    plan = parse("variant-d8-n7-w2-c0-kv6").plan(30, 10, 6)
    assert plan == replace(DepthPlan.bridge(30, 8, 7, 10), kv=KVScheme(Window(2, 0), 6))
    plan = parse("variant-d8-kv6-gmap-g6").plan(30, 10, 6)
    assert plan == replace(DepthPlan.bridge(30, 8, 6, 10), kv=KVScheme(None, 6, shared_map=True, last_guided=6))
    plan = parse("free-d8-heads30").plan(30, 10, 6)
    assert plan == replace(DepthPlan.bridge(30, 8, 6, 10), kv=KVScheme(budgets=HeadBudgets(30)))


@pytest.mark.parametrize(("name", "free_to_use"), [
    ("kv8", False), ("prefix", False), ("nested", False), ("random1", False), ("random", True), ("kva", True),
    ("p10", True), ("multi", True), ("skip", True), ("fullx", True), ("ending", True), ("s1x", False),
    ("full", False), ("end1", False), ("n7", False), ("s1", False), ("r1to3", False), ("e5", False), ("x", False),
    ("plainer", True), ("plain", False), ("b1", False), ("gmap", False), ("gmaps", True), ("g6", False),
    ("heads30", False), ("heads", True)])
def test_no_recipe_is_called_like_another_suffix(name, free_to_use):
    assert is_recipe_name(name) is free_to_use


def test_no_other_module_knows_how_ids_are_written():
    """Ids are put together by no other f-string, taken apart by no other pattern, and cut by no string method."""
    parts = "(variant|var|free|supernet|code|dit|llamagen)-"
    spelled = re.compile("|".join([
        r"""f["'][^"']*\b((variant|var|free|supernet)-d?|code-n|dit-|llamagen-)\{""",
        rf"{parts}d?(\\d|\(\?|\[)", r"supernet\(-",
        rf"""(startswith|prefix|suffix)\(["'(]+{parts}""", r"""(suffix\(|\+ )["']-(full|n|s|e|r)"""]))
    sources = [path for folder in ("varient", "baselines", "workflow") for path in (ROOT / folder).rglob("*")
               if path.suffix in (".py", ".smk")] + [ROOT / "Snakefile"]
    assert len(sources) > 100
    found = [f"{path.relative_to(ROOT)}:{number}: {line.strip()}" for path in sources
             for number, line in enumerate(path.read_text().splitlines(), 1)
             if path.name not in ("ids.py", "names.py") and spelled.search(line)]
    assert not found, "\n".join(found)
