"""Reading of arrays in .npz files, large ones without loading them into memory.

All untrusted .npz files are read with this module.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np

_CHUNK = 2 ** 20
_MOST_UNPACKED = 2 ** 28
"""Limit of the bytes of a compressed array that is read into memory; an uncompressed one is no larger than its file."""
_MOST_HEADER = 2 ** 17
"""Limit of the bytes of an array's header; NumPy's own have a hundred, and its reader takes 10,000."""
_MOST_TEXT = 2 ** 24
"""Limit of the bytes of a text, four for each character."""
_MOST_PACKED = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
"""Highest compression ratio (bytes per compressed byte) that NumPy's .npz compression can reach."""


class SampleError(ValueError):
    """Images are missing, damaged or cannot be read without loss; the message is one line that names the file."""


class StoredArray(Protocol):
    """Interface of both readers of .npz members: a shape, a dtype, and rows by slice."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def __getitem__(self, rows: slice) -> np.ndarray: ...


def member_names(path: Path) -> set[str]:
    """Names of the arrays in an .npz.

    Raises:
        SampleError: no such file, not an .npz file, or names that are damaged.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            archive.open(info).close()  # compares the name with that before the data: no checksum covers the directory
        return {name.removesuffix(".npy") for name in archive.namelist()}


def member_crc(path: Path, name: str) -> int:
    """CRC-32 of an array in an .npz file including its header, as stored in the file.

    Raises:
        SampleError: no such file or array, truncated or damaged.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        return _info(path, archive, name).CRC


def npz_array(path: Path, name: str) -> StoredArray:
    """An array in an .npz file: memory-mapped if stored uncompressed, else decompressed while it is read.

    A compressed array is read sequentially; reading earlier rows again starts from the beginning.  The CRC of an
    uncompressed array is checked here, once; that of a compressed array while it is read.

    Raises:
        SampleError: no such file or array, truncated or damaged, or an array in Fortran order.
    """
    with _reading(path):
        with zipfile.ZipFile(path) as archive:
            member = _member(path, archive, name)
        if member.fortran_order:
            raise SampleError(f"{path}: {name} is in Fortran order")
        return _map_stored(path, member) if member.info.compress_type == zipfile.ZIP_STORED else _PackedArray(
            path, member)


def is_sequential(array: StoredArray) -> bool:
    """Whether reading earlier rows again starts from the beginning."""
    return isinstance(array, _PackedArray)


def small_array(path: Path, name: str, most_bytes: int | None = None) -> np.ndarray:
    """An array in an .npz file, read into memory.

    Args:
        most_bytes: limit of its size; default: that of the file, and 256 MiB if it is compressed.

    Raises:
        SampleError: no such file or array, truncated or damaged, or larger.
    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        member = _member(path, archive, name)
        is_packed = member.info.compress_type != zipfile.ZIP_STORED
        if member.info.file_size > (most_bytes or (_MOST_UNPACKED if is_packed else member.info.file_size)):
            raise SampleError(f"{path}: {name} has {member.info.file_size:,} bytes, which is too much for what it is")
        data, at = memoryview(bytearray(member.info.file_size)), 0
        with archive.open(member.info) as file:  # zipfile checks the CRC at the end of the member
            while part := file.read(min(_CHUNK, len(data) - at)):
                data[at:at + len(part)] = part
                at += len(part)
        if at < len(data):
            raise EOFError(f"{name} is shorter than the file says")
        return np.ndarray(member.shape, member.dtype, data, member.header_bytes,
                          order="F" if member.fortran_order else "C")


def json_value(path: Path, name: str) -> Any:
    """A value stored in an .npz file as JSON text.

    Raises:
        SampleError: no such file or text, truncated or damaged, or not JSON.
    """
    with _reading(path):
        text = small_array(path, name, _MOST_TEXT)
        if text.dtype.kind != "U" or text.shape != ():
            raise SampleError(f"{path}: {name} is {text.dtype} {text.shape}, expected a text")
        try:
            return json.loads(str(text))
        except (ValueError, RecursionError) as error:
            raise SampleError(f"{path}: its {name} is damaged ({error})") from None


def mapped_array(path: Path) -> np.ndarray:
    """The array of an .npy file, memory-mapped.

    Raises:
        SampleError: no such file, truncated or damaged, or an object array.
    """
    with _reading(path, ".npy"):
        return np.lib.format.open_memmap(path, mode="r")


@contextmanager
def _reading(path: Path, kind: str = ".npz") -> Iterator[None]:
    """Turn any exception raised while a file is read into a `SampleError`."""
    try:
        yield
    except SampleError:
        raise
    except FileNotFoundError:
        raise SampleError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise SampleError(f"{path}: a folder, not an {kind}") from None
    except Exception as error:  # zipfile, zlib, tokenize and NumPy raise many types of exceptions for damaged bytes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SampleError(f"{path}: truncated or damaged, or not an {kind} file ({reason[:300]})") from None


class _Member(NamedTuple):
    """An array within an .npz, not read yet."""

    info: zipfile.ZipInfo
    header_bytes: int
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool


def _info(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(f"{name}.npy")
    except KeyError:
        raise SampleError(f"{path}: has no array {name}") from None


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> _Member:
    """Description of an array, checked against the file's size: a forged header must not cause a huge allocation."""
    info = _info(path, archive, name)
    with archive.open(info) as file:
        begin = io.BytesIO(file.read(_MOST_HEADER))  # NumPy would read as many bytes as the header claims to have
    shape, fortran_order, dtype = _read_header(begin)
    header_bytes = begin.tell()
    if dtype.hasobject:
        raise SampleError(f"{path}: {name} is an object array")
    if info.compress_type not in _MOST_PACKED:
        raise ValueError(f"{name} uses a compression that NumPy does not write")
    if info.file_size > _MOST_PACKED[info.compress_type] * min(info.compress_size, path.stat().st_size):
        raise ValueError(f"{name} is shorter than the file says")
    if info.file_size != header_bytes + math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has another length than its shape implies")
    return _Member(info, header_bytes, shape, dtype, fortran_order)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


class _PackedArray:
    """Rows of a compressed .npz member."""

    def __init__(self, path: Path, member: _Member) -> None:
        self._path, self._header_bytes = path, member.header_bytes
        self._file = zipfile.ZipFile(path).open(member.info)  # noqa: SIM115 -- stays open as long as the array
        self.shape, self.dtype = member.shape, member.dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        begin, end, _ = rows.indices(self.shape[0])
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        with _reading(self._path):
            self._file.seek(self._header_bytes + begin * row_bytes)
            data = self._file.read((end - begin) * row_bytes)
            return np.frombuffer(data, self.dtype).reshape(end - begin, *self.shape[1:])


def _map_stored(path: Path, member: _Member) -> np.ndarray:
    """Memory-map an uncompressed member."""
    info = member.info
    with path.open("rb") as file:
        file.seek(info.header_offset)
        local = file.read(30)
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        begin = info.header_offset + 30 + name_length + extra_length
        file.seek(begin)
        left, crc = info.file_size, 0
        while left and (chunk := file.read(min(_CHUNK, left))):
            left, crc = left - len(chunk), zlib.crc32(chunk, crc)
    if left or crc != info.CRC:
        raise ValueError("bad CRC-32")
    return np.memmap(path, member.dtype, mode="r", offset=begin + member.header_bytes, shape=member.shape)
