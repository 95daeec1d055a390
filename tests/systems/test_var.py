import pytest
from conftest import ROOT

from varient.config import load_config
from varient.plan import DepthPlan
from varient.systems.registry import resolve_system
from varient.training.recipes import Supernet, supernet_of

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")


@pytest.mark.parametrize(("name", "weights", "plan", "steps"), [
    ("var-d30", "base", DepthPlan.full(30, 10), "10"),
    ("variant-d16", "supernet-d16", DepthPlan.bridge(30, 16, 6, 10), "6+4"),
    ("variant-d16-n7", "supernet-d16", DepthPlan.bridge(30, 16, 7, 10), "7+3"),
    ("variant-d2-full", "supernet-d2", DepthPlan.full(30, 10), "10"),
    ("free-d8", "base", DepthPlan.bridge(30, 8, 6, 10), "6+4"),
    ("free-d7-n0", "base", DepthPlan.bridge(30, 7, 0, 10), "0+10"),
    ("free-d8-r4to6", "base", DepthPlan.window(30, 8, 4, 6, 10), "7+3"),
    ("variant-d4-p50-s2", "supernet-d4-p50-s2", DepthPlan.bridge(30, 4, 6, 10), "6+4"),
    ("variant-d4-s1-full", "supernet-d4-s1", DepthPlan.full(30, 10), "10"),
    ("variant-d4-skip", "supernet-d4-skip", DepthPlan.bridge(30, 4, 0, 10), "0+10"),
    ("variant-d8-multi-n7", "supernet-multi", DepthPlan.bridge(30, 8, 7, 10), "7+3"),
    ("variant-d4-p10-s1-e5-full", "supernet-d4-p10-s1-e5", DepthPlan.full(30, 10), "10"),
    ("variant-d4-end1", "supernet-d4-e5", DepthPlan.bridge(30, 4, 6, 10), "6+4"),
    ("variant-d4-end2-n7", "supernet-d4-e20", DepthPlan.bridge(30, 4, 7, 10), "7+3"),
    ("var-d30-b2", "base-b2", DepthPlan.full(30, 10), "10"),
    ("free-d8-b1", "base-b1", DepthPlan.bridge(30, 8, 6, 10), "6+4"),
    ("variant-d4-p50-s1-b2-full", "supernet-d4-p50-s1-b2", DepthPlan.full(30, 10), "10"),
    ("variant-d4-b1-e20", "supernet-d4-b1-e20", DepthPlan.bridge(30, 4, 6, 10), "6+4"),
    ("variant-d4-plain", "supernet-d4", DepthPlan.bridge(30, 4, 6, 10), "6+4"),
])
def test_ids(name, weights, plan, steps):
    system = resolve_system(name, DIGITS)
    assert (system.weights, system.plan, system.steps) == (("tokenizer", weights), plan, steps)


@pytest.mark.parametrize(("name", "message"), [
    ("var-d16", "base network of digits is var-d30"),
    ("variant-d5", "trains supernets for d = 16, 8, 4, 2"),
    ("variant-d16-n11", "N = 11 is outside"),
    ("free-d31", "d = 31 is above"),
    ("free-d8-full", "'-full' is only for ids that begin with variant-"),
    ("dit", "unknown; known forms"),
    ("variant-d8-fast", "supernet.recipes has no 'fast'; it has p0, p10"),
    ("free-d8-p50", "'-<recipe>' is only for ids that begin with variant-"),
    ("free-d8-e5", "'-e<epoch>' is only for"),
    ("variant-d8-e7", "keeps the weights after epochs 5, 20"),
    ("variant-d8-end3", "keeps the weights after epochs 5, 20"),
    ("variant-d8-end4", "keeps the weights after epochs 5, 20"),
    ("variant-d8-r1to3", "'-r<first>to<last>' is only for ids that begin with free-"),
    ("free-d8-r4to11", "is not within r1-r10"),
])
def test_unknown_ids_say_what_there_is(name, message):
    with pytest.raises(ValueError, match=message):
        resolve_system(name, DIGITS)


def test_a_plain_row_is_sampled_without_guidance_and_filters():
    """From the same network, whose own distribution is drawn from; the experiment's other rows keep theirs."""
    plain, guided = (resolve_system(name, DIGITS) for name in ("variant-d4-full-plain", "variant-d4-full"))
    off = {"cfg": 0.0, "top_k": 0, "top_p": 0.0}
    assert plain.weights == guided.weights and plain.plan == guided.plan
    assert plain.protocol() == guided.protocol() | off != guided.protocol()
    assert guided.protocol() == {"layers_per_scale": guided.plan.layers_per_scale, "cfg": 1.5, "top_k": 0,
                                 "top_p": 0.96}
    sampler = plain.load(None, "fp32")
    assert vars(sampler.guidance) == off | {"temperatures": ()}


def test_an_imported_base_network_has_no_other_seeds():
    paper = load_config(ROOT / "workflow/config/imagenet256.yaml")
    for name in ("var-d30-b1", "variant-d16-b1", "free-d16-b1"):
        with pytest.raises(ValueError, match=f"system '{name}': imagenet256 trains no base network"):
            resolve_system(name, paper)


@pytest.mark.parametrize("supernet", [Supernet(16), Supernet(4, "p50"), Supernet(4, "p50", 2), Supernet(8, None, 1),
                                      Supernet(8, None, 1, 2), Supernet(4, "p50", 0, 1)])
def test_a_supernet_is_known_by_its_file(supernet):
    assert supernet_of(supernet.weights(DIGITS), DIGITS) == supernet


def test_one_file_serves_all_depths_of_a_shared_supernet():
    assert Supernet(16, "multi").weights(DIGITS) == Supernet(2, "multi").weights(DIGITS) == "supernet-multi"
    assert supernet_of("supernet-multi-s1", DIGITS) == Supernet(2, "multi", 1)


@pytest.mark.parametrize("name", ["supernet", "supernet-d5", "supernet-d4-fast", "supernet-d4-multi", "supernet-p50",
                                  "supernet-d4-s0", "base"])
def test_other_files_are_no_supernets(name):
    with pytest.raises(ValueError, match="no supernet|supernet.recipes has no 'fast'"):
        supernet_of(name, DIGITS)


def test_another_recipe_is_no_reason_to_train_again():
    assert "supernet.recipes.p50" in Supernet(4, "p50").depends(DIGITS)
    assert not any("recipes" in section for section in Supernet(4).depends(DIGITS))
