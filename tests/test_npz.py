"""Whatever bytes an .npz holds, what comes out is its arrays or one line that names the file."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from varient import npz
from varient.evaluation import image_source
from varient.evaluation.image_source import pixel_warnings
from varient.evaluation.inputs import open_reference, open_samples
from varient.npz import SampleError, member_names, npz_array, small_array
from varient.training.curves import CurveError, read_curves
from varient.training.image_folder import _read_index

MAGIC = b"\x93NUMPY\x01\x00"


def _npz(path, header, data=b"", packing=zipfile.ZIP_STORED, name="arr_0"):
    """An .npz with one array whose header is ``header``."""
    text = header.encode("latin1") + b"\n"
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr(f"{name}.npy", MAGIC + len(text).to_bytes(2, "little") + text + data)
    return path


def _header(shape, descr="|u1", fortran=False):
    return f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}"


HOSTILE = {
    "17.5 TiB": _header((100_000_000_000, 8, 8, 3)),
    "overflow": _header((2 ** 32, 2 ** 32, 2 ** 32, 3)),
    "overflow to 0": _header((2 ** 62, 4, 1, 3)),
    "negative": _header((-1, 8, 8, 3)),
    "open bracket": "{'descr': '|u1', 'shape': (1, 2",
    "no Python": "{'descr' '|u1'}}}]",
    "open string": "{'descr': '|u1",
    "another type": "[1, 2, 3]",
    "keys missing": "{'descr': '|u1'}",
    "shape of text": _header("'abc'"),
    "shape of floats": _header((1.5, 8)),
    "no dtype": _header((1, 8, 8, 3), "|zz"),
    "unhashable": "{[]: 1}",
    "deep": "(" * 5000,
    "objects": _header((1,), "|O"),
    "null bytes": "\0" * 40,
    "long": _header((1, 8, 8, 3)) + " " * 30_000,
}


def test_any_number_of_images_of_no_pixels(tmp_path):
    path = _npz(tmp_path / "a.npz", _header((2 ** 50, 0, 0, 3)))
    with pytest.raises(SampleError, match="an ADM batch is"):
        open_samples([path])


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA], ids=str)
@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_one_line_that_names_the_file(tmp_path, header, packing):
    path = _npz(tmp_path / "a.npz", header, bytes(192), packing)
    for read in (open_samples, open_reference):
        tracemalloc.start()
        try:
            with pytest.raises(SampleError, match=r"a\.npz") as caught:
                read([path])
            assert tracemalloc.get_traced_memory()[1] < 50e6
        finally:
            tracemalloc.stop()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("header", HOSTILE.values(), ids=HOSTILE)
def test_so_are_those_of_small_arrays(tmp_path, header):
    path = _npz(tmp_path / "a.npz", header, bytes(192), name="mu")
    with pytest.raises(SampleError, match=r"a\.npz"):
        small_array(path, "mu")


@pytest.mark.parametrize("version", [b"\x02\x00", b"\x03\x00"])
def test_so_are_headers_that_unpack_to_very_many_bytes(tmp_path, version):
    """75 MB of spaces as the header of an array."""
    path, size = tmp_path / "a.npz", 75_000_000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY" + version + size.to_bytes(4, "little") + b" " * size)
    assert path.stat().st_size < 10 ** 6
    for read in (npz_array, small_array):
        tracemalloc.start()
        try:
            with pytest.raises(SampleError, match=r"a\.npz: ") as caught:
                read(path, "arr_0")
            assert tracemalloc.get_traced_memory()[1] < 10e6
        finally:
            tracemalloc.stop()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["labels", "indices", "origin", "arr_1", "mu", "images", "arr_0", "loss:step"])
def test_a_few_bytes_that_unpack_to_very_many_are_refused_before_they_do(tmp_path, monkeypatch, name):
    """Arrays of zeros, 75 MB each; images of a side that none has."""
    assert npz._MOST_UNPACKED <= 2 ** 28
    monkeypatch.setattr(npz, "_MOST_UNPACKED", 2 ** 26)
    zeros = {"images": ((1, 3, 5000, 5000), "|u1"), "arr_0": ((1, 5000, 5000, 3), "|u1"), "origin": ((), "<U18750000")}
    header = _header(*zeros.get(name, ((9_375_000,), "<i8")))
    others = {"images": np.zeros((2, 3, 4, 4), np.uint8), "labels": np.zeros(2, int), "indices": np.arange(2),
              "origin": np.array("{}")}
    if name == "loss:step":
        others = {"loss:value": np.zeros(2, np.float32)}
    if name in ("arr_1", "mu"):
        others = {"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "sigma": np.zeros((2, 2))}
    path = _npz(tmp_path / "a.npz", header, bytes(75_000_000), zipfile.ZIP_DEFLATED, name=name)
    with zipfile.ZipFile(path, "a") as archive:
        for other, array in others.items():
            if other != name:
                with archive.open(f"{other}.npy", "w") as file:
                    np.save(file, array)
    assert path.stat().st_size < 10 ** 6
    readers = {"mu": lambda: open_reference([path]), "loss:step": lambda: read_curves(path)}
    tracemalloc.start()
    try:
        with pytest.raises((SampleError, CurveError), match=rf"a\.npz: {name}") as caught:
            readers.get(name, lambda: open_samples([path]))()
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_large_images_are_read_few_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(image_source, "_BATCH_BYTES", 2 ** 20)
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((40, 200, 200, 3), np.uint8))
    source = open_samples([tmp_path / "a.npz"])
    assert [len(images) for images in source.batches(64)] == [8] * 5
    tracemalloc.start()
    try:
        assert pixel_warnings(source) and source.sha256
        assert tracemalloc.get_traced_memory()[1] < 3e6
    finally:
        tracemalloc.stop()


def test_a_directory_entry_that_claims_more_than_the_file_holds(tmp_path):
    """Sizes of a packed member are what its writer says."""
    path = _npz(tmp_path / "a.npz", _header((10 ** 6, 8, 8, 3)), bytes(192), zipfile.ZIP_DEFLATED)
    data, size = path.read_bytes(), zipfile.ZipFile(path).getinfo("arr_0.npy").file_size
    path.write_bytes(data.replace(size.to_bytes(4, "little"), (size - 192 + 192 * 10 ** 6).to_bytes(4, "little")))
    with pytest.raises(SampleError, match="shorter than the file says"):
        npz_array(path, "arr_0")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x89PNG\r\n\x1a\n", b"text", bytes(1000), MAGIC])
def test_files_that_are_no_npz(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    for read in (member_names, lambda path: npz_array(path, "x"), lambda path: small_array(path, "x"),
                 lambda path: open_samples([path])):
        with pytest.raises(SampleError, match=r"a\.npz: truncated or damaged, or not an \.npz"):
            read(tmp_path / "a.npz")
    assert _read_index(tmp_path / "a.npz") is None


def test_any_flipped_byte_is_an_array_or_an_error_of_ours(tmp_path):
    file = io.BytesIO()
    np.savez_compressed(file, arr_0=np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8))
    data = file.getvalue()
    for at in range(len(data)):
        (tmp_path / "a.npz").write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1:])
        try:
            open_samples([tmp_path / "a.npz"]).batch(0, 2)
        except SampleError as error:
            assert "a.npz" in str(error)


def test_small_arrays_of_any_kind_come_back(tmp_path):
    arrays = {"c": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
              "text": np.array("ä"), "empty": np.zeros((0, 3)), "scalar": np.array(3.5)}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        for name, array in arrays.items():
            found = small_array(tmp_path / "a.npz", name)
            assert np.array_equal(found, array) and found.dtype == array.dtype and found.shape == array.shape
    with pytest.raises(SampleError, match=r"a\.npz: has no array x"):
        small_array(tmp_path / "a.npz", "x")
    with pytest.raises(SampleError, match="a folder, not an .npz"):
        member_names(tmp_path)
