from dataclasses import replace

import pytest
from conftest import ROOT

from varient.config import load_config
from varient.kv_scheme import KVScheme, Window
from varient.plan import DepthPlan, nested_layers
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
    ("var-d30-w1", "base", replace(DepthPlan.full(30, 10), kv=KVScheme(Window(1))), "10"),
    ("variant-d4-p50-s2-w2-c0-kv6", "supernet-d4-p50-s2",
     replace(DepthPlan.bridge(30, 4, 6, 10), kv=KVScheme(Window(2, 0), 6)), "6+4"),
    ("var-d30-gmap-g6", "base", replace(DepthPlan.full(30, 10), kv=KVScheme(shared_map=True, last_guided=6)), "10"),
    ("free-d8-prefix", "base", DepthPlan.bridge(30, 8, 6, 10, tuple(range(8))), "6+4"),
    ("free-d8-nested", "base", DepthPlan.bridge(30, 8, 6, 10, nested_layers(30, 8, (16, 8, 4, 2))), "6+4"),
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
    ("free-d31-prefix", "d = 31 is above"),
    ("free-d31-random0", "d = 31 is above"),
    ("var-d30-w10", "W = 10"),
    ("variant-d8-w1-c7", "C = 7"),
    ("variant-d8-skip-w1", "C = 2"),
    ("var-d30-kv3", "3 bits"),
    ("var-d30-g10", "first 10 scales"),
    ("variant-d8-g1", "first 1 scales"),
    ("variant-d8-gmap-plain", "gmap and plain"),
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


@pytest.mark.parametrize("name", ["var-d30-gmap", "variant-d8-g6", "free-d8-gmap-g6"])
def test_how_guidance_runs_needs_an_experiment_with_guidance(name):
    without = DIGITS.model_copy(update={"sampling": DIGITS.sampling.model_copy(update={"cfg": 0.0})})
    assert resolve_system("var-d30", without).plan == resolve_system("var-d30", DIGITS).plan
    with pytest.raises(ValueError, match=rf"^system '{name}': [^\n]*cfg = 0[^\n]*$"):
        resolve_system(name, without)


def test_an_imported_base_network_has_no_other_seeds():
    paper = load_config(ROOT / "workflow/config/imagenet256.yaml")
    for name in ("var-d30-b1", "variant-d16-b1", "free-d16-b1"):
        with pytest.raises(ValueError, match=f"system '{name}': imagenet256 trains no base network"):
            resolve_system(name, paper)


def test_channels_that_fill_no_bytes_are_refused():
    shape = DIGITS.transformer.model_copy(update={"embed_dim": 20})  # 10 channels in a head
    narrow = DIGITS.model_copy(update={"transformer": shape})
    assert resolve_system("var-d30-kv4", narrow).plan.kv.bits == 4
    with pytest.raises(ValueError, match="system 'var-d30-kv6': 6 bits: 4 channels are packed together, .* has 10"):
        resolve_system("var-d30-kv6", narrow)


def test_the_protocol_of_a_system_says_what_it_sees():
    plain, window = (resolve_system(name, DIGITS) for name in ("var-d30", "var-d30-w1-kv8"))
    assert window.protocol() == plain.protocol() | {"kv": {"window": {"previous": 1, "coarsest": 2}, "bits": 8}}
    guided = resolve_system("var-d30-g6", DIGITS)
    assert guided.protocol() == plain.protocol() | {"kv": {"window": None, "bits": None, "shared_map": False,
                                                           "last_guided": 6}}
    assert (plain.cache_policies, window.cache_policies) == (("lean", "reference"), ("lean",))


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
