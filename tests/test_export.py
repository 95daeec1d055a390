"""What is exported holds the same images, in an order that anyone can find again."""

import hashlib
import json
import tracemalloc
import zipfile

import numpy as np
import pytest

from varient.archive import Archive, write_archive
from varient.evaluation.inputs import SampleError, manifest_path, open_samples
from varient.export import export_adm, export_png
from varient.files import OutputError, sha256_of


def _shards(folder, bounds=((0, 5), (5, 9), (9, 14)), total=14, side=8):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (total, 3, side, side), dtype=np.uint8)
    paths = [folder / f"{number}.npz" for number in range(len(bounds))]
    for path, (begin, end) in zip(paths, bounds, strict=True):
        write_archive(path, Archive(images[begin:end], np.arange(begin, end) % 4, np.arange(begin, end),
                                    {"system": "var-d16", "sampling": {"num_images": total}}))
    return paths


def test_an_adm_batch_is_the_run_in_the_fixed_permutation(tmp_path):
    shards = _shards(tmp_path / "run")
    archive = open_samples(shards)
    manifest = export_adm(shards[::-1], tmp_path / "out" / "samples.npz")
    order = np.random.RandomState(2020).permutation(14)
    with np.load(tmp_path / "out" / "samples.npz", allow_pickle=False) as file:
        assert file.files == ["arr_0", "arr_1"]
        assert file["arr_0"].dtype == np.uint8
        assert np.array_equal(file["arr_0"], archive.batch(0, 14)[order].transpose(0, 2, 3, 1))
        assert np.array_equal(file["arr_1"], archive.labels[order])
    assert manifest == json.loads((tmp_path / "out" / "samples.manifest.json").read_text())
    assert manifest["permutation_seed"] == 2020 and manifest["origin"] == archive.origin
    assert manifest["images_sha256"] == open_samples(shards).sha256
    assert manifest["shards"] == [{"file": path.name, "sha256": sha256_of(path)} for path in shards]
    assert (manifest["num_images"], manifest["image_size"], manifest["num_classes"]) == (14, 8, 4)


def test_adms_own_way_of_reading_works(tmp_path):
    """The evaluator wants version 1 headers and C order, or it loads everything."""
    export_adm(_shards(tmp_path / "run"), tmp_path / "samples.npz")
    with zipfile.ZipFile(tmp_path / "samples.npz") as archive, archive.open("arr_0.npy") as member:
        assert np.lib.format.read_magic(member) == (1, 0)
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        assert (shape, fortran, dtype) == ((14, 8, 8, 3), False, np.dtype(np.uint8))
        assert len(member.read()) == 14 * 8 * 8 * 3
        assert archive.testzip() is None


def test_reading_an_exported_batch_back(tmp_path):
    shards = _shards(tmp_path / "run")
    export_adm(shards, tmp_path / "samples.npz")
    back, order = open_samples([tmp_path / "samples.npz"]), np.random.RandomState(2020).permutation(14)
    assert np.array_equal(back.batch(0, 14), open_samples(shards).batch(0, 14)[order])
    assert back.permutation_seed == 2020 and back.origin["system"] == "var-d16"
    assert back.warnings == (f"{back.place}: 3 to 4 images a class; published scores have equal counts",)


def test_a_manifest_of_another_file_is_not_believed(tmp_path):
    export_adm(_shards(tmp_path / "run"), tmp_path / "samples.npz")
    np.savez(tmp_path / "samples.npz", arr_0=np.zeros((3, 8, 8, 3), np.uint8))
    source = open_samples([tmp_path / "samples.npz"])
    assert source.permutation_seed is None and "describes another file" in source.warnings[0]
    manifest_path(tmp_path / "samples.npz").write_text("[")
    assert "describes another file" in open_samples([tmp_path / "samples.npz"]).warnings[0]


def test_exporting_again_gives_the_same_bytes_and_another_seed_another_order(tmp_path):
    shards = _shards(tmp_path / "run")
    for name, seed in (("a", 2020), ("b", 2020), ("c", 1)):
        export_adm(shards, tmp_path / f"{name}.npz", seed)
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b != c
    assert open_samples([tmp_path / "c.npz"]).permutation_seed == 1


def test_few_images_are_in_memory_at_once(tmp_path):
    shards = _shards(tmp_path / "run", ((0, 500), (500, 1000)), 1000, side=64)
    tracemalloc.start()
    export_adm(shards, tmp_path / "samples.npz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 3 * 64 * 64
    expected = open_samples(shards).batch(0, 1000)[np.random.RandomState(2020).permutation(1000)]
    assert np.array_equal(open_samples([tmp_path / "samples.npz"]).batch(0, 1000), expected)


def test_pngs_are_the_same_images(tmp_path):
    shards = _shards(tmp_path / "run")
    archive = open_samples(shards)
    manifest = export_png(shards, tmp_path / "out" / "png")
    back = open_samples([tmp_path / "out" / "png"])
    order = np.lexsort((archive.indices, archive.labels))  # by class, then by index
    assert np.array_equal(back.batch(0, 14), archive.batch(0, 14)[order])
    assert back.labels.tolist() == archive.labels[order].tolist() and "sorted by class" in back.warnings[1]
    assert (tmp_path / "out" / "png" / "0001_000005.png").exists()
    assert manifest["images_sha256"] == open_samples(shards).sha256
    assert json.loads((tmp_path / "out" / "png" / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize("export", [export_adm, export_png])
@pytest.mark.parametrize(("missing", "match"), [
    (0, "starts at image 5: a shard is missing"), (1, "starts at index 9, expected 5"), (2, "9 images of 14")])
def test_incomplete_sets_are_refused(tmp_path, export, missing, match):
    shards = _shards(tmp_path / "run")
    del shards[missing]
    with pytest.raises(SampleError, match=match):
        export(shards, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("export", [export_adm, export_png])
def test_what_a_folder_of_shards_hides_is_said(tmp_path, export, caplog):
    _shards(tmp_path / "run")
    (tmp_path / "run/.3-abcdefgh.npz").write_bytes(b"")
    manifest = export([tmp_path / "run"], tmp_path / "out")
    assert manifest["num_images"] == 14 and ".3-abcdefgh.npz" in caplog.text


@pytest.mark.parametrize("export", [export_adm, export_png])
def test_an_output_that_cannot_be_written_is_said_first(tmp_path, export):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file/out"):
        export([tmp_path / "no shards"], tmp_path / "file/out")


@pytest.mark.parametrize("export", [export_adm, export_png])
def test_only_archives_are_exported(tmp_path, export):
    np.savez(tmp_path / "adm.npz", arr_0=np.zeros((3, 8, 8, 3), np.uint8))
    with pytest.raises(SampleError, match="not sample archives of varient"):
        export([tmp_path / "adm.npz"], tmp_path / "out")


@pytest.mark.parametrize("export", [export_adm, export_png])
def test_a_failed_export_leaves_nothing(tmp_path, export, monkeypatch):
    shards, calls = _shards(tmp_path / "run"), []

    def full(image):
        calls.append(image)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return np.frombuffer(b"".join(hashlib.sha256(x).digest() for x in image), np.uint8).reshape(-1, 32)

    monkeypatch.setattr("varient.export._BATCH", 4)
    monkeypatch.setattr("varient.export.digests_of", full)
    with pytest.raises(OutputError, match="out: could not be written"):
        export(shards, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(SampleError, match="exists and is not empty"):
        export_png(_shards(tmp_path / "run"), tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "x"
