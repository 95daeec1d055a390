import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from varient.models.checkpoint import (
    CheckpointError,
    check_weights,
    copy_in_half_precision,
    load_weights,
    read_description,
    save_tensors,
    save_weights,
)


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(6.0).reshape(2, 3))
        self.bias = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("steps", torch.tensor(7))


def _written(path, description=None):
    save_weights(path, _Network(), {"kind": "test"} if description is None else description)
    return path


def _refused(path, match=None, call=lambda path: load_weights(path, _Network())):
    with pytest.raises(CheckpointError, match=match) as caught:
        call(path)
    assert str(path) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_any_flipped_byte_of_our_own_files_is_seen_or_changes_nothing(tmp_path, caplog):
    path = _written(tmp_path / "w.safetensors")
    whole, own, silent = path.read_bytes(), _Network().state_dict(), 0
    for at in range(len(whole)):
        for bit in (1, 32):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1:])
            caplog.clear()
            model = _Network()
            try:
                load_weights(path, model)
            except CheckpointError as error:
                assert len(str(error).splitlines()) == 1
                continue
            assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
            assert "without a digest" in caplog.text  # its name was hit
            silent += 1
    assert silent <= 2 * (len("varient") + len("xxh3_128"))


def test_a_damaged_tensor_is_found_wherever_a_file_is_read_through(tmp_path):
    path = _written(tmp_path / "w.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert read_description(path) == {"kind": "test"}  # which reads no tensor
    for call in (check_weights, lambda path: load_weights(path, _Network()),
                 lambda path: copy_in_half_precision(path, tmp_path / "half.safetensors")):
        _refused(path, "damaged", call)
    assert not (tmp_path / "half.safetensors").exists()


@pytest.mark.parametrize("change", [
    lambda tensors: tensors.update(weight=tensors["weight"] + 1),
    lambda tensors: tensors.update(weight=tensors["weight"].reshape(3, 2)),
    lambda tensors: tensors.update(weight=tensors["weight"].view(torch.int32)),
    lambda tensors: tensors.update(other=tensors.pop("weight")),
    lambda tensors: tensors.pop("bias"),
    lambda tensors: tensors.update(more=torch.zeros(0)),
])
def test_the_digest_covers_names_kinds_shapes_and_bytes(tmp_path, change):
    path = _written(tmp_path / "w.safetensors")
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), load_file(path)
    change(tensors)
    save_file(tensors, path, metadata=metadata)
    _refused(path, "damaged", check_weights)


def test_the_digest_does_not_depend_on_the_order_of_the_tensors(tmp_path):
    tensors = {name: torch.full((2,), float(i)) for i, name in enumerate("cab")}
    save_tensors(tmp_path / "one", tensors, {"n": 1})
    save_tensors(tmp_path / "two", dict(sorted(tensors.items())), {"n": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    length = int.from_bytes((tmp_path / "one").read_bytes()[:8], "little")
    header = json.loads((tmp_path / "one").read_bytes()[8:8 + length])
    assert list(header["__metadata__"]) == ["varient"]  # safetensors writes several entries in a random order
    # The same file with its tensors the other way round.
    body = (tmp_path / "one").read_bytes()[8 + length:]
    for i, name in enumerate("cba"):
        header[name]["data_offsets"] = [8 * i, 8 * i + 8]
    text = json.dumps(header).encode()
    moved = b"".join(body[8 * i:8 * i + 8] for i in (2, 1, 0))
    (tmp_path / "two").write_bytes(len(text).to_bytes(8, "little") + text + moved)
    assert check_weights(tmp_path / "two") == {"n": 1}


def test_files_of_before_are_read_and_said_to_be_without_a_digest(tmp_path, caplog):
    path = tmp_path / "w.safetensors"
    save_file(_Network().state_dict(), path, metadata={"varient": json.dumps({"kind": "old"})})
    assert load_weights(path, _Network()) == {"kind": "old"} and "w.safetensors was written without" in caplog.text
    copy_in_half_precision(path, tmp_path / "half")
    caplog.clear()
    assert check_weights(tmp_path / "half") == {"kind": "old"} and not caplog.records


def test_a_description_comes_back_as_json_keeps_it(tmp_path):
    path = _written(tmp_path / "w.safetensors", {"depths": (2, 4), "loss": 0.1, "word": "é"})
    assert load_weights(path, _Network()) == read_description(path) == {"depths": [2, 4], "loss": 0.1, "word": "é"}


@pytest.mark.parametrize("entry", ["{", "[1]", "3", "\"text\""])
def test_a_damaged_description_is_named(tmp_path, entry):
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.zeros(1)}, path, metadata={"varient": entry})
    for call in (read_description, check_weights):
        _refused(path, "description", call)


@pytest.mark.parametrize(("content", "kind"), [
    (b"<html>", "HTML page"), (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"), (b"", "empty file"),
    (b"{}", "JSON document"), (b"Not Found", "text"), (None, "torch checkpoint"), ("folder", "folder")])
def test_what_is_no_safetensors_file_is_called_by_its_name(tmp_path, content, kind):
    path = tmp_path / "w.safetensors"
    if content is None:
        torch.save({"w": torch.zeros(1)}, path)
    elif content == "folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    for call in (read_description, check_weights, lambda path: load_weights(path, _Network())):
        _refused(path, f"not a readable safetensors file.*{kind}", call)


@pytest.mark.parametrize(("weight", "kind"), [
    (torch.tensor([[0, 1, float("nan")], [0, 1, 2]]), "1 not finite"),
    (torch.full((2, 3), float("inf")), "1 not finite"),
    (torch.full((2, 3), -float("inf"), dtype=torch.bfloat16), "1 not finite"),
    (torch.full((2, 3), 1e300, dtype=torch.float64), "1 not finite"),  # in float32
    (torch.zeros(2, 3, dtype=torch.int64), "integer"), (torch.zeros(2, 3, dtype=torch.bool), "boolean"),
    (torch.zeros(2, 3, dtype=torch.complex64), "complex"), (torch.zeros(2, 3, dtype=torch.float8_e4m3fn), "8-bit"),
])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_numbers_that_no_network_can_work_with_are_refused(tmp_path, weight, kind, device):
    path = tmp_path / "w.safetensors"
    save_tensors(path, _Network().state_dict() | {"weight": weight}, {})
    with torch.device(device):
        model = _Network()
    _refused(path, kind, lambda path: load_weights(path, model))
    with pytest.raises(CheckpointError, match="weight"):
        load_weights(path, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_taken(tmp_path, dtype):
    path = tmp_path / "w.safetensors"
    save_tensors(path, _Network().state_dict() | {"weight": torch.full((2, 3), 0.5, dtype=dtype)}, {})
    model = _Network()
    load_weights(path, model)
    assert (model.weight == 0.5).all()


def test_weights_beyond_half_precision_are_not_rounded_to_infinity(tmp_path):
    save_tensors(tmp_path / "w", {"large": torch.tensor([7e4]), "small": torch.tensor([1.0])}, {})
    _refused(tmp_path / "w", "large", lambda path: copy_in_half_precision(path, tmp_path / "half"))
    assert not (tmp_path / "half").exists()
