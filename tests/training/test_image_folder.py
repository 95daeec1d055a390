import json
import os
import pickle
import struct
import zlib
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder

from varient.training import image_folder
from varient.training.image_folder import ImageFolder, ImageFolderError

CLASSES = {"n03": 3, "n01": 4, "n02": 2}


def _picture(seed, mode="RGB", size=(24, 18)):
    channels = {"RGB": 3, "CMYK": 4, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    return Image.fromarray(pixels.squeeze(), mode) if mode == "CMYK" else Image.fromarray(pixels.squeeze())


@pytest.fixture
def root(tmp_path):
    """Three classes; n01 has a grey PNG and a CMYK JPEG among its four."""
    for name, images in CLASSES.items():
        (tmp_path / "data/train" / name).mkdir(parents=True)
        for number in range(images):
            _picture(number).save(tmp_path / "data/train" / name / f"{name}_{number}.JPEG")
    _picture(7, "L").save(tmp_path / "data/train/n01/n01_1.png")
    (tmp_path / "data/train/n01/n01_1.JPEG").unlink()
    _picture(8, "CMYK").save(tmp_path / "data/train/n01/n01_2.JPEG")
    return tmp_path / "data"


def _open(root, split="train", **settings):
    return ImageFolder(root, split, **{"num_classes": 3, "index": root.parent / f"{split}.npz"} | settings)


def _settle(root):
    """Make every folder look as if it had not been touched for a while."""
    for place, _, _ in os.walk(root):
        os.utime(place, (1_600_000_000, 1_600_000_000))


def _break(path):
    path.write_bytes(path.read_bytes()[:200])


def test_classes_order_and_pixels_are_torchvisions(root):
    (root / "train/n02/more").mkdir()
    _picture(9).save(root / "train/n02/more/a.jpg")
    ours, theirs = _open(root), TorchvisionFolder(root / "train")
    assert ours.classes == ("n01", "n02", "n03") == tuple(theirs.classes)
    assert [(str(ours.path(i)), int(label)) for i, label in enumerate(ours.labels)] == theirs.samples
    assert len(ours) == 10 and ours.labels.dtype == torch.int64
    for index in range(len(ours)):
        image = ours.load(index)
        assert image.dtype == torch.uint8 and image.shape == (3, 18, 24)
        assert np.array_equal(image.permute(1, 2, 0), np.asarray(theirs[index][0]))


def test_an_index_outside_is_refused(root):
    for index in (-1, 9):
        with pytest.raises(IndexError, match=r"is outside 0\.\.8"):
            _open(root).load(index)


def test_files_that_are_no_images_are_listed(root):
    (root / "train/readme.txt").write_text("")
    (root / "train/n02/.DS_Store").write_text("")
    hidden, others = _open(root).left_out
    assert hidden.startswith("1 entries are hidden") and hidden.endswith(": n02/.DS_Store")
    assert others.startswith("1 entries are no images") and others.endswith(": readme.txt")


def test_an_index_is_used_however_many_entries_are_left_out(root, monkeypatch):
    """A macOS archive has a hidden entry for each image."""
    for number in range(3000):
        (root / f"train/n01/._{'x' * 200}{number}.JPEG").touch()
    _settle(root)
    first = _open(root)
    assert first.left_out[0].startswith("3000 entries are hidden") and len(first.left_out[0]) < 2000
    monkeypatch.setattr("varient.training.image_folder._list_folder", lambda _: pytest.fail("listed again"))
    assert (root.parent / "train.npz").stat().st_size < 100_000 and _open(root).left_out == first.left_out


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints/a.JPEG", "lost+found/x", "__MACOSX/n01/._n01_0.JPEG",
                                    "n01/._n01_0.JPEG", "n02/.trash/a.png"])
def test_hidden_entries_are_no_classes_and_no_images_but_named(root, caplog, hidden):
    expected = _open(root).identity
    (root / "train" / hidden).parent.mkdir(parents=True, exist_ok=True)
    (root / "train" / hidden).write_bytes(b"no image")
    folder = _open(root, index=root.parent / "other.npz")
    assert folder.identity == expected and len(folder) == 9
    (left_out,) = folder.left_out
    assert hidden.startswith(left_out.rpartition(": ")[2]) and left_out in caplog.text and "are hidden" in left_out


@pytest.mark.parametrize(("link", "target"), [("n04", "."), ("n02/up", ".."), ("n02/up", "../.."), ("n04", "n01"),
                                              ("n02/n01", "../n01")])
