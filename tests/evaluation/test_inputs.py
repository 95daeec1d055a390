"""The same images come out of every container, and what cannot be taken exactly is refused by name."""

import json
import os
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from varient.archive import Archive, write_archive
from varient.evaluation.image_source import pixel_warnings, repeated_images
from varient.evaluation.inputs import SampleError, open_reference, open_samples
from varient.export import export_png

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 3, 8, 8), dtype=np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_arguments, **_settings):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket", refuse)


def _archive(path, begin=0, end=12, total=12, **origin):
    write_archive(path, Archive(IMAGES[begin:end], LABELS[begin:end], np.arange(begin, end),
                                {"system": "var-d16", "sampling": {"num_images": total}, **origin}))
    return path


def _folder(path, images=IMAGES, labels=LABELS, name="{label}_{number}.png"):
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = path / name.format(label=label, number=number)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(file)
    return path


def _adm(path, save=np.savez, **more):
    save(path, arr_0=IMAGES.transpose(0, 2, 3, 1), **({"arr_1": LABELS} | more))
    return path


# The same images

def test_archives_folders_and_adm_batches_hold_the_same_images(tmp_path):
    shards = [_archive(tmp_path / "b.npz", 5, 12), _archive(tmp_path / "a.npz", 0, 5)]
    sources = [open_samples(shards), open_samples([_adm(tmp_path / "adm.npz")]),
               open_samples([_adm(tmp_path / "packed.npz", np.savez_compressed)]),
               open_samples([_folder(tmp_path / "png", name="{number:02d}.png")])]
    for source in sources:
        assert (len(source), source.side, source.total) == (12, 8, 12)
        assert np.array_equal(source.batch(0, 12), IMAGES)
        assert np.array_equal(source.batch(3, 7), IMAGES[3:7])  # across shards, and going back
        assert np.array_equal(np.concatenate(list(source.batches(5))), IMAGES)
        assert source.batch(0, 12).flags.c_contiguous  # networks round by the layout too
        assert source.batch(10, 99).dtype == np.uint8 and len(source.batch(10, 99)) == 2
        source.require_complete()
    assert len({source.sha256 for source in sources}) == 1
    assert all(source.labels.tolist() == LABELS.tolist() for source in sources[:3])
    assert sources[3].labels is None


def test_a_folder_of_shards_is_a_set_and_a_single_shard_a_part(tmp_path):
    _archive(tmp_path / "1.npz", 5, 12), _archive(tmp_path / "0.npz", 0, 5)
    whole, part = open_samples([tmp_path]), open_samples([tmp_path / "1.npz"])
    assert np.array_equal(whole.batch(0, 12), IMAGES)
    assert part.indices.tolist() == list(range(5, 12))
    with pytest.raises(SampleError, match="starts at image 5: a shard is missing"):
        part.require_complete()
    with pytest.raises(SampleError, match="5 images of 12: a shard is missing"):
        open_samples([tmp_path / "0.npz"]).require_complete()


def test_a_part_keeps_its_numbers(tmp_path):
    part = open_samples([_adm(tmp_path / "adm.npz")]).part(4, 9)
    assert part.indices.tolist() == part.part(0, 5).indices.tolist() == [4, 5, 6, 7, 8]
    assert np.array_equal(part.batch(1, 3), IMAGES[5:7]) and part.labels.tolist() == LABELS[4:9].tolist()
    assert part.total == 12
    with pytest.raises(SampleError, match=r"no images 12\.\.11 among 12"):
        open_samples([_adm(tmp_path / "adm.npz")]).part(12, 20)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reading_in_batches_holds_few_images(tmp_path, save):
    image_bytes, count = 3 * 64 * 64, 600
    images = np.random.default_rng(1).integers(0, 9, (count, 64, 64, 3), dtype=np.uint8)
    save(tmp_path / "big.npz", arr_0=images)
    del images
    source = open_samples([tmp_path / "big.npz"])
    tracemalloc.start()
    for _ in source.batches(8):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * image_bytes < count * image_bytes / 9


def test_grey_and_palette_images_are_exact(tmp_path):
    grey = np.random.default_rng(2).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "0.png")
    Image.fromarray(grey).convert("P").save(tmp_path / "1.png")
    opaque = np.concatenate([np.repeat(grey[..., None], 3, 2), np.full((8, 8, 1), 255, np.uint8)], axis=2)
    Image.fromarray(opaque).save(tmp_path / "2.png")
    assert (open_samples([tmp_path]).batch(0, 3) == grey).all()


