"""Arrays of .npz files without unpacking them into memory, and small ones as they are."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np

_CHUNK = 2 ** 20
DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError)
"""What zipfile, zlib and NumPy raise on a damaged file."""


class SampleError(ValueError):
    """Images that are missing, damaged or cannot be taken exactly; one line that names the file."""


class StoredArray(Protocol):
    """What both ways of reading an .npz member offer: a shape, a dtype, and rows by slice."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __getitem__(self, rows: slice) -> np.ndarray: ...


def npz_array(path: Path, name: str) -> StoredArray:
    """An array of an .npz: mapped if stored, else unpacked as it is read (forwards; going back starts again).

    Stored data is checked against its CRC here, once; packed data while it is read.

    Raises:
        SampleError: no such file or array, truncated or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as member:
                shape, fortran, dtype = _read_header(member)
                header = member.tell()
        if dtype.hasobject or fortran:
            raise SampleError(f"{path}: {name} is {'an object array' if dtype.hasobject else 'in Fortran order'}")
        if info.file_size != header + int(np.prod(shape)) * dtype.itemsize:
            raise ValueError(f"{name} is shorter than its shape")
        if info.compress_type != zipfile.ZIP_STORED:
            return _PackedArray(path, info, header, shape, dtype)
        return _map_stored(path, info, header, shape, dtype)
    except FileNotFoundError:
        raise SampleError(f"{path}: no such file") from None
    except KeyError:
        raise SampleError(f"{path}: has no array {name}") from None
    except SampleError:
        raise
    except DAMAGED as error:
        raise SampleError(f"{path}: truncated or damaged ({error})") from None


class _PackedArray:
    """Rows of a compressed .npz member."""

    def __init__(self, path: Path, info: zipfile.ZipInfo, header: int, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._path, self._header = path, header
        self._member = zipfile.ZipFile(path).open(info)  # noqa: SIM115 -- lives as long as the array
        self.shape, self.dtype = shape, dtype

    def __getitem__(self, rows: slice) -> np.ndarray:
        begin, end, _ = rows.indices(self.shape[0])
        row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        try:
            self._member.seek(self._header + begin * row)
            data = self._member.read((end - begin) * row)
            return np.frombuffer(data, self.dtype).reshape(end - begin, *self.shape[1:])
        except DAMAGED as error:
            raise SampleError(f"{self._path}: truncated or damaged ({error})") from None


def _read_header(member: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


def _map_stored(path: Path, info: zipfile.ZipInfo, header: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map a member that lies in the file as it is."""
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
    return np.memmap(path, dtype, mode="r", offset=begin + header, shape=shape)


def member_names(path: Path) -> set[str]:
    """Names of the arrays in an .npz.

    Raises:
        SampleError: no such file, or no .npz.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except FileNotFoundError:
        raise SampleError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise SampleError(f"{path}: not an .npz, or truncated ({error})") from None


def small_array(path: Path, name: str) -> np.ndarray:
    """An array of an .npz, read whole.

    Raises:
        SampleError: truncated or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return file[name]
    except DAMAGED as error:
        raise SampleError(f"{path}: truncated or damaged ({error})") from None
