"""Safe reader of untrusted `torch.save` files: the archive is checked first and loaded without running code."""

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

MAX_PICKLE_BYTES = 2 ** 21
"""Size limit of the pickle (names, shapes and settings, without tensor data); a training checkpoint's is below 1 MB.  A
hostile one of this size takes two seconds, and 64 times as much memory."""

_FORM = "torch checkpoint"
_BLOCK, _PICKLE = 2 ** 20, "data.pkl"
_LONGEST_HEADER = 2 ** 18
"""Bytes of a zip member's own header, at most."""
_SPARED = (b"bytearray", b"_codecs")
"""Functions that torch allows and with which a few bytes ask for any amount of memory; no weights need them."""
# Types that trainers store besides weights and torch does not allow by default: command-line arguments, plain values.
_PLAIN = [argparse.Namespace]

log = logging.getLogger(__name__)


def read_torch_file(path: Path, *, mapped: bool = False, verified: bool = True) -> object:
    """Load the content of a `torch.save` file on the CPU.

    The checksums, which torch does not verify, are verified before torch reads the file.  Memory use is bounded by the
    size of the file.

    Args:
        mapped: memory-map the tensors; the file must not change meanwhile.  Files of torch before 1.6 cannot be mapped
            and are read.
        verified: verify the checksums, which reads the whole file.

    Raises:
        CheckpointError: the file is missing, damaged, not a torch checkpoint, or contains more than tensors and plain
            values.
    """
    kind = check_kind(path, TORCH, OLD_TORCH, form=_FORM)
    if kind == TORCH:
        _check_members(path, verified)
    else:
        log.warning("%s is %s, which has no checksums: damaged tensors would not be detected", path, OLD_TORCH)
        _check_functions(path, 0, path.stat().st_size)
    try:
        with torch.serialization.safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and kind == TORCH)
    except Exception as error:  # a damaged pickle may raise any type
        raise CheckpointError(f"{path}: not a readable {_FORM}, or one that holds more than tensors "
                              f"({_reason(error)})") from None


def _check_members(path: Path, verified: bool) -> None:
    """Check the sizes of a zip archive's members, which torch stores uncompressed, and, if ``verified``, their CRCs."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            problem = _wrong_sizes(members, path.stat().st_size)
            if problem:
                raise CheckpointError(f"{path}: not a readable {_FORM}: {problem}")
            for member in members:
                if member.filename.endswith(_PICKLE):
                    _check_functions(path, member.header_offset, _LONGEST_HEADER + member.file_size)
            if not verified:
                return
            if not any(member.CRC for member in members):
                log.warning("%s was written without checksums: damaged tensors would not be detected", path)
                return
            for member in members:
                with archive.open(member) as file:
                    while file.read(_BLOCK):
                        pass
    except CheckpointError:
        raise
    except Exception as error:  # a damaged archive may raise any type
        raise CheckpointError(f"{path}: not a readable {_FORM}, but a damaged one ({_reason(error)})") from None


def _check_functions(path: Path, begin: int, size: int) -> None:
    """Check that a part of a file, in which a pickle lies, does not name functions that could ask for any amount of
    memory."""
    before = b""
    with path.open("rb") as file:
        file.seek(begin)
        while size > 0 and (block := file.read(min(_BLOCK, size))):
            if found := next((name for name in _SPARED if name in before + block), None):
                raise CheckpointError(f"{path}: not a readable {_FORM}: it asks for {found.decode()}, which is no part "
                                      "of weights")
            before, size = block[-max(map(len, _SPARED)):], size - len(block)


def _wrong_sizes(members: list[zipfile.ZipInfo], file_size: int) -> str:
    """Why an archive was not written by torch, or ""; compressed or overlapping members could expand to any size."""
    if any(member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1 for member in members):
        return "it has packed or encrypted members, and torch writes none"
    if sum(member.file_size for member in members) > file_size:
        return "its members are larger than the file"
    largest = max((member.file_size for member in members if member.filename.endswith(_PICKLE)), default=0)
    if largest > MAX_PICKLE_BYTES:
        return f"its pickle has {largest} bytes, more than {MAX_PICKLE_BYTES}"
    return ""


def _reason(error: Exception) -> str:
    """The reason in one line, without torch's advice to load with ``weights_only=False``, which is unsafe."""
    text = str(error).strip()
    if foreign := re.search(r"GLOBAL ([\w.]+)", text):
        return f"it asks for {foreign[1]}, which is no part of plain weights and could run code"
    line = text.partition("\n")[0]
    if line and isinstance(error, (RuntimeError, OSError, zipfile.BadZipFile)) and "weights_only" not in line:
        return line[:200]
    return f"its pickle is damaged, or of another protocol than torch's own: {type(error).__name__}"
