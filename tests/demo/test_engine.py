"""One network in memory under many plans."""

import copy

import numpy as np
import pytest
import torch
from demo_fixtures import CONFIG, FILES, load_engine
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from varient.demo.costs import network_kv
from varient.generation import images
from varient.models.build import load_transformer
from varient.sampling import Guidance
from varient.systems.ids import VarId
from varient.systems.pipeline import load_pipeline

FULL, SUBNET = VarId("free", 30), VarId("free", 4, bridge=6)
LABELS, INDICES, SEED = [3, 8, 0], range(3), 5


@pytest.fixture(scope="module")
def engine():
    return load_engine()


class Copies(TorchDispatchMode):
    """Counts new tensors of the shape of a weight matrix that the operation read."""

    def __init__(self, *networks):
        super().__init__()
        self.count = 0
        self._shapes = {weight.untyped_storage().data_ptr(): weight.shape for network in networks
                        for weight in network.parameters() if weight.dim() > 1 and weight.numel() >= 256}

    def __torch_dispatch__(self, operation, _types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        read = {self._shapes.get(_storage(tensor)) for tensor in _tensors((args, kwargs))}
        self.count += sum(tensor.shape in read and _storage(tensor) not in self._shapes for tensor in _tensors(result))
        return result


def _tensors(values):
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _storage(tensor):
    return tensor.untyped_storage().data_ptr()


def test_another_plan_neither_loads_nor_copies_a_weight(engine, monkeypatch):
    def refuse(*_):
        pytest.fail("a plan was switched by loading the network again")

    monkeypatch.setattr("varient.systems.pipeline.load_transformer", refuse)
    monkeypatch.setattr("varient.systems.pipeline.load_tokenizer", refuse)
    networks = engine.networks
    before = [weight.data_ptr() for network in networks for weight in network.parameters()]
    with Copies(*networks) as copies:
        for system in (FULL, SUBNET, VarId("free", 8, bridge=0, prefix=True), FULL):
            engine.draw(system, LABELS, INDICES, SEED)
    assert copies.count == 0
    assert [weight.data_ptr() for network in networks for weight in network.parameters()] == before


def test_copies_of_weights_would_be_counted():
    model = load_transformer(CONFIG, FILES[1])
    with Copies(model) as copies:
        copy.deepcopy(model)
    assert copies.count > CONFIG.transformer.depth


@pytest.mark.parametrize("system", [FULL, SUBNET])
def test_images_are_those_of_a_network_loaded_for_the_plan(engine, system):
    pipeline = load_pipeline(CONFIG, *FILES, engine.plan(system))
    assert np.array_equal(engine.draw(system, LABELS, INDICES, SEED).images_B3SS,
                          images(pipeline, LABELS, INDICES, SEED))


def test_pictures_grow_alike_in_the_bridge_zone_and_end_as_the_images(engine):
    full, subnet = (engine.draw(system, LABELS, INDICES, SEED) for system in (FULL, SUBNET))
    full_KB3SS, subnet_KB3SS = engine.grow(full.tokens_BL), engine.grow(subnet.tokens_BL)
    assert np.array_equal(full_KB3SS[:6], subnet_KB3SS[:6])
    assert not np.array_equal(full_KB3SS[6:], subnet_KB3SS[6:])
    assert np.abs(subnet_KB3SS[-1].astype(int) - subnet.images_B3SS).max() <= 1  # summed in another order
    assert len({picture.tobytes() for picture in subnet_KB3SS}) == CONFIG.pyramid.num_scales


@pytest.mark.parametrize("policy", ["lean", "reference"])
@pytest.mark.parametrize("system", [FULL, SUBNET, VarId("free", 8, bridge=0)])
def test_the_cache_counts_what_was_computed_for_it(engine, system, policy):
    drawn = engine.draw(system, LABELS, INDICES, SEED, policy=policy)
    predicted = network_kv(CONFIG, engine.plan(system), len(LABELS), policy)
    assert drawn.kv_peak_bytes == max(predicted.peak)
    assert drawn.kv_live_bytes == predicted.live


def test_other_guidance_draws_other_images(engine):
    drawn = [engine.draw(SUBNET, LABELS, INDICES, SEED, guidance=guidance).images_B3SS
             for guidance in (None, Guidance(1.5, 0, 0.96), Guidance(0.0, 0, 0.0))]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_parameters_are_those_of_the_layers_that_run(engine):
    full, subnet = engine.parameters(FULL), engine.parameters(SUBNET)
    whole = sum(weight.numel() for weight in engine.networks[0].parameters())
    block = sum(weight.numel() for weight in engine.networks[0].blocks[0].parameters())
    assert full == (whole,) * 10 and subnet == (whole,) * 6 + (whole - 26 * block,) * 4


@pytest.mark.parametrize(("system", "told"), [
    (VarId("free", 31, bridge=6), "d = 31"),
    (VarId("free", 1, bridge=6), "d = 1"),
    (VarId("free", 4, bridge=11), "N = 11"),
    (VarId("free", 4, bridge=1, previous=2, coarsest=3), "C = 3"),
])
def test_a_plan_that_does_not_fit_is_told(engine, system, told):
    with pytest.raises(ValueError, match=told):
        engine.draw(system, LABELS, INDICES, SEED)
