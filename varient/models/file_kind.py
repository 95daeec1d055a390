"""Detection of a file's kind by its first bytes, for example of an HTML error page that was saved as a checkpoint."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path, PurePosixPath

TORCH = "a torch checkpoint"
OLD_TORCH = "a torch checkpoint in the format of torch before 1.6"
TORCH_SCRIPT = "a TorchScript archive, which is a program and no plain weights"
SAFETENSORS = "a safetensors file"
JSON = "a JSON document"

_HEAD = 512
_MOST_JSON = 2 ** 20
"""Limit of the bytes of a file that is parsed to tell its kind."""
_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_TORCH_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Magic number at the beginning of torch's old format, after the two bytes of the pickle protocol."""

_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for (`git lfs pull` fetches that)"),
    (b"/annex/objects/", "a git-annex pointer, not the file it stands for"),
    (b"\x1f\x8b", "a gzip archive (unpack it)"),
    (b"BZh", "a bzip2 archive (unpack it)"),
    (b"\xfd7zXZ\0", "an xz archive (unpack it)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive (unpack it)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive (unpack it)"),
    (b"Rar!", "a RAR archive (unpack it)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x7fELF", "a program"),
)


def kind_of(path: Path) -> str:
    """One of the kinds above, or another kind in words, from the first bytes (or the member list of a zip archive).

    Raises:
        OSError: the file is missing or cannot be read.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return "a folder"
    if not stat.S_ISREG(mode):  # reading a pipe could block
        return "no regular file"
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "an empty file"
    if head.startswith(_ZIP):
        return _kind_of_zip(path)
    # First, because a safetensors file begins with the length of its header, which may equal any other signature.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2 ** 32:
        return SAFETENSORS
    if head.startswith(_PICKLE):
        is_torch = head[2:].startswith(_TORCH_MAGIC)
        return OLD_TORCH if is_torch else "a Python pickle that torch did not write; reading it could run code"
    if head[257:262] == b"ustar":
        return "a tar archive (unpack it)"
    for signature, kind in _SIGNATURES:
        if head.startswith(signature):
            return kind
    if not head.strip(b"\0"):
        return "a file that begins with zeros only (a download that was not finished?)"
    return _kind_of_text(path, head)


def _kind_of_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(name) for name in archive.namelist()]
    except Exception:  # zipfile raises many types of exceptions for a damaged directory
        return "a zip archive that is truncated or damaged (a download that was cut short?)"
    if any(name.name == "constants.pkl" for name in names):
        return TORCH_SCRIPT
    if any(name.name == "data.pkl" for name in names):
        return TORCH
    if any(name.suffix == ".npy" for name in names):
        return "a NumPy archive (.npz)"
    return f"a zip archive without a checkpoint in it (its first member is {str(names[0])[:60]!r})"


def _kind_of_text(path: Path, head: bytes) -> str:
    text = _decoded(head)
    if text is None:
        return f"of a kind that is not known here (its first bytes are {head[:8].hex(' ')})"
    begin = text.lstrip()[:200].lower()
    if begin.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "an HTML page (an error or login page in place of the file?)"
    if begin.startswith("<"):
        return "an XML document (an error message in place of the file?)"
    if begin.startswith(("{", "[")) and _is_json(path):
        return JSON
    line = " ".join(text.split())
    return f"text, not weights (it begins {line[:40]!r})"


def _decoded(head: bytes) -> str | None:
    """The bytes as UTF-8 text, or None if they are not text."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return head[:len(head) // 2 * 2].decode("utf-16", errors="replace")
    for cut in range(4 if len(head) == _HEAD else 1):  # the last character may be incomplete
        try:
            text = head[:len(head) - cut].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        return text if all(character.isprintable() or character.isspace() for character in text) else None
    return None


def _is_json(path: Path) -> bool:
    if path.stat().st_size > _MOST_JSON:
        return False
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return True
