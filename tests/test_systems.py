import pytest
from conftest import ROOT

from varient.config import load_config
from varient.plan import DepthPlan
from varient.systems import resolve_system

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")


@pytest.mark.parametrize(("name", "weights", "plan", "steps"), [
    ("var-d30", "base", DepthPlan.full(30, 10), "10"),
    ("variant-d16", "supernet-d16", DepthPlan.bridge(30, 16, 6, 10), "6+4"),
    ("variant-d16-n7", "supernet-d16", DepthPlan.bridge(30, 16, 7, 10), "7+3"),
    ("variant-d2-full", "supernet-d2", DepthPlan.full(30, 10), "10"),
    ("free-d8", "base", DepthPlan.bridge(30, 8, 6, 10), "6+4"),
    ("free-d7-n0", "base", DepthPlan.bridge(30, 7, 0, 10), "0+10"),
])
def test_ids(name, weights, plan, steps):
    system = resolve_system(name, DIGITS)
    assert (system.weights, system.plan, system.steps) == (("tokenizer", weights), plan, steps)


@pytest.mark.parametrize(("name", "message"), [
    ("var-d16", "base network of digits is var-d30"),
    ("variant-d5", "trains supernets for d = 16, 8, 4, 2"),
    ("variant-d16-n11", "N = 11 is outside"),
    ("free-d31", "d = 31 is above"),
    ("free-d8-full", "untrained full network is var-d30"),
    ("dit", "unknown; known forms"),
])
def test_unknown_ids_say_what_there_is(name, message):
    with pytest.raises(ValueError, match=message):
        resolve_system(name, DIGITS)
