"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

_LOCK = ".lock"


class OutputError(OSError):
    """A result could not be written; nothing was left behind."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends well and removed when it does not.

    Raises:
        OutputError: the file could not be written (a full disk, say).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
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
    (with `flock` they would): one that reads images may outlive a killed training by seconds.

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
