"""The same images come out of every container, and of all that lies in a folder none is passed over."""

import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image
from sample_sets import IMAGES, LABELS, assert_refused, write_adm, write_pngs, write_shard

from varient.archive import Archive, write_archive
from varient.evaluation.image_source import pixel_warnings, repeated_images
from varient.evaluation.inputs import SampleError, open_reference, open_samples


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_arguments, **_settings):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket", refuse)


# The same images

def test_archives_folders_and_adm_batches_hold_the_same_images(tmp_path):
    shards = [write_shard(tmp_path / "b.npz", 5, 12), write_shard(tmp_path / "a.npz", 0, 5)]
    sources = [open_samples(shards), open_samples([write_adm(tmp_path / "adm.npz")]),
               open_samples([write_adm(tmp_path / "packed.npz", np.savez_compressed)]),
               open_samples([write_pngs(tmp_path / "png", name="{number:02d}.png")])]
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
    write_shard(tmp_path / "1.npz", 5, 12), write_shard(tmp_path / "0.npz", 0, 5)
    whole, part = open_samples([tmp_path]), open_samples([tmp_path / "1.npz"])
    assert np.array_equal(whole.batch(0, 12), IMAGES)
    assert part.indices.tolist() == list(range(5, 12))
    with pytest.raises(SampleError, match="starts at image 5: a shard is missing"):
        part.require_complete()
    with pytest.raises(SampleError, match="5 images of 12: a shard is missing"):
        open_samples([tmp_path / "0.npz"]).require_complete()


def test_a_part_keeps_its_numbers(tmp_path):
    part = open_samples([write_adm(tmp_path / "adm.npz")]).part(4, 9)
    assert part.indices.tolist() == part.part(0, 5).indices.tolist() == [4, 5, 6, 7, 8]
    assert np.array_equal(part.batch(1, 3), IMAGES[5:7]) and part.labels.tolist() == LABELS[4:9].tolist()
    assert part.total == 12
    with pytest.raises(SampleError, match=r"no images 12\.\.11 among 12"):
        open_samples([write_adm(tmp_path / "adm.npz")]).part(12, 20)


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


def test_jpegs_are_taken_with_a_warning(tmp_path):
    write_pngs(tmp_path)
    Image.fromarray(IMAGES[0].transpose(1, 2, 0)).save(tmp_path / "0_99.jpg")
    (tmp_path / "list.txt").write_text("")
    source = open_samples([tmp_path])
    assert len(source) == 13 and source.batch(0, 13).shape == (13, 3, 8, 8)
    assert "1 JPEG files: lossy" in source.warnings[0] and "1 files are no images" in source.warnings[1]


def test_copies_are_counted(tmp_path):
    doubled = write_pngs(tmp_path, IMAGES[[0, 1, 2, 1, 1]], LABELS[:5])
    assert repeated_images(open_samples([doubled]).digests) == 2
    assert repeated_images(open_samples([write_adm(tmp_path / "adm.npz")]).digests) == 0


# What a folder holds

def test_linked_folders_of_samples_are_part_of_the_set(tmp_path):
    write_pngs(tmp_path / "disk/second", IMAGES[6:], LABELS[6:], name="x{number}.png")
    write_pngs(tmp_path / "set/first", IMAGES[:6], LABELS[:6], name="x{number}.png")
    (tmp_path / "set/second").symlink_to(tmp_path / "disk/second")
    source = open_samples([tmp_path / "set"])
    assert np.array_equal(source.batch(0, 12), IMAGES)


def test_shards_are_found_by_the_rule_of_images(tmp_path):
    write_shard(tmp_path / "set/0.npz", 0, 5), write_shard(tmp_path / "disk/1.npz", 5, 12)
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
    write_pngs(tmp_path, name="x{number:02d}.png")
    (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / hidden).write_bytes((tmp_path / "x00.png").read_bytes())
    source = open_samples([tmp_path])
    assert len(source) == 12
    (warning,) = source.warnings
    named = warning.rpartition(" ")[2]
    assert "1 hidden" in warning and hidden.startswith(named) and (tmp_path / named).exists()


