"""Classes of images by their names, folders, manifests and arrays, and orders that change scores."""

import json

import numpy as np
import pytest
from PIL import Image
from sample_sets import IMAGES, LABELS, assert_refused, write_adm, write_pngs, write_shard

from varient.archive import Archive, write_archive
from varient.evaluation.inputs import open_samples
from varient.export import export_png


def test_labels_come_from_names_or_folders(tmp_path):
    named = open_samples([write_pngs(tmp_path / "named")])
    assert named.labels.tolist() == sorted(LABELS)  # by name, so by class
    assert np.array_equal(named.batch(0, 4), IMAGES[[0, 3, 6, 9]])
    assert open_samples([write_pngs(tmp_path / "numbers", name="1{label}/{number}.png")]).labels.tolist() == \
        [10] * 4 + [11] * 4 + [12] * 4
    assert open_samples([write_pngs(tmp_path / "names", name="n0{label}4/x{number}.png")]).labels.tolist() == \
        [0] * 4 + [1] * 4 + [2] * 4
    assert open_samples([write_pngs(tmp_path / "none", name="x{number}.png")]).labels is None


@pytest.mark.parametrize(("labels", "warning"), [
    (np.repeat([0, 1, 2], 4), "sorted by class"),
    (np.repeat([0, 2, 1], 4), "sorted by class"),
    (np.tile([2, 0, 1], 4), "classes take turns"),
    (np.array([0, 0, 1, 2, 0, 1, 1, 2, 2, 0, 1, 0]), "3 to 5 images a class"),
])
def test_orders_and_counts_that_change_scores_are_warned_of(tmp_path, labels, warning):
    (found,) = open_samples([write_adm(tmp_path / "adm.npz", arr_1=labels)]).warnings
    assert warning in found and "\n" not in found


def test_a_mixed_order_is_no_cause_for_warnings(tmp_path):
    mixed = np.array([0, 1, 2, 2, 0, 1, 1, 0, 2, 0, 2, 1])
    assert open_samples([write_adm(tmp_path / "adm.npz", arr_1=mixed)]).warnings == ()
    assert open_samples([write_shard(tmp_path / "a.npz")]).warnings == ()


# Classes by names

@pytest.mark.parametrize("name", ["{batch}_{inside}.png", "{batch:04d}_{inside:06d}.png", "{batch}_{number}.png",
                                  "{batch:04d}_{number:06d}.png", "{label}_{of_label}.png"])
def test_numbers_in_names_that_may_be_batches_are_no_classes(tmp_path, name):
    for number, image in enumerate(IMAGES):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / name.format(
            batch=number // 4, inside=number % 4, number=number, label=number % 3, of_label=number // 3))
    source = open_samples([tmp_path])
    (warning,) = source.warnings
    assert source.labels is None and "no classes are taken" in warning


def test_plain_numbers_say_nothing_about_classes(tmp_path):
    source = open_samples([write_pngs(tmp_path, name="{number:06d}.png")])
    assert source.labels is None and source.warnings == ()


def test_running_numbers_that_are_no_batches_are_believed_and_said(tmp_path):
    source = open_samples([write_pngs(tmp_path, name="{label:04d}_{number:06d}.png")])
    assert source.labels.tolist() == sorted(LABELS) and "classes are taken from names" in source.warnings[0]


@pytest.mark.parametrize("labels", [LABELS, np.repeat([0, 1, 2], 4)])
def test_an_exported_folder_says_its_classes_in_its_manifest(tmp_path, labels):
    write_archive(tmp_path / "a.npz", Archive(IMAGES, labels, np.arange(12), {"sampling": {"num_images": 12}}))
    export_png([tmp_path / "a.npz"], tmp_path / "png")
    source = open_samples([tmp_path / "png"])
    assert source.labels.tolist() == sorted(labels) and not any("taken" in text for text in source.warnings)
    next((tmp_path / "png").glob("0001_*.png")).unlink()
    assert_refused(r"11 images, but its manifest\.json speaks of 12", tmp_path / "png", read=False)


def test_a_manifest_of_somebody_else_proves_nothing(tmp_path):
    write_pngs(tmp_path, labels=np.arange(12) // 4)
    for text in (json.dumps({"num_images": 12}), "[", "[1]", '"x"', '{"images_sha256": 1, "num_images": null}'):
        (tmp_path / "manifest.json").write_text(text)
        source = open_samples([tmp_path])
        assert source.labels is None
        assert any(text.startswith(f"{tmp_path / 'manifest.json'}: ") for text in source.warnings)


def test_class_folders_are_numbered_as_for_a_training(tmp_path):
    images = np.concatenate([IMAGES, IMAGES])
    source = open_samples([write_pngs(tmp_path / "n", images, np.arange(24) % 12, name="{label}/deep/{number}.png")])
    assert source.labels.tolist() == [0, 0, 1, 1, 10, 10, 11, 11, *np.repeat(np.arange(2, 10), 2)]
    assert "classes are taken from its 12 folders" in source.warnings[0]
    write_pngs(tmp_path / "twice", name="{label}/x{number}.png")
    write_pngs(tmp_path / "twice", name="0{label}/x{number}.png")
    assert_refused("have the same number", tmp_path / "twice")
    other = open_samples([write_pngs(tmp_path / "other", labels=["²", "1", "x"] * 4, name="{label}/{number}.png")])
    assert other.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("name", ["{batch:05d}/{number:05d}.png", "{batch:05d}/img{number:08d}.png"])
def test_folders_of_batches_are_no_classes(tmp_path, name):
    for number, image in enumerate(IMAGES):
        file = tmp_path / name.format(batch=number // 4 * 4, number=number)
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(file)
    source = open_samples([tmp_path])
    assert source.labels is None and "as batches do" in source.warnings[0]


NO_LABELS = [np.full(12, 3.7), np.full(12, np.nan), np.ones(12, complex), np.ones(12, bool), np.array(["a"] * 12),
             np.full(12, -1), np.full(12, 2 ** 63, np.uint64)]


@pytest.mark.parametrize("labels", NO_LABELS, ids=str)
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, labels):
    assert_refused(r"adm\.npz: arr_1 are", write_adm(tmp_path / "adm.npz", arr_1=labels), read=False)
    for odd in ("labels", "indices"):
        arrays = {"images": IMAGES, "labels": LABELS, "indices": np.arange(12), "origin": np.array("{}")}
        np.savez(tmp_path / "a.npz", **arrays | {odd: labels})
        assert_refused(rf"a\.npz: {odd} are", tmp_path / "a.npz", read=False)
