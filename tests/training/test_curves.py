"""The gradient probe by definition; what curves keep is tested with the trainings that fill them."""

import numpy as np
import pytest
import torch
from torch import nn

from varient.training.curves import CurveError, probed_norms, read_curves
from varient.training.data import Mix
from varient.training.tokens import Batch


def test_norms_are_those_of_each_loss_alone_and_leave_no_gradient():
    torch.manual_seed(0)
    layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
    hidden = layers[0](torch.randn(4, 3))
    losses = {"one": layers[1](hidden).square().mean(), "other": hidden.square().mean()}
    groups = {"first": [*layers[0].parameters()], "last": [*layers[1].parameters(), *layers[2].parameters()]}
    expected = {}
    for zone, loss in losses.items():
        loss.backward(retain_graph=True)
        for group, members in groups.items():
            squares = [parameter.grad.square().sum() for parameter in members if parameter.grad is not None]
            expected[f"gradient_norm/{zone}/{group}"] = torch.stack([torch.zeros(()), *squares]).sum().sqrt()
        layers.zero_grad(set_to_none=True)
    found = probed_norms(losses, groups)
    assert found["gradient_norm/other/last"] == 0
    torch.testing.assert_close(found, expected)
    assert all(parameter.grad is None for parameter in layers.parameters())


@pytest.mark.parametrize("arrays", [
    {"loss:step": [1, 2]}, {"loss:step": [1, 2], "loss:value": [0.5]}, {"loss:step": [[1]], "loss:value": [[0.5]]},
    {"loss:step": ["a"], "loss:value": [0.5]}, {"loss:step": [1], "loss:value": [1j]}, {"images": [1]}])
def test_a_file_of_other_arrays_is_no_file_of_curves(tmp_path, arrays):
    kinds = {"step": np.int32, "value": np.float32}
    odd = {name: np.array(value) for name, value in arrays.items()}
    np.savez_compressed(tmp_path / "curves.npz", **{
        name: array.astype(kinds[name[5:]]) if array.dtype.kind in "if" and name[5:] in kinds else array
        for name, array in odd.items()})
    with pytest.raises(CurveError, match=r"curves\.npz: ") as error:
        read_curves(tmp_path / "curves.npz")
    assert len(str(error.value).splitlines()) == 1


def test_a_damaged_file_of_curves_is_curves_or_named_in_one_line(tmp_path):
    path = tmp_path / "curves.npz"
    np.savez_compressed(path, **{"loss:step": np.arange(40, dtype=np.int32),
                                 "loss:value": np.linspace(0, 1, 40, dtype=np.float32)})
    whole = path.read_bytes()
    for at in range(0, len(whole), 2):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1:])
        try:
            steps, values = read_curves(path)["loss"]
            assert steps.tolist() == list(range(40)) and values[-1] == 1
        except CurveError as error:
            assert "curves.npz" in str(error) and len(str(error).splitlines()) == 1
    with pytest.raises(CurveError, match=r"none\.npz: no such file"):
        read_curves(tmp_path / "none.npz")


def test_the_graph_is_freed_with_the_last_loss():
    layer = nn.Linear(3, 3)
    losses = {name: layer(torch.ones(1, 3)).square().mean() for name in ("one", "other")}
    probed_norms(losses, {"all": [*layer.parameters()]})
    losses["one"].backward()
    with pytest.raises(RuntimeError, match="second time"):
        losses["other"].backward()


def test_a_scale_saves_gradients_too_small_for_16_bits():
    weight = nn.Parameter(torch.ones(()))
    losses = {"zone": weight.half().float() * 1e-9}
    assert probed_norms({"zone": weight.half().float() * 1e-9}, {"all": [weight]})["gradient_norm/zone/all"] == 0
    found = probed_norms(losses, {"all": [weight]}, scale=2.0 ** 16)["gradient_norm/zone/all"]
    assert found.item() == pytest.approx(1e-9, rel=1e-3)


def test_the_first_rows_of_a_batch():
    batch = Batch(torch.arange(3), torch.rand(3, 2, 1), torch.arange(6).view(3, 2), Mix(torch.arange(3), torch.rand(3)))
    first = batch.first(2)
    assert torch.equal(first.label_B, batch.label_B[:2]) and torch.equal(first.x_BLv, batch.x_BLv[:2])
    assert torch.equal(first.idx_BL, batch.idx_BL[:2])
    assert torch.equal(first.mix.labels, batch.mix.labels[:2]) and torch.equal(first.mix.weight, batch.mix.weight[:2])
    assert batch._replace(mix=None).first(9).mix is None and len(batch.first(9).label_B) == 3
