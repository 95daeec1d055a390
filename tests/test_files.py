import os
import subprocess
import sys

import pytest

from varient.files import OutputError, atomic_path, link_or_copy, sha256_of, write_text

# A limit on the size of files makes real writes fail half way, as a full disk does.
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
import torch
from varient.archive import Archive, write_archive
from varient.files import OutputError
from varient.models.checkpoint import save_weights
from varient.training.state import save_training_state
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
path, what = Path(sys.argv[1]), sys.argv[2]
layer = torch.nn.Linear(200, 200)
try:
    if what == "archive":
        write_archive(path, Archive(np.zeros((1000, 3, 8, 8), np.uint8), np.zeros(1000, int), np.arange(1000), {}))
    elif what == "weights":
        save_weights(path, layer, {})
    elif what == "state":
        save_training_state(path.parent, {"identity": "x", "step": 1, "model": layer.state_dict()}, keep=1)
except OutputError as error:
    sys.exit(f"varient: {error}")
"""


@pytest.mark.parametrize("what", ["archive", "weights", "state"])
def test_a_full_disk_leaves_no_half_written_file(tmp_path, what):
    target = tmp_path / "out" / ("state-00000001.pt" if what == "state" else "result.file")
    result = subprocess.run([sys.executable, "-c", FULL_DISK, str(target), what], capture_output=True, text=True)
    assert result.returncode == 1
    assert f"{target.name}: could not be written" in result.stderr
    assert list(target.parent.iterdir()) == []


def test_a_failing_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "record.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write_text(tmp_path / "file" / "below.txt", "x")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken: could not be written"):
        write_text(tmp_path / "taken", "x")


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x").startswith("ba7816bf8f01cfea")


def test_a_second_name_costs_no_space_and_is_newer_than_the_first(tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "other/second.safetensors"
    write_text(first, "weights")
    os.utime(first, (1, 1))
    link_or_copy(first, second)
    assert second.samefile(first) and second.stat().st_mtime > 1e9
    write_text(first, "new weights")  # puts a new file in the place of the name
    assert second.read_text() == "weights"


def test_where_a_file_can_have_one_name_only_it_is_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("not on this file system")))
    write_text(tmp_path / "first", "weights")
    link_or_copy(tmp_path / "first", tmp_path / "second")
    assert (tmp_path / "second").read_text() == "weights" and not (tmp_path / "second").samefile(tmp_path / "first")