@pytest.mark.parametrize("ending", ["webp", "bmp", "TIFF", "gif", "avif", "jp2", "ppm"])
def test_images_of_other_formats_are_counted_and_named_and_not_passed_over(tmp_path, ending):
    write_pngs(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"{name}.{ending}").write_bytes(b"")
    assert_refused(rf"2 images are neither PNG nor JPEG, as a\.{ending}", tmp_path, read=False)


@pytest.mark.parametrize("link", ["0_0.png", "deep"])
def test_links_that_lead_nowhere_or_in_circles_are_refused(tmp_path, link):
    write_pngs(tmp_path, name="x{number:02d}.png")
    (tmp_path / link).symlink_to("gone")
    assert_refused(f"{link}: a broken link", tmp_path)
    (tmp_path / link).unlink()
    (tmp_path / link).symlink_to(tmp_path)
    assert_refused(f"{link} .*reached twice", tmp_path)


def test_a_list_of_images_is_a_set_in_order_of_names(tmp_path):
    folder = write_pngs(tmp_path / "set", name="x{number:02d}.png")
    files = sorted(folder.iterdir(), reverse=True)
    source = open_samples(files)
    assert np.array_equal(source.batch(0, 12), IMAGES) and source.place == str(folder)
    assert source.sha256 == open_samples([folder]).sha256 == open_reference(files).sha256
    assert len(open_samples(files[:1])) == len(open_reference(files[:1]).images) == 1
    assert_refused("given twice", *files, files[0])
    assert_refused(r"holds \.npz files and images; say which", files[0], write_shard(tmp_path / "a.npz"))
    assert_refused("give one folder", folder, files[0].rename(tmp_path / "y.png"))


def test_names_that_are_no_utf8_can_be_written_down(tmp_path):
    folder = tmp_path / os.fsdecode(b"set-\xff")
    write_pngs(folder, name="x{number}.png")
    (folder / os.fsdecode(b"note-\xfe")).write_text("")
    for source in (open_samples([folder]), open_reference([folder]).images):
        "".join([source.place, *source.warnings]).encode()
        assert "set-\\xff" in source.place and any("note-\\xfe" in text for text in source.warnings)
        assert np.array_equal(np.sort(source.batch(0, 12), axis=0), np.sort(IMAGES, axis=0))
    file = write_adm(tmp_path / os.fsdecode(b"\xff.npz"), mu=np.zeros(3), sigma=np.eye(3))
    reference = open_reference([file])
    assert reference.place.endswith("\\xff.npz") and len(reference.sha256) == 64


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
        write_pngs(tmp_path, images)
    found = pixel_warnings(open_samples([tmp_path]))
    assert any(said in text for text in found) and not any("\n" in text for text in found)


def test_pixels_as_they_should_be_are_not_warned_of(tmp_path):
    assert pixel_warnings(open_samples([write_shard(tmp_path / "a.npz")])) == []
    mixed = np.concatenate([np.zeros_like(IMAGES[:11]), IMAGES[:1]])
    assert pixel_warnings(open_samples([write_pngs(tmp_path / "mixed", mixed)])) == []


# References

def test_a_reference_batch_has_statistics_and_images(tmp_path):
    statistics = {"mu": np.arange(4, dtype=np.float32), "sigma": np.eye(4), "mu_s": np.zeros(3), "sigma_s": np.eye(3)}
    reference = open_reference([write_adm(tmp_path / "ref.npz", **statistics)])
    assert {name: value.dtype for name, value in reference.statistics.items()} == \
        {name: value.dtype for name, value in statistics.items()}
    assert np.array_equal(reference.images.batch(0, 12), IMAGES) and len(reference.sha256) == 64
    np.savez(tmp_path / "only.npz", mu=np.zeros(4), sigma=np.eye(4))
    only = open_reference([tmp_path / "only.npz"])
    assert only.images is None and set(only.statistics) == {"mu", "sigma"}


def test_images_are_a_reference_too(tmp_path):
    for path in (write_shard(tmp_path / "a.npz"), write_pngs(tmp_path / "png")):
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
        open_reference([write_adm(tmp_path / "ref.npz", **statistics)])
