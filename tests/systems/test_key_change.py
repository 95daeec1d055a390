"""Windows that differ by layer: what is calibrated, on which weights, and what follows for a system."""

import math

import pytest
import torch
from calibration_fixtures import write_calibrated
from conftest import TINY_PYRAMID, tiny_tokenizer, tiny_transformer

from varient.models.build import build_transformer
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.systems.calibration import Calibration
from varient.systems.key_change import _KeyWatch, key_change
from varient.systems.registry import networks_of, resolve_system


def test_the_distance_of_keys_by_hand():
    """Two scales of side 1 and 2, one image, two heads: half of the keys of the first head turn, none of the second."""
    watch = _KeyWatch(DepthPlan.full(1, 2), Pyramid((1, 2)))
    one, other = torch.eye(2)
    first = torch.stack([one, one]).view(1, 2, 1, 2)
    second = torch.stack([one, one, other, other, one, one, one, one]).view(1, 2, 4, 2)
    for k, keys in ((1, first), (2, second)):
        seen, _ = watch.extend(0, k, keys, keys)
    torch.testing.assert_close(watch.distances[0][0], torch.tensor([math.sqrt(2) / 4]))
    assert torch.equal(seen, torch.cat([first, second], dim=2))


def test_a_key_is_held_against_the_enlarged_map():
    """Sides 2 and 3 with keys that are linear in the position: only the border, which is not extrapolated, differs."""
    watch = _KeyWatch(DepthPlan.full(1, 2), Pyramid((2, 3)))
    coarse, fine = ((torch.arange(side) + 0.5) / side for side in (2, 3))
    for k, grid in ((1, coarse), (2, fine)):
        watch.extend(0, k, grid.repeat(len(grid)).view(1, 1, -1, 1), torch.zeros(1, 1, len(grid) ** 2, 1))
    torch.testing.assert_close(watch.distances[0][0], torch.tensor([(2 / 3) * (1 / 4 - 1 / 6)]))


def test_each_image_and_layer_has_its_own_change():
    model, quantizer = tiny_transformer(4), tiny_tokenizer().quantize
    label_B, idx_BL = torch.tensor([0, 3]), torch.arange(2 * TINY_PYRAMID.length).view(2, -1) % 32
    change_BD = key_change(model, quantizer, label_B, idx_BL)
    assert change_BD.shape == (2, 4) and (change_BD > 0).all() and len(change_BD.unique()) == 8
    alone = [key_change(model, quantizer, label_B[i:i + 1], idx_BL[i:i + 1]) for i in range(2)]
    torch.testing.assert_close(torch.cat(alone), change_BD)


@pytest.fixture
def run_dir(smoke, tmp_path):
    return write_calibrated(smoke, tmp_path, "key-change")


def test_the_layers_whose_keys_change_most_see_the_wide_window(smoke, run_dir):
    found = Calibration("change_D", torch.zeros(6))
    description = load_weights(run_dir / "key-change.safetensors", found)
    assert (description["images"], description["seed"], description["network"]) == (50, 0, "base")
    system = resolve_system("var-d6-w1to3", smoke)
    assert system.weights == ("tokenizer", "base", "key-change")
    window = system.load(run_dir, "fp32").plan.kv.window
    assert (window.previous, window.widest, window.coarsest) == (1, 3, 2)
    assert set(window.wide_layers) == set(found.change_D.topk(3).indices.tolist())
    assert system.load(None, "fp32").plan.kv.window.wide_layers == (0, 1, 2)
    assert system.protocol()["kv"] == {"window": {"previous": 1, "coarsest": 2, "widest": 3}, "bits": None}
    (network,) = (network for name, network in networks_of(smoke).items() if name == "key-change")
    assert network.needs == ("tokenizer", "base") and "data" not in network.depends
    again = run_dir / "again.safetensors"
    network.make(run_dir, again)
    assert again.read_bytes() == (run_dir / "key-change.safetensors").read_bytes()


def test_an_image_is_a_function_of_its_seed(smoke, run_dir):
    sampler = resolve_system("var-d6-w1to3-kv8-gmap", smoke).load(run_dir, "fp32")
    at_once = sampler.latents([0, 1, 2, 3], [0, 1, 2, 3], 5)
    torch.testing.assert_close(sampler.latents([2, 3], [2, 3], 5), at_once[2:])


def test_a_calibration_of_other_weights_is_refused(smoke, run_dir):
    system, path = resolve_system("free-d4-w1to2", smoke), run_dir / "key-change.safetensors"
    save_weights(run_dir / "base.safetensors", build_transformer(smoke), {})
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{path}[^\n]*base\.safetensors[^\n]*$"):
        system.load(run_dir, "fp32")
    save_weights(path, Calibration("change_D", torch.zeros(5)), {})
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{path}[^\n]*change_D[^\n]*$"):
        system.load(run_dir, "fp32")
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"^[^\n]*{path}[^\n]*$"):
        system.load(run_dir, "fp32")