def test_a_folder_that_is_reached_twice_does_not_count_twice(root, link, target):
    (root / "train" / link).symlink_to(target)
    with pytest.raises(ImageFolderError, match="reached twice"):
        _open(root, num_classes=4 if link == "n04" else 3)


@pytest.mark.parametrize("link", ["n04", "n02/n02_9.JPEG"])
def test_links_that_lead_nowhere_are_named(root, link):
    (root / "train" / link).symlink_to("gone")
    with pytest.raises(ImageFolderError, match=f"{link}: a broken link"):
        _open(root)


def test_linked_classes_and_images_are_read_and_watched(root):
    elsewhere = root.parent / "disk"
    (root / "train/n02").rename(elsewhere)
    (root / "train/n02").symlink_to(elsewhere)
    os.utime(elsewhere, (1_600_000_000, 1_600_000_000))
    _settle(root)
    before = _open(root)
    assert len(before) == 9 and before.load(4).shape == (3, 18, 24)
    _picture(5).save(elsewhere / "new.png")
    assert len(_open(root)) == 10


def test_images_of_formats_that_are_not_read_are_named(root):
    (root / "train/n02/a.gif").write_bytes(b"")
    (root / "train/n03/b.AVIF").write_bytes(b"")
    with pytest.raises(ImageFolderError, match=r"2 images are of formats that are not read: n02/a\.gif, n03/b\.AVIF"):
        _open(root)


def _numbered(root, names):
    for name in names:
        (root / "train" / name).mkdir(parents=True)
        _picture(int(name)).save(root / "train" / name / "a.png")
    return root


def test_classes_named_by_numbers_have_these_numbers(tmp_path, caplog):
    folder = _open(_numbered(tmp_path / "data", map(str, range(12))), num_classes=12)
    assert [int(folder.path(i).parent.name) for i in range(12)] == folder.labels.tolist() == list(range(12))
    assert torch.equal(folder.load(10), torch.from_numpy(np.asarray(_picture(10)).copy()).permute(2, 0, 1))
    assert "torchvision" in caplog.text


def test_where_torchvision_agrees_nothing_is_said(tmp_path, caplog):
    _open(_numbered(tmp_path / "data", ["00", "01", "02"]))
    assert caplog.text == ""


@pytest.mark.parametrize(("names", "said"), [(["1", "2", "3"], "missing: 0"), (["0", "1", "01"], "the same number")])
def test_numbers_of_classes_that_leave_gaps_or_meet_are_refused(tmp_path, names, said):
    with pytest.raises(ImageFolderError, match=said):
        _open(_numbered(tmp_path / "data", names))


def test_an_index_made_by_another_rule_is_made_anew(root):
    _settle(root)
    _open(root)
    index = root.parent / "train.npz"
    with np.load(index) as file:
        arrays = dict(file)
    described = json.loads(str(arrays["described"]))
    described.pop("rule")
    described["left_out"] = ["from an old listing"]
    np.savez(index, **arrays | {"described": np.array(json.dumps(described))})
    assert _open(root).left_out == ()


def _deep_png(bits, colour, channels):
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (8).to_bytes(4, "big") * 2 + bytes([bits, colour, 0, 0, 0])
    rows = b"".join(b"\0" + bytes([155]) * (bits * channels) for _ in range(8))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _deep_tiff():
    """8 x 8, RGB, 16 bits."""
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, 134), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 140),
               (277, 3, 1, 3), (278, 3, 1, 8), (279, 4, 1, 384)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)).ljust(134, b"\0") + struct.pack(
        "<3H", 16, 16, 16) + bytes(384)


@pytest.mark.parametrize("data", [
    _deep_png(16, 2, 3), _deep_png(16, 6, 4), _deep_png(16, 4, 2), _deep_png(16, 0, 1), _deep_tiff(),
    b"P6 8 8 65535\n" + bytes(384), b"P6 8 8 1023\n" + bytes(384), b"P5 8 8 65535\n" + bytes(128),
], ids=["RGB", "RGBA", "LA", "L", "TIFF", "PPM", "PPM of 10 bits", "PGM"])
def test_images_of_more_than_8_bits_are_unreadable(root, data):
    """Pillow gives most of them as 8 bits without a word."""
    (root / "train/n02/n02_1.JPEG").write_bytes(data)
    with pytest.raises(ImageFolderError, match="n02_1.JPEG: unreadable .*more than 8 bits a channel"):
        _open(root).load(5)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_grey_of_fewer_bits_is_spread_over_0_to_255(root, bits):
    (root / "train/n02/n02_1.JPEG").write_bytes(_deep_png(bits, 0, 1))
    level = {1: None, 2: None, 4: 0x99, 8: 155}[bits]  # 10 01 10 11, 1001 1011, 155
    image = _open(root).load(5)
    assert image.shape == (3, 8, 8) and image.min() == {1: 0, 2: 85}.get(bits, level)
    assert image.max() == {1: 255, 2: 255, 4: 0xBB, 8: 155}[bits]


