"""Networks filled from files, against networks that were built in memory and then filled."""

import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from varient.models.build import (
    build_classifier,
    build_tokenizer,
    build_transformer,
    load_classifier,
    load_tokenizer,
    load_transformer,
)
from varient.models.checkpoint import CheckpointError, copy_in_half_precision, load_weights, save_weights
from varient.models.transformer import initialize


@pytest.fixture
def built(smoke):
    torch.manual_seed(0)
    networks = {"tokenizer": build_tokenizer(smoke), "transformer": build_transformer(smoke),
                "classifier": build_classifier(smoke)}
    initialize(networks["transformer"], gamma=1.0)
    return networks


BUILD = {"tokenizer": build_tokenizer, "transformer": build_transformer, "classifier": build_classifier}
LOAD = {"tokenizer": load_tokenizer, "transformer": load_transformer, "classifier": load_classifier}


@pytest.mark.parametrize("kind", list(LOAD))
@pytest.mark.parametrize("halved", [False, True])
def test_a_loaded_network_is_the_one_that_was_saved(smoke, built, kind, halved, tmp_path):
    path = tmp_path / "network.safetensors"
    save_weights(path, built[kind], {})
    if halved:  # the file's dtype is not the network's
        copy_in_half_precision(path, tmp_path / "halved.safetensors")
        path = tmp_path / "halved.safetensors"
    filled_in_place = BUILD[kind](smoke)
    load_weights(path, filled_in_place)
    expected, loaded = filled_in_place.state_dict(), LOAD[kind](smoke, path)
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())
    assert list(loaded.state_dict()) == list(expected)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == expected[name].dtype and torch.equal(tensor, expected[name]), name
        assert tensor.data_ptr() % 64 == 0, name
    extra = {name for name, _ in loaded.named_buffers()} - expected.keys()
    assert not extra  # what no file holds would stay on the meta device


def test_loading_draws_no_random_numbers(smoke, built, tmp_path):
    save_weights(tmp_path / "network.safetensors", built["transformer"], {})
    before = torch.get_rng_state()
    load_transformer(smoke, tmp_path / "network.safetensors")
    assert torch.equal(before, torch.get_rng_state())


def test_a_file_that_does_not_fit_is_named(smoke, built, tmp_path):
    save_weights(tmp_path / "network.safetensors", built["tokenizer"], {})
    with pytest.raises(CheckpointError, match="network.safetensors does not fit VAR"):
        load_transformer(smoke, tmp_path / "network.safetensors")


def test_filling_a_network_loads_no_compiler(smoke, built, tmp_path):
    """Initial weights on the meta device would: seconds of each process."""
    save_weights(tmp_path / "network.safetensors", built["tokenizer"], {})
    code = ("import sys; from pathlib import Path; from varient.config import load_config; "
            "from varient.models.build import load_tokenizer; "
            f"load_tokenizer(load_config(Path({str(ROOT / 'workflow/config/smoke.yaml')!r})), "
            f"Path({str(tmp_path / 'network.safetensors')!r})); print('torch._dynamo' in sys.modules)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