# Labels and warnings

def test_labels_come_from_names_or_folders(tmp_path):
    named = open_samples([_folder(tmp_path / "named")])
    assert named.labels.tolist() == sorted(LABELS)  # by name, so by class
    assert np.array_equal(named.batch(0, 4), IMAGES[[0, 3, 6, 9]])
    assert open_samples([_folder(tmp_path / "numbers", name="1{label}/{number}.png")]).labels.tolist() == \
        [10] * 4 + [11] * 4 + [12] * 4
    assert open_samples([_folder(tmp_path / "names", name="n0{label}4/x{number}.png")]).labels.tolist() == \
        [0] * 4 + [1] * 4 + [2] * 4
    assert open_samples([_folder(tmp_path / "none", name="x{number}.png")]).labels is None


@pytest.mark.parametrize(("labels", "warning"), [
    (np.repeat([0, 1, 2], 4), "sorted by class"),
    (np.repeat([0, 2, 1], 4), "sorted by class"),
    (np.tile([2, 0, 1], 4), "classes take turns"),
    (np.array([0, 0, 1, 2, 0, 1, 1, 2, 2, 0, 1, 0]), "3 to 5 images a class"),
])
def test_orders_and_counts_that_change_scores_are_warned_of(tmp_path, labels, warning):
    (found,) = open_samples([_adm(tmp_path / "adm.npz", arr_1=labels)]).warnings
    assert warning in found and "\n" not in found


def test_a_mixed_order_is_no_cause_for_warnings(tmp_path):
    mixed = np.array([0, 1, 2, 2, 0, 1, 1, 0, 2, 0, 2, 1])
    assert open_samples([_adm(tmp_path / "adm.npz", arr_1=mixed)]).warnings == ()
    assert open_samples([_archive(tmp_path / "a.npz")]).warnings == ()


def test_jpegs_are_taken_with_a_warning(tmp_path):
    _folder(tmp_path)
    Image.fromarray(IMAGES[0].transpose(1, 2, 0)).save(tmp_path / "0_99.jpg")
    (tmp_path / "list.txt").write_text("")
    source = open_samples([tmp_path])
    assert len(source) == 13 and source.batch(0, 13).shape == (13, 3, 8, 8)
    assert "1 JPEG files: lossy" in source.warnings[0] and "1 files are no images" in source.warnings[1]


def test_copies_are_counted(tmp_path):
    doubled = _folder(tmp_path, IMAGES[[0, 1, 2, 1, 1]], LABELS[:5])
    assert repeated_images(open_samples([doubled]).digests) == 2
    assert repeated_images(open_samples([_adm(tmp_path / "adm.npz")]).digests) == 0


# What a folder holds

def test_linked_folders_of_samples_are_part_of_the_set(tmp_path):
    _folder(tmp_path / "disk/second", IMAGES[6:], LABELS[6:], name="x{number}.png")
    _folder(tmp_path / "set/first", IMAGES[:6], LABELS[:6], name="x{number}.png")
    (tmp_path / "set/second").symlink_to(tmp_path / "disk/second")
    source = open_samples([tmp_path / "set"])
    assert np.array_equal(source.batch(0, 12), IMAGES)


def test_shards_are_found_by_the_rule_of_images(tmp_path):
    _archive(tmp_path / "set/0.npz", 0, 5), _archive(tmp_path / "disk/1.npz", 5, 12)
    (tmp_path / "set/rest").symlink_to(tmp_path / "disk")
    (tmp_path / "set/.0-abcdefgh.npz").write_bytes(b"half of a shard")  # what a killed writer leaves
    (tmp_path / "set/log.txt").write_text("")
    source = open_samples([tmp_path / "set"])
    assert np.array_equal(source.batch(0, 12), IMAGES)
    assert "1 files" in source.warnings[0] and "log.txt" in source.warnings[0]
    assert "1 hidden" in source.warnings[1] and ".0-abcdefgh.npz" in source.warnings[1]


@pytest.mark.parametrize("hidden", [".Trash-1000/0.png", ".ipynb_checkpoints/x.png", "__MACOSX/._x.png", ".x.png",
                                    "deep/.cache/1.png"])