def test_a_wrong_number_of_classes_an_empty_class_and_no_folder_are_refused(root):
    with pytest.raises(ImageFolderError, match=r"train has 3 class folders, data.num_classes = 1000"):
        _open(root, num_classes=1000)
    (root / "train/n04").mkdir()
    (root / "train/n04/notes.txt").write_text("")
    with pytest.raises(ImageFolderError, match="no image in class folder n04"):
        _open(root, num_classes=4)
    with pytest.raises(ImageFolderError, match=r"val: not a folder of images \(No such file or directory\)"):
        _open(root, "val")


def test_val_must_have_the_classes_of_train(root):
    for name in ("n01", "n02", "n09"):
        (root / "val" / name).mkdir(parents=True)
        _picture(0).save(root / "val" / name / "a.png")
    with pytest.raises(ImageFolderError, match="different classes, so their labels would not agree: n03, n09"):
        _open(root, "val")
    (root / "val/n09").rename(root / "val/n03")
    assert len(_open(root, "val")) == 3


def test_the_flat_val_folder_of_the_download_is_explained(root):
    (root / "val").mkdir()
    _picture(0).save(root / "val/ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ImageFolderError, match="images of val must be sorted into a folder for each class"):
        _open(root, "val")


def test_the_second_start_reads_the_index_alone(root, monkeypatch):
    _settle(root)
    first = _open(root)
    monkeypatch.setattr(image_folder, "_list_folder", lambda folder: pytest.fail("listed again"))
    second = _open(root)
    assert second.identity == first.identity and torch.equal(second.labels, first.labels)
    assert torch.equal(second.load(1), first.load(1))


def test_the_identity_does_not_hang_on_the_place(root):
    first = _open(root).identity
    moved = root.parent / "moved"
    root.rename(moved)
    assert _open(moved, index=root.parent / "other.npz").identity == first


@pytest.mark.parametrize("change", ["added", "removed", "renamed class", "nested"])
@pytest.mark.parametrize("settled", [True, False], ids=["old", "just made"])
def test_a_changed_tree_is_noticed(root, change, settled):
    if change == "nested":
        (root / "train/n02/more").mkdir()
        _picture(9).save(root / "train/n02/more/a.jpg")
    if settled:
        _settle(root)
    before = _open(root)
    if change == "added":
        _picture(5).save(root / "train/n02/new.png")
    elif change == "removed":
        before.path(0).unlink()
    elif change == "renamed class":
        (root / "train/n02").rename(root / "train/n05")
    else:
        (root / "train/n02/more/a.jpg").rename(root / "train/n02/more/b.jpg")
    after = _open(root)
    assert after.identity != before.identity
    assert [after.path(i).exists() for i in range(len(after))] == [True] * len(after)


def test_an_image_overwritten_in_place_is_noticed_when_it_is_read(root):
    _settle(root)
    folder = _open(root)
    _break(folder.path(4))
    with pytest.raises(ImageFolderError, match=r"n02_0.JPEG has 200 bytes, \d+ when it was listed.*delete .*train.npz"):
        _open(root).load(4)


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_index_is_made_anew(root, damage):
    _settle(root)
    expected = _open(root).identity
    index = root.parent / "train.npz"
    data = index.read_bytes()
    if damage is None:  # a flipped bit in the sizes
        with np.load(index) as file:
            arrays = dict(file)
        arrays["sizes"][0] += 1
        np.savez(index, **arrays)
    else:
        index.write_bytes(damage)
    assert _open(root).identity == expected
    assert index.read_bytes() == data


@pytest.mark.parametrize(("damage", "reason"), [
    (lambda path: _break(path), "Truncated File Read"),
    (lambda path: path.write_bytes(path.read_bytes()[:-100]), "image file is truncated"),
    (lambda path: path.write_bytes(b""), "no image format that PIL knows"),
    (lambda path: path.write_text("<html>not found</html>"), "no image format that PIL knows"),
    (lambda path: Image.fromarray(np.full((4, 4), 70_000, np.int32)).save(path, "TIFF"), "mode I: more than 8 bits"),
])
def test_an_unreadable_image_is_an_error_that_names_the_file(root, damage, reason):
    damage(root / "train/n02/n02_1.JPEG")
    folder = _open(root)
    with pytest.raises(ImageFolderError, match=rf"n02_1.JPEG: unreadable \(.*({reason}).*\); repair it"):
        folder.load(5)
    assert folder.skips == ()


def test_an_unreadable_image_is_skipped_counted_and_written_down(root):
    for broken in ("n01/n01_3.JPEG", "n03/n03_0.JPEG", "n03/n03_1.JPEG"):
        _break(root / "train" / broken)
    log = root.parent / "run/skipped.jsonl"
    folder = _open(root, skip_log=log)
    assert folder.skips == ()
    for _ in range(2):
        images = [folder.load(index) for index in range(len(folder))]
    assert torch.equal(images[3], images[0])  # after the last of a class comes its first
    assert torch.equal(images[6], images[8]) and torch.equal(images[7], images[8])
    assert [(skip.path, skip.replacement) for skip in folder.skips] == [
        ("n01/n01_3.JPEG", "n01/n01_0.JPEG"), ("n03/n03_0.JPEG", "n03/n03_2.JPEG"),
        ("n03/n03_1.JPEG", "n03/n03_2.JPEG")]
    assert len(log.read_text().splitlines()) == 3
    assert {json.loads(line)["images"] for line in log.open()} == {folder.identity}


def test_processes_share_the_log_without_doubling_it(root):
    _break(root / "train/n03/n03_1.JPEG")
    folder = _open(root, skip_log=root.parent / "skipped.jsonl")
    with ProcessPoolExecutor(2) as pool:
        images = list(pool.map(folder.load, [7] * 8))
    assert all(torch.equal(image, folder.load(8)) for image in images)
    assert len(folder.skips) == 1 and len((root.parent / "skipped.jsonl").read_text().splitlines()) == 1


def test_a_log_of_skips_that_a_kill_cut_off_loses_that_line_alone(root):
    log = root.parent / "skipped.jsonl"
    for broken in ("n01/n01_3.JPEG", "n03/n03_1.JPEG"):
        _break(root / "train" / broken)
    folder = _open(root, skip_log=log)
    folder.load(3)
    log.write_bytes(log.read_bytes() + b'[1]\n{"path": 5}\n' + b"[" * 5000 + b'\n\xff\n{"path": "n01')
    folder.load(7)
    assert [skip.path for skip in folder.skips] == ["n01/n01_3.JPEG", "n03/n03_1.JPEG"]


def test_an_image_that_unpacks_to_very_many_pixels_is_not_unpacked(root):
    Image.new("L", (12_000, 12_000)).save(root / "train/n02/n02_1.JPEG", "PNG")
    with pytest.raises(ImageFolderError, match=r"n02_1.JPEG: unreadable \(12000 x 12000 pixels"):
        _open(root).load(5)


def test_skips_of_another_tree_do_not_count(root):
    _break(root / "train/n03/n03_1.JPEG")
    folder = _open(root, skip_log=root.parent / "skipped.jsonl")
    folder.load(7)
    _picture(1).save(root / "train/n03/n03_1.JPEG")
    _picture(2).save(root / "train/n03/n03_9.JPEG")
    repaired = _open(root, skip_log=root.parent / "skipped.jsonl")
    repaired.load(7)
    assert len(folder.skips) == 1 and repaired.skips == ()


def test_a_class_without_a_readable_image_is_an_error_even_when_skipping(root):
    for number in range(2):
        _break(root / f"train/n02/n02_{number}.JPEG")
    with pytest.raises(ImageFolderError, match="n02: no image of this class is readable"):
        _open(root, skip_log=root.parent / "skipped.jsonl").load(4)


def test_a_missing_file_is_never_skipped(root):
    folder = _open(root, skip_log=root.parent / "skipped.jsonl")
    folder.path(5).unlink()
    with pytest.raises(ImageFolderError, match="n02_1.JPEG: could not be read"):
        folder.load(5)


def test_a_folder_travels_to_other_processes(root):
    folder = _open(root)
    copy = pickle.loads(pickle.dumps(folder))
    assert torch.equal(copy.load(2), folder.load(2)) and copy.identity == folder.identity
