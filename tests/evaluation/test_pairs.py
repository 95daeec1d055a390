"""Which sets of images show the same pictures, and what is refused."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from varient.archive import Archive, write_archive
from varient.evaluation.image_source import ImageSource
from varient.evaluation.inputs import open_samples
from varient.evaluation.pairs import PairError, paired
from varient.export import export_adm, export_png

ORIGIN = {"system": "toy", "experiment": "digits", "seed": 0}


def _images(count=24, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), np.uint8)


def _archive(path, images=None, first=0, classes=4, shift=0, **origin):
    images = _images() if images is None else images
    indices = np.arange(first, first + len(images))
    write_archive(path, Archive(images, (indices + shift) % classes, indices, ORIGIN | origin))
    return path


def _folder(folder, images, names):
    for image, name in zip(images, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / name)
    return folder


def _open(*paths) -> ImageSource:
    return open_samples(list(paths))


def _pixels(pairs):
    halves = [*zip(*pairs.batches(7), strict=True)]
    return tuple(np.concatenate(half) for half in halves)


def test_the_same_pictures_are_paired_whatever_holds_them(tmp_path):
    """Shards, an export that is permuted, one that is sorted by class, and plain numbers as names."""
    images = _images()
    shards = [_archive(tmp_path / f"{at}.npz", images[at:at + 8], at) for at in (0, 8, 16)]
    export_adm(shards, tmp_path / "adm.npz")
    export_png(shards, tmp_path / "png")
    _folder(tmp_path / "plain", images, [f"img{at}.png" for at in range(24)])  # img10 comes before img2
    reference = _open(*shards)
    for place in ("adm.npz", "png", "plain"):
        for pairs in (paired(_open(tmp_path / place), reference), paired(reference, _open(tmp_path / place))):
            first, second = _pixels(pairs)
            assert np.array_equal(first, images) and np.array_equal(second, images), place
            assert pairs.indices.tolist() == list(range(24))
            assert pairs.labels.tolist() == [at % 4 for at in range(24)]
            assert bool(pairs.warnings) == (place == "plain")  # an export says its seed and classes


def test_pairs_of_two_exports_know_seeds_and_classes(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        export_png([_archive(tmp_path / f"{name}.npz", seed=seed)], tmp_path / name)
    assert not paired(_open(tmp_path / "a"), _open(tmp_path / "c")).warnings
    with pytest.raises(PairError, match="seed"):
        paired(_open(tmp_path / "a"), _open(tmp_path / "b"))


@pytest.mark.parametrize(("other", "named"), [
    ({"seed": 1}, "seed, 1 and 0"), ({"experiment": "fashion"}, "experiment"), ({"shift": 1}, "class of image 0"),
    ({"images": _images(side=9)}, "side of their images, 9 and 8"), ({"images": _images(20)}, "images, 20 and 24"),
    ({"first": 24}, "24")])
def test_sets_of_other_pictures_are_refused_in_one_line(other, named, tmp_path):
    sets = _open(_archive(tmp_path / "other.npz", **other)), _open(_archive(tmp_path / "reference.npz"))
    for first, second in (sets, sets[::-1]):
        with pytest.raises(PairError) as refused:
            paired(first, second)
        (line,) = str(refused.value).splitlines()
        assert "other.npz" in line and "reference.npz" in line
    with pytest.raises(PairError, match=re.escape(named)):
        paired(*sets)


@pytest.mark.parametrize("names", [
    [f"{letter}.png" for letter in "abcdefghijklmnopqrstuvwx"],
    [f"{at}-{'abc'[at % 3]}.png" for at in range(24)],
    [f"{at // 8}/{at % 8}.png" for at in range(24)]])
def test_a_folder_without_an_order_is_refused(names, tmp_path):
    images = _images()
    for first, second in [(_folder(tmp_path / "folder", images, names), _archive(tmp_path / "a.npz", images)),
                          (tmp_path / "folder", tmp_path / "folder")]:
        with pytest.raises(PairError, match="folder: without an order") as refused:
            paired(_open(first), _open(second))
        assert len(str(refused.value).splitlines()) == 1


def test_an_adm_batch_has_an_order_only_beside_one_like_it_or_with_its_manifest(tmp_path):
    archive = _archive(tmp_path / "a.npz")
    export_adm([archive], tmp_path / "adm.npz")
    manifest = tmp_path / "adm.manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    pairs = paired(_open(tmp_path / "adm.npz"), _open(tmp_path / "adm.npz"))
    assert "seed" in pairs.warnings[0] and len(pairs) == 24
    with pytest.raises(PairError, match=r"adm\.npz: without an order"):
        paired(_open(archive), _open(tmp_path / "adm.npz"))
    manifest.write_text(json.dumps(json.loads(text) | {"arr_0_crc32": 1}))  # of another file
    with pytest.raises(PairError, match=r"adm\.npz: without an order"):
        paired(_open(tmp_path / "adm.npz"), _open(archive))


def test_a_compressed_batch_in_another_order_is_refused(tmp_path):
    """Each picture would be unpacked with all before it."""
    archive = _archive(tmp_path / "a.npz")
    export_adm([archive], tmp_path / "adm.npz")
    with np.load(tmp_path / "adm.npz") as file:
        arrays = dict(file)
    np.savez_compressed(tmp_path / "adm.npz", **arrays)  # the manifest's checksum is that of the images, and still fits
    for sets in ((archive, tmp_path / "adm.npz"), (tmp_path / "adm.npz", archive)):
        with pytest.raises(PairError, match=r"adm\.npz: its images are compressed") as refused:
            paired(*map(_open, sets))
        assert len(str(refused.value).splitlines()) == 1
    np.savez(tmp_path / "adm.npz", **arrays)
    assert len(paired(_open(archive), _open(tmp_path / "adm.npz"))) == 24


@pytest.mark.parametrize(("other", "named"), [
    ({"sampling": {"cfg": 4.0}}, "differ in their sampling"),
    ({"weights_sha256": {"tokenizer": "b", "base": "b"}}, "differ in their tokenizer")])
def test_sets_of_another_sampling_or_tokenizer_are_compared_with_a_warning(other, named, tmp_path):
    same = {"sampling": {"cfg": 1.5}, "weights_sha256": {"tokenizer": "a", "base": "a"}}
    reference = _open(_archive(tmp_path / "reference.npz", **same))
    (warning,) = paired(_open(_archive(tmp_path / "other.npz", **same | other)), reference).warnings
    assert named in warning
    another_base = same | {"weights_sha256": {"tokenizer": "a", "base": "b"}}  # what a comparison is about
    assert paired(_open(_archive(tmp_path / "base.npz", **another_base)), reference).warnings == ()


def test_guessed_classes_refuse_nothing(tmp_path):
    """Folders by names of classes are numbered in their order, which need not be the set's."""
    images = _images()
    names = [f"{'abcd'[(at + 1) % 4]}/{at}.png" for at in range(24)]
    folder, archive = _open(_folder(tmp_path / "folder", images, names)), _open(_archive(tmp_path / "a.npz"))
    for sets in ((folder, archive), (archive, folder)):
        pairs = paired(*sets)
        assert any("guessed from names" in text for text in pairs.warnings)
        assert pairs.labels.tolist() == archive.labels.tolist()


def test_classes_of_an_export_are_no_guesses_whatever_its_origin(tmp_path):
    images = _images()
    write_archive(tmp_path / "a.npz", Archive(images, np.arange(24) % 4, np.arange(24), {}))
    write_archive(tmp_path / "b.npz", Archive(images, (np.arange(24) + 1) % 4, np.arange(24), {}))
    export_png([tmp_path / "a.npz"], tmp_path / "png")
    with pytest.raises(PairError, match="class of image 0"):
        paired(_open(tmp_path / "png"), _open(tmp_path / "b.npz"))
