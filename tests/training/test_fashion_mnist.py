"""Fashion-MNIST's files: read, known by their hashes, divided; what is wrong with them is said in a line."""

import gzip
import hashlib
import pickle
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from conftest import ROOT
from fashion_fixtures import idx, stripes, write_files
from torchvision.datasets import FashionMNIST

from varient.config import ConfigError, DataConfig, FashionFile, load_config, parse_config
from varient.training.data import load_images
from varient.training.fashion_mnist import SHA256, FashionMnistError, read_fashion_mnist

INSTALLED = Path("/usr/share/datasets/fashion-mnist")
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
PACKED_AT = {IMAGES: 1504176606, LABELS: 1504176606,
             "t10k-images-idx3-ubyte": 1504176627, "t10k-labels-idx1-ubyte": 1504176627}
"""Seconds since 1970, from the headers of the published .gz files."""


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def files(request, tmp_path):
    """Folder, and the config that describes it."""
    checksums = write_files(tmp_path / "data", packed=request.param)
    return tmp_path / "data", _config(tmp_path / "data", checksums)


def _config(root, checksums, **changes):
    return DataConfig(**{"source": "fashion-mnist", "image_size": 28, "num_classes": 10, "holdout": 80, "root": root,
                         "checksums": checksums} | changes)


def _path(root, name):
    return next(root.glob(f"{name}*"))


def test_images_are_read_as_written(files):
    root, data = files
    images, labels = read_fashion_mnist(root, "train", data.checksums)
    wanted, classes = stripes(200, 200)
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert np.array_equal(images, wanted) and np.array_equal(labels, classes)
    test = load_images(data, "test")
    assert np.array_equal(test.images, np.repeat(stripes(60, 60)[0][:, None], 3, axis=1))
    assert np.array_equal(test.labels, stripes(60, 60)[1])


def test_splits_divide_the_training_images_with_equal_class_shares(files):
    _, data = files
    train, holdout = load_images(data, "train"), load_images(data, "holdout")
    assert train.labels.bincount().tolist() == [12] * 10 and holdout.labels.bincount().tolist() == [8] * 10
    both = torch.cat([train.images, holdout.images])[:, 0].flatten(1)
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, stripes(200, 200)[0].reshape(200, -1).tolist()))
    assert load_images(data, "train").identity == train.identity


@pytest.mark.parametrize("name", SHA256)
def test_the_hashes_are_of_the_published_files(name):
    """Debian packed the same bytes without name and time; with them the .gz has the MD5 that torchvision knows."""
    if not INSTALLED.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    packed = (INSTALLED / f"{name}.gz").read_bytes()
    assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == SHA256[name]
    header = b"\x1f\x8b\x08\x08" + PACKED_AT[name].to_bytes(4, "little") + b"\0\x03" + name.encode() + b"\0"
    assert hashlib.md5(header + packed[10:]).hexdigest() == dict(FashionMNIST.resources)[f"{name}.gz"]


def test_the_published_images_are_divided_in_halves():
    if not INSTALLED.exists():
        pytest.skip("needs Debian's package dataset-fashion-mnist")
    data = load_config(ROOT / "workflow/config/fashion.yaml").data
    sizes = {split: load_images(data, split).labels.bincount().tolist() for split in data.splits}
    assert sizes == {"train": [3000] * 10, "holdout": [3000] * 10, "test": [1000] * 10}


