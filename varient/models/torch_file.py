"""The one reader of files that `torch.save` wrote, whoever sent them: checked first, read without running code."""

from __future__ import annotations

import argparse
import logging
import re
import warnings
import zipfile
from pathlib import Path

import torch

from varient.models.checkpoint import CheckpointError, check_kind
from varient.models.file_kind import OLD_TORCH, TORCH

MAX_PICKLE_BYTES = 2 ** 26
"""Of the pickle beside the tensors' bytes: names, shapes and settings; a training's is below one MB."""

_FORM = "torch checkpoint"
_BLOCK = 2 ** 20
# What trainers save beside weights and torch does not know: their command line, names and plain values.
_PLAIN = [argparse.Namespace]

log = logging.getLogger(__name__)


def read_torch_file(path: Path, *, mapped: bool = False, verified: bool = True) -> object:
    """What `torch.save` wrote, on the CPU.

    A file is read once for its checksums, which torch does not compare, and only then by torch; what it may make of
    memory is bounded by the file's own size.

    Args:
        mapped: leave the tensors' bytes in the file, which must not change then, until they are copied; a file of
            torch before 1.6 is read all the same.
        verified: compare the checksums, which reads all of the file; for a look at names and shapes it can wait.

    Raises:
        CheckpointError: no such file, something else than a torch checkpoint, a damaged one, or one that holds more
            than tensors and plain values.
    """
    kind = check_kind(path, TORCH, OLD_TORCH, form=_FORM)
    if kind == TORCH:
        _check_members(path, verified)
    else:
        log.warning("%s is %s, which has no checksums: a damaged tensor in it would not be seen", path, OLD_TORCH)
    try:
        with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and kind == TORCH)
    except Exception as error:  # a damaged pickle may raise any
        raise CheckpointError(f"{path}: not a readable {_FORM}, or one that holds more than tensors "
                              f"({_reason(error)})") from None


def _check_members(path: Path, verified: bool) -> None:
    """Compare the sizes of a zip archive's members, which torch stores as they are, and their checksums if wanted."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            problem = _wrong_sizes(members, path.stat().st_size)
            if problem:
                raise CheckpointError(f"{path}: not a readable {_FORM}: {problem}")
            if not verified:
                return
            if not any(member.CRC for member in members):
                log.warning("%s was written without checksums: a damaged tensor in it would not be seen", path)
                return
            for member in members:
                with archive.open(member) as file:
                    while file.read(_BLOCK):
                        pass
    except CheckpointError:
        raise
    except Exception as error:  # so may a damaged archive
        raise CheckpointError(f"{path}: not a readable {_FORM}, but a damaged one ({_reason(error)})") from None


def _wrong_sizes(members: list[zipfile.ZipInfo], file_size: int) -> str:
    """Why an archive is none of torch's, or nothing; packed or overlapping members could be of any size."""
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        return "it has packed or encrypted members, and torch writes none"
    if sum(member.file_size for member in members) > file_size:
        return "its members are larger than the file"
    largest = max((member.file_size for member in members if member.filename.endswith("data.pkl")), default=0)
    if largest > MAX_PICKLE_BYTES:
        return f"its pickle has {largest} bytes, more than {MAX_PICKLE_BYTES}"
    return ""


def _reason(error: Exception) -> str:
    """One line; torch's own advice, to read an untrusted file without restraint, is not passed on."""
    text = str(error).strip()
    if foreign := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it asks for {foreign[1]}, which is no part of plain weights and could run code"
    line = text.partition("\n")[0]
    if line and isinstance(error, (RuntimeError, OSError, zipfile.BadZipFile)) and "weights_only" not in line:
        return line[:200]
    return f"its pickle is damaged, or of another protocol than torch's own: {type(error).__name__}"
