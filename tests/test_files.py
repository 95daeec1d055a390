import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from varient import files
from varient.files import (
    OutputError,
    atomic_folder,
    atomic_path,
    check_outputs,
    check_writable,
    link_or_copy,
    only_writer,
    remove_unfinished,
    sha256_kept,
    sha256_of,
    shown,
    write_text,
)
from varient.models.checkpoint import save_tensors

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


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null"), Path.mkdir])
def test_what_is_no_file_is_never_replaced_by_one(tmp_path, make):
    make(tmp_path / "odd")
    before = (tmp_path / "odd").lstat()
    with pytest.raises(OutputError, match="odd: could not be written"):
        write_text(tmp_path / "odd", "x")
    assert (tmp_path / "odd").lstat() == before and [path.name for path in tmp_path.iterdir()] == ["odd"]


@pytest.mark.parametrize("name", ["in", "./in", "sub/../in", "link", "hard", "absolute"])
def test_an_output_that_is_an_input_by_any_name_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("in").write_text("precious")
    Path("sub").mkdir()
    Path("link").symlink_to("in")
    os.link("in", "hard")
    output = Path(name) if name != "absolute" else tmp_path / "in"
    for inputs in ([Path("in")], [Path("none"), tmp_path / "in"], [tmp_path]):
        with pytest.raises(OutputError, match=rf"^{output}: the result would overwrite the input .*"):
            check_outputs([output], inputs)
    assert Path("in").read_text() == "precious"


def test_an_output_in_a_folder_of_inputs_is_refused_where_a_file_is(tmp_path):
    (tmp_path / "images/class").mkdir(parents=True)
    (tmp_path / "images/class/0.png").touch()
    (tmp_path / "elsewhere.png").touch()
    (tmp_path / "images/1.png").symlink_to(tmp_path / "elsewhere.png")
    for output in ("images/class/0.png", "images/1.png", "elsewhere.png"):
        with pytest.raises(OutputError, match=output):
            check_outputs([tmp_path / output], [tmp_path / "images"])
    with pytest.raises(OutputError, match="images"):
        check_outputs([], [tmp_path / "images"], [tmp_path / "images"])
    check_outputs([tmp_path / "images/scores.json", tmp_path / "other.png"], [tmp_path / "images"])


