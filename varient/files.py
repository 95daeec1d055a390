"""Atomic writing of files, checks of output paths, and hashes of files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from glob import escape
from itertools import combinations
from pathlib import Path

log = logging.getLogger(__name__)

_LOCK = ".lock"
_TOKEN = "[0-9a-f]" * 8
"""Pattern of what tells the names of temporary files apart; a user's hidden file is not likely to match it."""


class OutputError(OSError):
    """A result could not be written; no partial file was left behind."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``: renamed to it at the end of the `with` block, removed after an exception.

    The file gets the permissions that the user's umask allows.  Temporary files that killed writers of ``path`` left
    behind are removed.

    Raises:
        OutputError: the file could not be written (for example, the disk is full), or the path is a folder, device or
            pipe, which must not be replaced by a file.
    """
    with _reported(path):
        _check_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, f".{escape(path.stem)}-{_TOKEN}{escape(path.suffix)}")
        temporary, lock = _temporary_file(path, path.parent)
        try:
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
                # Some libraries write to a private file of their own and rename it.
                os.fchmod(written.fileno(), stat.S_IMODE(os.fstat(lock).st_mode))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """As `atomic_path`, for a folder that is missing or empty.

    Raises:
        OutputError: the folder could not be written.
    """
    with _reported(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent, f".{escape(path.name)}-{_TOKEN}")
        temporary = path.parent / _temporary_name(path.name)
        temporary.mkdir()
        lock = os.open(temporary, os.O_RDONLY)
        try:
            _lock(lock)
            yield temporary
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn an OSError into an `OutputError` that names the output."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: could not be written ({reason}); nothing was left behind") from error


def _temporary_name(stem: str, suffix: str = "") -> str:
    return f".{stem}-{secrets.token_hex(4)}{suffix}"


def _temporary_file(path: Path, folder: Path) -> tuple[Path, int]:
    """A new file, and a descriptor that holds its lock until it is closed or this process ends.

    The lock tells files that are being written from those of killed processes.
    """
    temporary = folder / _temporary_name(path.stem, path.suffix)
    lock = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    _lock(lock)
    return temporary, lock


def _lock(descriptor: int) -> bool | None:
    """Try to lock an open file or folder: whether it could be locked; None on a file system without locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_abandoned(folder: Path, pattern: str, *, if_unknown: bool = False) -> None:
    """Remove temporary files and folders that nobody is writing.

    Args:
        if_unknown: also remove them on a file system that cannot tell.
    """
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process may be removing it, or it is not ours
            descriptor = os.open(path, os.O_NOFOLLOW | (os.O_RDONLY if path.is_dir() else os.O_RDWR))
            try:
                is_abandoned = _lock(descriptor)
                if is_abandoned or (is_abandoned is None and if_unknown):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(descriptor)


def _check_replaceable(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file")
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file")


def check_outputs(files: Sequence[Path], inputs: Iterable[Path], folders: Sequence[Path] = ()) -> None:
    """Check, before work begins, that outputs can be written and do not overwrite any input.

    Links and different spellings of a path are recognised as the same file.

    Args:
        files: output files.
        inputs: input files, and folders all of whose files are read.
        folders: output folders.

    Raises:
        OutputError: one line that names the output.
    """
    for output in (*files, *folders):
        check_writable(output, is_folder=output in folders)
    for output, other in combinations((*files, *folders), 2):
        if output.resolve() == other.resolve():
            raise OutputError(f"{output}: is named for two results; they need different names")
    there = [output for output in (*files, *folders) if output.exists()]
    for source in inputs if there else ():
        for output in there:
            if source.exists() and _lands_on(output, source):
                raise OutputError(f"{output}: the result would overwrite the input {source}; choose another output")


def _lands_on(output: Path, source: Path) -> bool:
    """Whether a result at ``output`` would overwrite ``source`` or, if that is a folder, a file in it."""
    if output.samefile(source):
        return True
    if output.is_dir() or not source.is_dir():
        return False
    return output.resolve().is_relative_to(source.resolve()) or any(
        child.exists() and output.samefile(child) for child in source.iterdir())


def check_writable(output: Path, *, is_folder: bool = False) -> None:
    """Check, before work begins, that a file, or files in a folder, can be written; the check leaves nothing behind.

    Raises:
        OutputError: a folder, device or pipe has the file's name, a file has the folder's name, or no file can be
            created there.
    """
    try:
        if not is_folder:
            _check_replaceable(output)
        elif output.exists() and not output.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file, not a folder")
        within = output if is_folder else output.parent
        while not os.path.lexists(within):
            within = within.parent
        temporary, lock = _temporary_file(output, within)
        os.close(lock)
        temporary.unlink()
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror})") from None


def shown(path: Path | str) -> str:
    """A path, or text with a path in it, as valid UTF-8: file names may be any bytes, records and terminals may not."""
    return str(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def remove_unfinished(folder: Path, stem: str = "*", suffix: str = "*") -> None:
    """Remove what killed processes left behind in `atomic_path`, in a folder of which the caller is the only writer.

    Args:
        stem, suffix: patterns of the final files' names; by default all files in ``folder``.
    """
    _remove_abandoned(folder, f".{stem}-????????{suffix}", if_unknown=True)


@contextmanager
def only_writer(folder: Path, busy: Callable[[str], Exception]) -> Iterator[None]:
    """Lock a folder for this process; the operating system releases the lock when the process ends.

    On a file system without locks, a warning is logged and the work goes on.  Forked processes do not inherit the lock
    (with `flock`, which `filelock` uses, they would): an image-reading worker may outlive a killed training by seconds.

    Args:
        busy: makes the exception to raise if another process holds the lock, from a description of that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise busy(file.read(100) or "unknown") from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): nothing else must write there", folder, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")


def link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link to a file, or a copy if the file system has no hard links.

    Linked names share their content, so neither may be modified in place; `atomic_path` replaces files instead.

    Raises:
        OutputError: neither a link nor a copy could be created.
    """
    with atomic_path(target) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        os.utime(temporary)  # the workflow expects a result to be newer than its inputs


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


KEPT_FROM_BYTES = 2 ** 26
"""Files of this size or larger have their hash cached by `sha256_kept`; hashing this much takes a tenth of a second."""


def sha256_kept(path: Path) -> str:
    """SHA-256 of a file's bytes, as hex; for large files it is cached beside the file in ``.<name>.sha256``.

    The cached hash is valid as long as the file's size, modification time and inode are unchanged.  If it cannot be
    written, the file is hashed each time.  The cache pays off because many jobs read the same network of up to 8 GB.
    """
    before = _state(path)
    if before[0] < KEPT_FROM_BYTES:
        return sha256_of(path)
    kept = path.with_name(f".{path.name}.sha256")
    try:
        with kept.open(encoding="utf-8") as file:
            found = json.loads(file.read(1000))
        if found["state"] == before and re.fullmatch(r"[0-9a-f]{64}", found["sha256"]):
            return found["sha256"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass  # not cached yet, or the cache file is unreadable
    digest = sha256_of(path)
    if _state(path) == before:
        with suppress(OSError):  # the folder may be read-only for this user
            write_text(kept, json.dumps({"sha256": digest, "state": before}))
    return digest


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ino]
