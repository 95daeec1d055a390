import argparse
import codecs
import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from varient.models.checkpoint import CheckpointError
from varient.models.file_kind import SAFETENSORS, kind_of
from varient.models.torch_file import read_torch_file

WEIGHTS = {"model": {f"blocks.{i}.weight": torch.arange(12.0).reshape(3, 4) + i for i in range(4)}, "epoch": 3,
           "opt": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99)}]}}


def _saved(path, **settings):
    torch.save(WEIGHTS, path, **settings)
    return path


def _refused(path, match=None):
    with pytest.raises(CheckpointError, match=match) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert str(path) in message and len(message.splitlines()) == 1 and "weights_only" not in message
    return message


def _same(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("settings", [{}, {"_use_new_zipfile_serialization": False}])
def test_files_of_torch_are_read(tmp_path, settings, mapped):
    assert _same(read_torch_file(_saved(tmp_path / "w.pth", **settings), mapped=mapped), WEIGHTS)


def test_a_file_without_checksums_is_read_and_said_to_be(tmp_path, caplog):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        _saved(tmp_path / "w.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    assert _same(read_torch_file(tmp_path / "w.pth"), WEIGHTS) and "w.pth was written without checksums" in caplog.text
    caplog.clear()
    read_torch_file(_saved(tmp_path / "old.pth", _use_new_zipfile_serialization=False))
    assert "no checksums" in caplog.text


def _packed(path, data=b"weights"):
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("weights.pth")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))


def _zipped(path, names=("readme.txt",)):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")


def _scripted(path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(("make", "kind"), [
    (lambda path: path.write_text("<!DOCTYPE html>\n<html><title>Sign in</title></html>"), "HTML page"),
    (lambda path: path.write_bytes(b"\xef\xbb\xbf\n <HTML><body>404"), "HTML page"),
    (lambda path: path.write_text("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>"), "XML document"),
    (lambda path: path.write_text('{"error": "Repository not found"}'), "JSON document"),
    (lambda path: path.write_text("[" + "1, " * 1000 + "1]"), "JSON document"),
    (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8\n"), "Git LFS"),
    (lambda path: path.write_text("/annex/objects/SHA256E-s8--0.pth\n"), "git-annex"),
    (lambda path: path.write_text("Not Found"), "text, not weights .*Not Found"),
    (lambda path: path.write_text("é" * 5000), "text, not weights"),
    (lambda path: path.write_text("model:\n  depth: 16\n", encoding="utf-16"), "text, not weights"),
    (lambda path: save_file({"w": torch.zeros(3)}, path), "safetensors file"),
    (lambda path: np.savez(path.open("wb"), w=np.zeros(3)), r"\.npz"),
    (lambda path: np.save(path.open("wb"), np.zeros(3)), r"\.npy"),
    (_zipped, "zip archive without a checkpoint.*readme.txt"),
    (lambda path: _zipped(path, ()), "empty zip archive"),
    (_packed, "tar archive"),
    (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(100)), "gzip"),
    (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100)), "Zstandard"),
    (_scripted, "TorchScript"),
    (lambda path: path.write_bytes(b""), "empty file"),
    (lambda path: path.write_bytes(bytes(10_000)), "zeros only"),
    (lambda path: path.write_bytes(b"\x80\x04K\x01."), "Python pickle"),
    (lambda path: path.write_bytes(b"\x01\x02\x03\x04garbage\xff\xfe"), "not known here"),
    (lambda path: path.mkdir(), "folder"),
    (os.mkfifo, "no regular file"),
])
def test_what_is_no_checkpoint_is_called_by_its_name(tmp_path, make, kind):
    make(tmp_path / "w.pth")
    _refused(tmp_path / "w.pth", f"w.pth: not a readable torch checkpoint.*{kind}")


@pytest.mark.parametrize("name", ["none.pth", "w.pth/inner.pth"])
def test_a_missing_file_is_named(tmp_path, name):
    _saved(tmp_path / "w.pth")
    _refused(tmp_path / name, "no such checkpoint")