def test_hidden_images_are_not_scored_but_named(tmp_path, hidden):
    _folder(tmp_path, name="x{number:02d}.png")
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).write_bytes((tmp_path / "x00.png").read_bytes())
    source = open_samples([tmp_path])
    assert len(source) == 12
    (warning,) = source.warnings
    named = warning.rpartition(" ")[2]
    assert "1 hidden" in warning and hidden.startswith(named) and (tmp_path / named).exists()


@pytest.mark.parametrize("ending", ["webp", "bmp", "TIFF", "gif", "avif", "jp2", "ppm"])
def test_images_of_other_formats_are_counted_and_named_and_not_passed_over(tmp_path, ending):
    _folder(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.{ending}").write_bytes(b"")
    _refused(rf"2 images are neither PNG nor JPEG, as a\.{ending}", tmp_path, read=False)


@pytest.mark.parametrize("link", ["0_0.png", "deep"])
def test_links_that_lead_nowhere_or_in_circles_are_refused(tmp_path, link):
    _folder(tmp_path, name="x{number:02d}.png")
    (tmp_path / link).symlink_to("gone")
    _refused(f"{link}: a broken link", tmp_path)
    (tmp_path / link).unlink()
    (tmp_path / link).symlink_to(tmp_path)
    _refused(f"{link} .*reached twice", tmp_path)


def test_a_list_of_images_is_a_set_in_order_of_names(tmp_path):
    folder = _folder(tmp_path / "set", name="x{number:02d}.png")
    files = sorted(folder.iterdir(), reverse=True)
    source = open_samples(files)
    assert np.array_equal(source.batch(0, 12), IMAGES) and source.place == str(folder)
    assert source.sha256 == open_samples([folder]).sha256 == open_reference(files).sha256
    assert len(open_samples(files[:1])) == len(open_reference(files[:1]).images) == 1
    _refused("given twice", *files, files[0])
    _refused(r"holds \.npz files and images; say which", files[0], _archive(tmp_path / "a.npz"))
    _refused("give one folder", folder, files[0].rename(tmp_path / "y.png"))


def test_names_that_are_no_utf8_can_be_written_down(tmp_path):
    folder = tmp_path / os.fsdecode(b"set-\xff")
    _folder(folder, name="x{number}.png")
    (folder / os.fsdecode(b"note-\xfe")).write_text("")
    for source in (open_samples([folder]), open_reference([folder]).images):
        "".join([source.place, *source.warnings]).encode()
        assert "set-\\xff" in source.place and any("note-\\xfe" in text for text in source.warnings)
        assert np.array_equal(np.sort(source.batch(0, 12), axis=0), np.sort(IMAGES, axis=0))
    file = _adm(tmp_path / os.fsdecode(b"\xff.npz"), mu=np.zeros(3), sigma=np.eye(3))
    reference = open_reference([file])
    assert reference.place.endswith("\\xff.npz") and len(reference.sha256) == 64


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
    source = open_samples([_folder(tmp_path, name="{number:06d}.png")])
    assert source.labels is None and source.warnings == ()


def test_running_numbers_that_are_no_batches_are_believed_and_said(tmp_path):
    source = open_samples([_folder(tmp_path, name="{label:04d}_{number:06d}.png")])
    assert source.labels.tolist() == sorted(LABELS) and "classes are taken from names" in source.warnings[0]


@pytest.mark.parametrize("labels", [LABELS, np.repeat([0, 1, 2], 4)])
def test_an_exported_folder_says_its_classes_in_its_manifest(tmp_path, labels):
    write_archive(tmp_path / "a.npz", Archive(IMAGES, labels, np.arange(12), {"sampling": {"num_images": 12}}))
    export_png([tmp_path / "a.npz"], tmp_path / "png")
    source = open_samples([tmp_path / "png"])
    assert source.labels.tolist() == sorted(labels) and not any("taken" in text for text in source.warnings)
    next((tmp_path / "png").glob("0001_*.png")).unlink()
    _refused(r"11 images, but its manifest\.json speaks of 12", tmp_path / "png", read=False)


def test_a_manifest_of_somebody_else_proves_nothing(tmp_path):
    _folder(tmp_path, labels=np.arange(12) // 4)
    for text in (json.dumps({"num_images": 12}), "[", "[1]", '"x"', '{"images_sha256": 1, "num_images": null}'):
        (tmp_path / "manifest.json").write_text(text)
        source = open_samples([tmp_path])
        assert source.labels is None
        assert any(text.startswith(f"{tmp_path / 'manifest.json'}: ") for text in source.warnings)


def test_class_folders_are_numbered_as_for_a_training(tmp_path):
    images = np.concatenate([IMAGES, IMAGES])
    source = open_samples([_folder(tmp_path / "n", images, np.arange(24) % 12, name="{label}/deep/{number}.png")])
    assert source.labels.tolist() == [0, 0, 1, 1, 10, 10, 11, 11, *np.repeat(np.arange(2, 10), 2)]
    assert "classes are taken from its 12 folders" in source.warnings[0]
    _folder(tmp_path / "twice", name="{label}/x{number}.png")
    _folder(tmp_path / "twice", name="0{label}/x{number}.png")
    _refused("have the same number", tmp_path / "twice")
    other = open_samples([_folder(tmp_path / "other", labels=["²", "1", "x"] * 4, name="{label}/{number}.png")])
    assert other.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


@pytest.mark.parametrize("name", ["{batch:05d}/{number:05d}.png", "{batch:05d}/img{number:08d}.png"])
def test_folders_of_batches_are_no_classes(tmp_path, name):
    for number, image in enumerate(IMAGES):
        file = tmp_path / name.format(batch=number // 4 * 4, number=number)
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(file)
    source = open_samples([tmp_path])
    assert source.labels is None and "as batches do" in source.warnings[0]


# Pixels and labels on another scale

@pytest.mark.parametrize(("images", "said"), [
    (IMAGES % 2, "is above 1"), (IMAGES % 16, "is above 15"), (IMAGES * 0, "is above 0"),
    (np.full_like(IMAGES, 200), "of one colour"), (IMAGES[:, :, :1, :1].repeat(8, 2).repeat(8, 3), "of one colour"),
])
@pytest.mark.parametrize("write", ["adm", "archive", "folder"])
def test_pixels_on_another_scale_are_warned_of(tmp_path, images, said, write):
    if write == "adm":
        np.savez_compressed(tmp_path / "a.npz", arr_0=images.transpose(0, 2, 3, 1))
    elif write == "archive":
        write_archive(tmp_path / "a.npz", Archive(images, LABELS, np.arange(12), {}))
    else:
        _folder(tmp_path, images)
    found = pixel_warnings(open_samples([tmp_path]))
    assert any(said in text for text in found) and not any("\n" in text for text in found)


def test_pixels_as_they_should_be_are_not_warned_of(tmp_path):
    assert pixel_warnings(open_samples([_archive(tmp_path / "a.npz")])) == []
    mixed = np.concatenate([np.zeros_like(IMAGES[:11]), IMAGES[:1]])
    assert pixel_warnings(open_samples([_folder(tmp_path / "mixed", mixed)])) == []


NO_LABELS = [np.full(12, 3.7), np.full(12, np.nan), np.ones(12, complex), np.ones(12, bool), np.array(["a"] * 12),
             np.full(12, -1), np.full(12, 2 ** 63, np.uint64)]


@pytest.mark.parametrize("labels", NO_LABELS, ids=str)
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, labels):
    _refused(r"adm\.npz: arr_1 are", _adm(tmp_path / "adm.npz", arr_1=labels), read=False)
    for odd in ("labels", "indices"):
        arrays = {"images": IMAGES, "labels": LABELS, "indices": np.arange(12), "origin": np.array("{}")}
        np.savez(tmp_path / "a.npz", **arrays | {odd: labels})
        _refused(rf"a\.npz: {odd} are", tmp_path / "a.npz", read=False)


@pytest.mark.parametrize("origin", ["[]", "{", '{"system": 5}', '{"weights_sha256": {"a": 1}}', '{"seed": "x"}',
                                    '{"sampling": [1]}', '{"system": "\\ud800"}', "[" * 100_000])
def test_origins_that_no_record_could_hold_are_refused(tmp_path, origin):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, indices=np.arange(12), origin=np.array(origin))
    _refused(r"a\.npz: its origin is damaged", tmp_path / "a.npz", read=False)


# Refusals

def _refused(match, *paths, read=True):
    with pytest.raises(SampleError, match=match) as caught:
        source = open_samples(paths)
        if read:
            source.batch(0, len(source))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("write", [_archive, _adm, lambda path: _adm(path, np.savez_compressed)])
def test_truncated_npz(tmp_path, write, share):
    data = write(tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[:int(len(data) * share)])
    _refused(r"a\.npz: (truncated or damaged, or not an|not an \.npz, or truncated)", tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_in_an_npz(tmp_path, save):
    """Deep in a large member: zipfile itself looks at the checksum only of what it reads to the end."""
    path = tmp_path / "a.npz"
    save(path, arr_0=np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[100_000] ^= 0x40
    path.write_bytes(data)
    _refused(r"a\.npz: truncated or damaged", path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_name_in_an_npz_loses_no_array(tmp_path, save):
    """No checksum covers the directory of a zip file; the labels would be passed over as an array of another name."""
    path = _adm(tmp_path / "a.npz", save)
    data = path.read_bytes()
    at = data.rindex(b"arr_1.npy")
    path.write_bytes(data[:at] + b"arr_9.npy" + data[at + 9:])
    _refused("a.npz", path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_png(tmp_path, share):
    victim = _folder(tmp_path) / "1_4.png"
    data = victim.read_bytes()
    victim.write_bytes(data[:int(len(data) * share)])
    _refused(r"1_4\.png: (corrupt or truncated|no PNG)", tmp_path)


@pytest.mark.parametrize("at", [0, 30, 60, -20, -14, -2])
def test_a_flipped_byte_in_a_png(tmp_path, at):
    """-14 is in the checksum of the pixels, which Pillow passes over when it decodes."""
    victim = _folder(tmp_path) / "1_4.png"
    data = bytearray(victim.read_bytes())
    data[at] ^= 0x40
    victim.write_bytes(data)
    _refused(r"1_4\.png: (corrupt or truncated|no PNG)", tmp_path)


def test_images_that_are_not_8_bit_rgb(tmp_path):
    def save(name, image):
        folder = tmp_path / name
        folder.mkdir()
        image.save(folder / "0.png")
        return folder

    _refused("16 bits a channel", save("deep", Image.fromarray(np.zeros((8, 8), np.uint16))), read=False)
    _refused("1 bits a channel", save("bits", Image.new("1", (8, 8))), read=False)
    _refused("transparent pixels", save("alpha", Image.new("RGBA", (8, 8), (1, 2, 3, 254))))
    palette = Image.new("P", (8, 8))
    palette.info["transparency"] = 0
    _refused("transparent pixels", save("palette", palette))
    (tmp_path / "cmyk").mkdir()
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk" / "0.jpg")
    _refused("a JPEG in CMYK", tmp_path / "cmyk", read=False)


def test_a_sixteen_bit_rgb_png_is_refused(tmp_path):
    """Pillow reads these as 8-bit without a word and cannot write them."""
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (8).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                                     + chunk(b"IDAT", zlib.compress(bytes(8 * 49))) + chunk(b"IEND", b""))
    assert Image.open(tmp_path / "0.png").mode == "RGB"
    _refused("16 bits a channel, which cannot be taken to 8 exactly", tmp_path, read=False)


def test_folders_that_cannot_be_scored(tmp_path):
    _refused("no such file or folder", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    _refused(r"no \.png files", tmp_path / "empty")
    mixed = _folder(tmp_path / "mixed")
    Image.new("RGB", (9, 8)).save(mixed / "2_99.png")
    _refused(r"2_99\.png: 9 x 8 pixels, but 0_0\.png has 8 x 8", mixed, read=False)
    (tmp_path / "wide").mkdir()
    Image.new("RGB", (9, 8)).save(tmp_path / "wide" / "0.png")
    _refused("must be square", tmp_path / "wide", read=False)
    lie = _folder(tmp_path / "lie")
    Image.new("RGB", (8, 8)).save(lie / "0_0.png", format="JPEG")
    _refused(r"0_0\.png: no PNG, whatever its name says", lie, read=False)
    both = _folder(tmp_path / "both")
    _archive(both / "a.npz")
    _refused(r"holds \.npz files and images; say which", both)
    with pytest.raises(SampleError, match="no samples were given"):
        open_samples([])
    _refused("2 folders were given", mixed, lie)


def test_adm_batches_that_cannot_be_scored(tmp_path):
    path, nhwc = tmp_path / "adm.npz", IMAGES.transpose(0, 2, 3, 1)
    for arr_0, match in [(nhwc.astype(np.float32), "arr_0 is float32"), (IMAGES, r"channels last"),
                         (nhwc[:, :7], "channels last"), (nhwc[..., :1], "channels last"), (nhwc[:0], "channels last")]:
        np.savez(path, arr_0=arr_0)
        _refused(match, path, read=False)
    np.savez(path, arr_0=np.asfortranarray(nhwc))
    _refused("Fortran order", path, read=False)
    np.savez(path, arr_0=np.array([{}], dtype=object))
    _refused("object array", path, read=False)
    np.savez(path, x=nhwc)
    _refused("neither a sample archive", path, read=False)
    _refused("a second ADM batch", _adm(tmp_path / "one.npz"), _adm(tmp_path / "two.npz"), read=False)
    _refused("holds mu beside its images; ADM's evaluator would silently score that",
             _adm(path, mu=np.zeros(4), sigma=np.eye(4)), read=False)


def test_unusable_labels_are_ignored_with_a_warning(tmp_path):
    source = open_samples([_adm(tmp_path / "adm.npz", arr_1=np.eye(12))])
    assert source.labels is None and "not a label for each image" in source.warnings[0]


@pytest.mark.parametrize(("second", "match"), [
    ((5, 12), "starts at index 5, expected 4"), ((3, 12), "starts at index 3, expected 4"),
])
def test_shards_with_gaps_or_overlaps(tmp_path, second, match):
    _refused(match, _archive(tmp_path / "a.npz", 0, 4), _archive(tmp_path / "b.npz", *second), read=False)


def test_shards_of_one_run_may_come_from_several_devices(tmp_path):
    shards = [_archive(tmp_path / f"{begin}.npz", begin, begin + 4, device=device)
              for begin, device in ((0, "NVIDIA L20"), (4, "CPU x"), (8, "NVIDIA L20"))]
    assert open_samples(shards).origin["device"] == "CPU x, NVIDIA L20"
    assert "device" not in open_samples([_archive(tmp_path / "d.npz")]).origin  # as older archives are


def test_shards_of_two_runs(tmp_path):
    _refused("differ in seed: not shards of one run", _archive(tmp_path / "a.npz", 0, 4),
             _archive(tmp_path / "b.npz", 4, 12, seed=1), read=False)


# References

def test_a_reference_batch_has_statistics_and_images(tmp_path):
    statistics = {"mu": np.arange(4, dtype=np.float32), "sigma": np.eye(4), "mu_s": np.zeros(3), "sigma_s": np.eye(3)}
    reference = open_reference([_adm(tmp_path / "ref.npz", **statistics)])
    assert {name: value.dtype for name, value in reference.statistics.items()} == \
        {name: value.dtype for name, value in statistics.items()}
    assert np.array_equal(reference.images.batch(0, 12), IMAGES) and len(reference.sha256) == 64
    np.savez(tmp_path / "only.npz", mu=np.zeros(4), sigma=np.eye(4))
    only = open_reference([tmp_path / "only.npz"])
    assert only.images is None and set(only.statistics) == {"mu", "sigma"}


def test_images_are_a_reference_too(tmp_path):
    for path in (_archive(tmp_path / "a.npz"), _folder(tmp_path / "png")):
        reference = open_reference([path])
        assert reference.statistics == {} and len(reference.images) == 12 and len(reference.sha256) == 64


@pytest.mark.parametrize(("statistics", "match"), [
    ({"mu": np.zeros(4)}, "only one of mu and sigma"),
    ({"mu": np.zeros(4), "sigma": np.eye(3)}, "no mean and covariance"),
    ({"mu": np.zeros(4, int), "sigma": np.eye(4)}, "no mean and covariance"),
    ({"mu": np.full(4, np.nan), "sigma": np.eye(4)}, "not finite"),
])
def test_statistics_that_cannot_be_used(tmp_path, statistics, match):
    with pytest.raises(SampleError, match=match):
        open_reference([_adm(tmp_path / "ref.npz", **statistics)])
