"""Random weights, which cost what trained ones do, are drawn where they are needed."""

import pytest
import torch

from varient.baselines.code import decoding
from varient.baselines.dit import sampling as dit_sampling
from varient.systems import pipeline
from varient.systems.registry import resolve_system


@pytest.mark.parametrize("name", ["var-d6", "free-code-n6", "dit-mini", "llamagen-mini"])
def test_random_weights_are_drawn_on_the_device(smoke, monkeypatch, name):
    """The meta device stands for a GPU, on which nothing from the CPU could be copied."""
    for module in (pipeline, decoding, dit_sampling):
        monkeypatch.setattr(module, "default_device", lambda precision: torch.device("meta"))
        monkeypatch.setattr(module, "ready", lambda network, precision="fp32": network)  # which would move it
    sampler = resolve_system(name, smoke).load(None, "fp16")
    found = {parameter.device.type for network in sampler.networks for parameter in network.parameters()}
    assert found == {"meta"}