def test_outputs_that_cannot_be_written_are_refused_and_leave_nothing(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    for output in ("folder", "file/below", "file/below/it", "pipe", "dangling/x", "x" * 250, f"{'x' * 300}/y"):
        with pytest.raises(OutputError) as error:
            check_outputs([tmp_path / output], [])
        assert str(tmp_path / output) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(OutputError, match="file: .*not a folder"):
        check_outputs([], [], [tmp_path / "file"])
    with pytest.raises(OutputError, match="/proc/x/y: cannot be written"):  # root may write everywhere else
        check_outputs([Path("/proc/x/y")], [])
    with pytest.raises(OutputError, match="is named for two results"):
        check_outputs([tmp_path / "new", tmp_path / "folder/../new"], [])
    check_outputs([tmp_path / "new/deep/x.json", tmp_path / "file"], [], [tmp_path / "folder", tmp_path / "new folder"])
    assert sorted(tmp_path.rglob("*")) == before


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


# A process that holds a folder and has forked another, as a training that reads images in others does.
HOLDER = """
import os, sys, time
from pathlib import Path
from varient.files import only_writer
with only_writer(Path(sys.argv[1]), OSError):
    child = os.fork()
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


def test_a_folder_has_one_writer_and_is_free_once_that_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
                              cwd=ROOT)
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(OSError, match=f"process {holder.pid} on "), only_writer(tmp_path, OSError):
            pass
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with only_writer(tmp_path, OSError):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_trusted(tmp_path, monkeypatch, caplog):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with only_writer(tmp_path, OSError):
        assert f"{tmp_path} cannot be locked (No locks available)" in caplog.text


def test_what_is_half_written_is_told_from_what_is_whole_and_from_other_files(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "net-d2.bin") as temporary:
        raise KeyboardInterrupt
    others = [".net-d2-s1-abcdefgh.bin", ".net-d2-abcdefgh.npz", ".lock", "net-d2.bin"]
    for name in [temporary.name, *others]:
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path, "net-d2", ".bin")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "net-d2.bin"]


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_results_have_the_permissions_that_the_user_asks_for(tmp_path, umask, mode):
    (tmp_path / "source").write_text("x")
    before = os.umask(umask)
    try:
        write_text(tmp_path / "new", "x")
        write_text(tmp_path / "new", "again")
        with atomic_folder(tmp_path / "folder") as temporary:
            write_text(temporary / "inside", "x")
        save_tensors(tmp_path / "weights.safetensors", {"x": torch.zeros(1)}, {})
        link_or_copy(tmp_path / "weights.safetensors", tmp_path / "linked")
    finally:
        os.umask(before)
    for name in ("new", "folder/inside", "weights.safetensors", "linked"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


# Killed in the middle of a write, as by the kernel; "folder" writes a folder.
KILLED = """
import os, signal, sys
from pathlib import Path
from varient.files import atomic_folder, atomic_path
path = Path(sys.argv[1])
with (atomic_folder if path.name == "folder" else atomic_path)(path) as temporary:
    file = temporary / "inside" if path.name == "folder" else temporary
    file.write_text("half")
    print("writing", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("name", ["shard-0.npz", "score-var-d30.json", "folder"])
def test_what_a_killed_write_left_goes_with_the_next_and_a_running_one_stays(tmp_path, name):
    def write() -> None:
        with (atomic_folder if name == "folder" else atomic_path)(tmp_path / name) as temporary:
            (temporary / "inside" if name == "folder" else temporary).write_text("whole")

    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / name)], stdout=subprocess.PIPE, cwd=ROOT)
    writer.stdout.readline()
    (left,) = tmp_path.iterdir()
    write()
    assert left.exists() and len(list(tmp_path.iterdir())) == 2
    writer.kill()
    writer.communicate()
    others = [tmp_path / f".{name}-original", tmp_path / ".other-0123abcd"]
    for other in others:
        other.write_text("of the user")
    if name == "folder":
        (tmp_path / name / "inside").unlink()
    write()
    assert set(tmp_path.iterdir()) == {tmp_path / name, *others}


def test_a_place_that_can_be_written_is_left_untouched(tmp_path):
    for path in (tmp_path / "new/deeper/a.json", tmp_path / "a.json"):
        check_writable(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file/a.json", "file/deeper/a.json", "folder", "dangling/a.json"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("gone")
    with pytest.raises(OutputError, match=f"{path}: cannot be written"):
        check_writable(tmp_path / path)


def test_a_folder_without_rights_is_named(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # a test may run as root, whom no right stops
    with pytest.raises(OutputError, match="new/a.json: cannot be written .*Permission denied"):
        check_writable(tmp_path / "new/a.json")


def test_names_of_any_bytes_are_shown_as_utf8():
    assert shown(os.fsdecode(b"a\xff\xc3\xa4")) == "a\\xffä" and shown("plain – text") == "plain – text"


def test_the_hash_of_a_large_file_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(files, "KEPT_FROM_BYTES", 4)
    monkeypatch.setattr(files, "sha256_of", lambda path: asked.append(path) or sha256_of(path))
    large, small = tmp_path / "large", tmp_path / "small"
    large.write_bytes(b"12345")
    small.write_bytes(b"123")
    for _ in range(3):
        assert (sha256_kept(large), sha256_kept(small)) == (sha256_of(large), sha256_of(small))
    assert asked == [large, small, small, small]
    before = large.stat()
    large.write_bytes(b"54321")  # as large
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert sha256_kept(large) == sha256_of(large)
    replacement = tmp_path / "other"
    replacement.write_bytes(b"abcde")
    os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    replacement.replace(large)  # as large and as old
    assert sha256_kept(large) == sha256_of(large)
    for damaged in ("", "[]", "{}", '{"state": 1, "sha256": 2}', "{"):
        (tmp_path / ".large.sha256").write_text(damaged)
        assert sha256_kept(large) == sha256_of(large)


def test_a_hash_that_cannot_be_kept_is_taken_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "KEPT_FROM_BYTES", 1)
    (tmp_path / "large").write_bytes(b"12345")
    (tmp_path / ".large.sha256").mkdir()
    assert sha256_kept(tmp_path / "large") == sha256_of(tmp_path / "large")
