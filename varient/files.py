"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path

log = logging.getLogger(__name__)

_LOCK = ".lock"


class OutputError(OSError):
    """A result could not be written; nothing was left behind."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends well and removed when it does not.

    Raises:
        OutputError: the file could not be written (a full disk, say), or the path is that of a folder, device or pipe,
            which no file takes the place of.
    """
    temporary = None
    try:
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_file(path, path.parent)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: could not be written ({reason}); nothing was left behind") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _temporary_file(path: Path, folder: Path) -> Path:
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    return Path(name)


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file")
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")


def check_outputs(files: Sequence[Path], inputs: Iterable[Path], folders: Sequence[Path] = ()) -> None:
    """See, before work begins, that outputs can be written and take the place of nothing that the work reads.

    Files are the same by whatever names: links, other spellings of a path.

    Args:
        files: to write.
        inputs: files, and folders of which all is read.
        folders: to write into.

    Raises:
        OutputError: one line that names the output.
    """
    for output in (*files, *folders):
        check_writable(output, is_folder=output in folders)
    for output, other in combinations((*files, *folders), 2):
        if output.resolve() == other.resolve():
            raise OutputError(f"{output}: two results cannot have one name")
    there = [output for output in (*files, *folders) if output.exists()]
    for source in inputs if there else ():
        for output in there:
            if source.exists() and _lands_on(output, source):
                raise OutputError(f"{output}: is read as {source}, and a result there would take its place; write "
                                  "elsewhere")


def _lands_on(output: Path, source: Path) -> bool:
    """Whether a result at ``output`` would take the place of ``source`` or, where that is a folder, of a file of it."""
    if output.samefile(source):
        return True
    if output.is_dir() or not source.is_dir():
        return False
    return output.resolve().is_relative_to(source.resolve()) or any(
        child.exists() and output.samefile(child) for child in source.iterdir())


def check_writable(output: Path, *, is_folder: bool = False) -> None:
    """See before work begins that a file, or files in a folder, can be written; nothing is left behind.

    Raises:
        OutputError: a folder, a device or a pipe in place of the file, a file in place of a folder, or a folder that
            takes no file.
    """
    try:
        if not is_folder:
            _check_replaceable(output)
        elif output.exists() and not output.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
        within = output if is_folder else output.parent
        while not os.path.lexists(within):
            within = within.parent
        _temporary_file(output, within).unlink()
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror})") from None


def shown(path: Path | str) -> str:
    """A path, or a text with one in it, as UTF-8 has it: file names may be any bytes, records and terminals may not."""
    return str(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def remove_unfinished(folder: Path, stem: str = "*", suffix: str = "*") -> None:
    """Remove what killed processes left of files that `atomic_path` was writing; for their only writer.

    Args:
        stem, suffix: of the files, as patterns; by default all in ``folder``.
    """
    for path in folder.glob(f".{stem}-????????{suffix}"):
        path.unlink(missing_ok=True)


@contextmanager
def only_writer(folder: Path, busy: Exception) -> Iterator[None]:
    """Hold a folder for this process; the lock ends with the process, however that ends.

    A file system without locks is said to have none, and trusted.  Processes that this one forks do not hold the folder
    (with `flock`, which `filelock` uses, they would): one that reads images may outlive a killed training by seconds.

    Args:
        busy: raised where another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise busy from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): nothing else must write there", folder, error.strerror)
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; a copy where the file system cannot.

    Two names are one file, so nobody may write into either: `atomic_path` puts a new file in place of a name.

    Raises:
        OutputError: neither could be written.
    """
    with atomic_path(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.utime(temporary)  # a result is newer than what it was made from: the workflow counts on it


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


KEPT_FROM_BYTES = 2 ** 26
"""Size from which `sha256_kept` keeps a hash: to hash this much takes a tenth of a second."""


def sha256_kept(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex, kept beside a large file in ``.<name>.sha256`` for the next who asks.

    What is kept counts as long as size, time of change and inode are those that it was taken at; where it cannot be
    kept, the file is hashed each time.  Many jobs read the same network of 8 GB, which hashing takes seconds of.
    """
    before = _state(path)
    if before[0] < KEPT_FROM_BYTES:
        return sha256_of(path)
    kept = path.with_name(f".{path.name}.sha256")
    try:
        found = json.loads(kept.read_text("utf-8"))
        if found["state"] == before and re.fullmatch(r"[0-9a-f]{64}", found["sha256"]):
            return found["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        pass  # none yet, or none that says anything
    digest = sha256_of(path)
    if _state(path) == before:
        with suppress(OSError):  # a folder that only its owner may write into
            write_text(kept, json.dumps({"sha256": digest, "state": before}))
    return digest


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]