def _cut(content):
    return content[:len(content) // 2]


@pytest.mark.parametrize(("name", "damage", "said"), [
    (IMAGES, _cut, "unpacked|SHA-256"),
    (IMAGES, lambda content: content[:-1], "unpacked|SHA-256"),
    (LABELS, lambda content: b"", "IDX"),
    (LABELS, lambda content: content + b"x", "unpacked|SHA-256"),
    (LABELS, lambda content: content[:30] + bytes([content[30] ^ 1]) + content[31:], "unpacked|SHA-256|IDX"),
    (IMAGES, lambda content: pickle.dumps({"images": [1]}), "IDX"),
    (LABELS, lambda content: b"<!DOCTYPE html><title>404</title>", "IDX"),
    (IMAGES, lambda content: gzip.compress(idx(np.zeros((3, 28)))), "IDX"),
    (LABELS, lambda content: idx(np.zeros((2, 3, 4))), "IDX"),
    (IMAGES, lambda content: idx(np.zeros((200, 28, 28))), "SHA-256"),
    (IMAGES, lambda content: gzip.compress(bytes(2 ** 26 + 1)), "64 MiB"),
])
def test_a_file_that_is_another_is_named_in_a_line(files, name, damage, said):
    root, data = files
    path = _path(root, name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FashionMnistError, match=rf"^{path}: .*({said})") as caught:
        load_images(data, "train")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "said"), [
    (idx(np.zeros((200, 28, 28)))[:-5], f"{IMAGES}: .* bytes"),
    (idx(np.zeros((200, 28, 28))) + b"\0", f"{IMAGES}: .* bytes"),
    (b"\0\0\x08\x03" + b"\xff" * 12, f"{IMAGES}: .* bytes"),
    (b"\0\0\x08\x03", f"{IMAGES}: .* bytes"),
    (idx(np.zeros((200, 27, 28))), r"\(200, 27, 28\)"),
    (idx(np.zeros((199, 28, 28))), r"\(199, 28, 28\) and 200 labels"),
])
def test_a_hash_that_fits_a_wrong_file_does_not_help(tmp_path, content, said):
    checksums = write_files(tmp_path, packed=False)
    (tmp_path / IMAGES).write_bytes(content)
    data = _config(tmp_path, checksums | {IMAGES: hashlib.sha256(content).hexdigest()})
    with pytest.raises(FashionMnistError, match=said) as caught:
        load_images(data, "train")
    assert "\n" not in str(caught.value)


def test_a_label_out_of_range_is_refused(tmp_path):
    checksums = write_files(tmp_path, packed=False)
    content = idx(np.full(200, 10))
    (tmp_path / LABELS).write_bytes(content)
    with pytest.raises(FashionMnistError, match="labels up to 10"):
        load_images(_config(tmp_path, checksums | {LABELS: hashlib.sha256(content).hexdigest()}), "train")


@pytest.mark.parametrize("split", ["train", "holdout", "test"])
def test_a_missing_file_names_the_folder_and_the_package(files, split):
    root, data = files
    for path in root.glob("t10k-labels*" if split == "test" else "train-labels*"):
        path.unlink()
    with pytest.raises(FashionMnistError, match=rf"^{root}/.*-labels-idx1-ubyte: no such file.*dataset-fashion-mnist"):
        load_images(data, split)


def test_other_images_than_the_published_need_their_hashes(files):
    _, data = files
    with pytest.raises(FashionMnistError, match=f"{IMAGES}.*SHA-256 .*{SHA256[IMAGES]}"):
        load_images(data.model_copy(update={"checksums": {}}), "train")


@pytest.mark.parametrize(("change", "message"), [
    ({"image_size": 8}, "fashion-mnist are 28 x 28 in 10 classes; data says image_size = 8"),
    ({"num_classes": 9}, "num_classes = 9"),
    ({"holdout": 0}, "holdout = 0 of the 60000 images"),
    ({"holdout": 200}, "holdout = 200 must leave"),
])
def test_settings_that_the_images_do_not_fit_are_refused(files, change, message):
    with pytest.raises(ValueError, match=message):
        load_images(DataConfig(**files[1].model_dump() | change), "train")


@pytest.mark.parametrize(("section", "change", "message"), [
    ("data", {"root": None}, "data.root is missing: the folder with Fashion-MNIST's four IDX files"),
    ("data", {"resize": 1}, "data: resize: for imagenet only"),
    ("data", {"checksums": {"labels": "0" * 64}}, r"data.checksums.labels.*train-labels-idx1-ubyte"),
    ("data", {"checksums": {LABELS: "0" * 32}}, f"data.checksums.{LABELS}: .*64"),
    ("evaluation", {"protocol": "digits"}, "evaluation.protocol = 'digits' cannot score fashion-mnist"),
])
def test_wrong_settings_are_refused(section, change, message):
    settings = load_config(ROOT / "workflow/config/fashion.yaml").model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        parse_config(settings | {section: settings[section] | change}, "x.yaml")


def test_hashes_can_be_given_for_all_files_and_no_others():
    assert get_args(FashionFile) == tuple(SHA256)


def test_where_the_files_lie_is_no_setting_of_a_training():
    config = load_config(ROOT / "workflow/config/fashion.yaml")
    moved = config.model_copy(update={"data": config.data.model_copy(update={"root": Path("elsewhere")})})
    assert moved.digest("data") == config.digest("data")
    others = config.model_copy(update={"data": config.data.model_copy(update={"checksums": {IMAGES: "ab"}})})
    assert others.digest("data") != config.digest("data")


def test_looking_for_the_files_takes_no_torch():
    code = "import sys, varient.training.fashion_mnist; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