def test_any_flipped_byte_is_seen_or_changes_nothing(tmp_path):
    path = _saved(tmp_path / "w.pth")
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1:])
        try:
            assert _same(read_torch_file(path, mapped=True), WEIGHTS)  # padding
        except CheckpointError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > len(whole) / 3 * 0.5
    for kept in range(0, len(whole), 97):
        path.write_bytes(whole[:kept])
        _refused(path)


def test_a_flipped_byte_of_a_tensor_is_named(tmp_path):
    path = _saved(tmp_path / "w.pth")
    value = WEIGHTS["model"]["blocks.2.weight"].numpy().tobytes()
    path.write_bytes(path.read_bytes().replace(value, bytes([value[0] ^ 1]) + value[1:]))
    assert "CRC" in _refused(path)


def _repacked(path, change, **settings):
    """The same archive, checksums and all, with another pickle."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name, data in members.items():
            archive.writestr(name, change(data) if name.endswith("data.pkl") else data)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_pickles_end_in_one_line(tmp_path, legacy):
    path = _saved(tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    whole, draws, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(400):
        def damage(data):
            data = bytearray(data)
            for at in draws.integers(0, min(len(data), 1500), draws.integers(1, 4)):
                data[at] = draws.integers(256)
            return bytes(data)
        path.write_bytes(damage(whole) if legacy else whole)
        if not legacy:
            _repacked(path, damage)
        try:
            read_torch_file(path)
        except CheckpointError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and "weights_only" not in str(error)
    assert refused > 200


def test_archives_that_could_unpack_to_any_size_are_refused(tmp_path):
    path = _saved(tmp_path / "w.pth")
    _repacked(path, lambda data: data, compression=zipfile.ZIP_DEFLATED)
    _refused(path, "packed")
    path = _saved(tmp_path / "long.pth")
    _repacked(path, lambda data: data + bytes(2 ** 26))
    _refused(path, "pickle")


class _Bytes:
    """A few bytes of pickle that ask for as many bytes as they say, by a function that torch allows."""

    def __reduce__(self):
        return bytearray, (10 ** 10,)


class _Doubled:
    """Text that each of the calls makes twice as long."""

    def __init__(self, times):
        self.times = times

    def __reduce__(self):
        return codecs.encode, (_Doubled(self.times - 1) if self.times else b"x", "hex")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("bomb", [_Bytes(), _Doubled(40)], ids=["bytearray", "encode"])
def test_functions_that_ask_for_any_amount_of_memory_are_not_called(tmp_path, bomb, legacy):
    torch.save({"w": bomb}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    _refused(tmp_path / "w.pth", "asks for (bytearray|_codecs)")


class _Payload:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_code_is_named_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for legacy in (False, True):
        torch.save({"w": _Payload()}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
        _refused(tmp_path / "w.pth", "asks for posix.mkdir")
    assert not (tmp_path / "ran").exists()


def test_the_command_line_of_a_training_is_plain(tmp_path):
    torch.save({"args": argparse.Namespace(lr=1e-4)}, tmp_path / "w.pth")
    assert read_torch_file(tmp_path / "w.pth")["args"].lr == 1e-4


def test_a_pickle_that_never_ends_its_nesting_ends_in_one_line(tmp_path):
    path = _saved(tmp_path / "w.pth")
    _repacked(path, lambda _: b"\x80\x02" + b"](" * 200_000)
    _refused(path)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    _refused(tmp_path / "deep.json", "text")
    (tmp_path / "w.json").write_text(json.dumps({"a": 1}))
    _refused(tmp_path / "w.json", "JSON document")


def test_a_safetensors_file_is_one_whatever_the_length_of_its_header(tmp_path):
    """The file begins with that length, whose low byte is a pickle's first in one file of 32."""
    first_bytes, path = set(), tmp_path / "weights.safetensors"
    for size in range(0, 2048, 8):
        save_file({"x": torch.zeros(1)}, path, metadata={"text": "." * size})
        first_bytes.add(path.read_bytes()[0])
        assert kind_of(path) == SAFETENSORS
    assert len(first_bytes) == 32 and 0x80 in first_bytes
