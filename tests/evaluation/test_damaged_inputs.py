"""Sets of images that cannot be taken exactly are refused by name."""

import zlib

import numpy as np
import pytest
from PIL import Image
from sample_sets import IMAGES, LABELS, assert_refused, write_adm, write_pngs, write_shard

from varient.evaluation.inputs import SampleError, open_samples


@pytest.mark.parametrize("origin", ["[]", "{", '{"system": 5}', '{"weights_sha256": {"a": 1}}', '{"seed": "x"}',
                                    '{"sampling": [1]}', '{"system": "\\ud800"}', "[" * 100_000])
def test_origins_that_no_record_could_hold_are_refused(tmp_path, origin):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, indices=np.arange(12), origin=np.array(origin))
    assert_refused(r"a\.npz: its origin is damaged", tmp_path / "a.npz", read=False)


@pytest.mark.parametrize("share", [0.05, 0.4, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("write", [write_shard, write_adm, lambda path: write_adm(path, np.savez_compressed)])
def test_truncated_npz(tmp_path, write, share):
    data = write(tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[:int(len(data) * share)])
    assert_refused(r"a\.npz: (truncated or damaged, or not an|not an \.npz, or truncated)", tmp_path / "a.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_flipped_byte_in_an_npz(tmp_path, save):
    """Deep in a large member: zipfile itself looks at the checksum only of what it reads to the end."""
    path = tmp_path / "a.npz"
    save(path, arr_0=np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    data = bytearray(path.read_bytes())
    data[100_000] ^= 0x40
    path.write_bytes(data)
    assert_refused(r"a\.npz: truncated or damaged", path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_name_in_an_npz_loses_no_array(tmp_path, save):
    """No checksum covers the directory of a zip file; the labels would be passed over as an array of another name."""
    path = write_adm(tmp_path / "a.npz", save)
    data = path.read_bytes()
    at = data.rindex(b"arr_1.npy")
    path.write_bytes(data[:at] + b"arr_9.npy" + data[at + 9:])
    assert_refused("a.npz", path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_png(tmp_path, share):
    victim = write_pngs(tmp_path) / "1_4.png"
    data = victim.read_bytes()
    victim.write_bytes(data[:int(len(data) * share)])
    assert_refused(r"1_4\.png: (corrupt or truncated|no PNG)", tmp_path)


@pytest.mark.parametrize("at", [0, 30, 60, -20, -14, -2])
def test_a_flipped_byte_in_a_png(tmp_path, at):
    """-14 is in the checksum of the pixels, which Pillow passes over when it decodes."""
    victim = write_pngs(tmp_path) / "1_4.png"
    data = bytearray(victim.read_bytes())
    data[at] ^= 0x40
    victim.write_bytes(data)
    assert_refused(r"1_4\.png: (corrupt or truncated|no PNG)", tmp_path)


def test_images_that_are_not_8_bit_rgb(tmp_path):
    def save(name, image):
        folder = tmp_path / name
        folder.mkdir()
        image.save(folder / "0.png")
        return folder

    assert_refused("16 bits a channel", save("deep", Image.fromarray(np.zeros((8, 8), np.uint16))), read=False)
    assert_refused("1 bits a channel", save("bits", Image.new("1", (8, 8))), read=False)
    assert_refused("transparent pixels", save("alpha", Image.new("RGBA", (8, 8), (1, 2, 3, 254))))
    palette = Image.new("P", (8, 8))
    palette.info["transparency"] = 0
    assert_refused("transparent pixels", save("palette", palette))
    (tmp_path / "cmyk").mkdir()
    Image.new("CMYK", (8, 8)).save(tmp_path / "cmyk" / "0.jpg")
    assert_refused("a JPEG in CMYK", tmp_path / "cmyk", read=False)


def test_a_sixteen_bit_rgb_png_is_refused(tmp_path):
    """Pillow reads these as 8-bit without a word and cannot write them."""
    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (8).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
                                     + chunk(b"IDAT", zlib.compress(bytes(8 * 49))) + chunk(b"IEND", b""))
    assert Image.open(tmp_path / "0.png").mode == "RGB"
    assert_refused("16 bits a channel, which cannot be taken to 8 exactly", tmp_path, read=False)


def test_folders_that_cannot_be_scored(tmp_path):
    assert_refused("no such file or folder", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert_refused(r"no \.png files", tmp_path / "empty")
    mixed = write_pngs(tmp_path / "mixed")
    Image.new("RGB", (9, 8)).save(mixed / "2_99.png")
    assert_refused(r"2_99\.png: 9 x 8 pixels, but 0_0\.png has 8 x 8", mixed, read=False)
    (tmp_path / "wide").mkdir()
    Image.new("RGB", (9, 8)).save(tmp_path / "wide" / "0.png")
    assert_refused("must be square", tmp_path / "wide", read=False)
    lie = write_pngs(tmp_path / "lie")
    Image.new("RGB", (8, 8)).save(lie / "0_0.png", format="JPEG")
    assert_refused(r"0_0\.png: no PNG, whatever its name says", lie, read=False)
    both = write_pngs(tmp_path / "both")
    write_shard(both / "a.npz")
    assert_refused(r"holds \.npz files and images; say which", both)
    with pytest.raises(SampleError, match="no samples were given"):
        open_samples([])
    assert_refused("2 folders were given", mixed, lie)


def test_adm_batches_that_cannot_be_scored(tmp_path):
    path, nhwc = tmp_path / "adm.npz", IMAGES.transpose(0, 2, 3, 1)
    for arr_0, match in [(nhwc.astype(np.float32), "arr_0 is float32"), (IMAGES, r"channels last"),
                         (nhwc[:, :7], "channels last"), (nhwc[..., :1], "channels last"), (nhwc[:0], "channels last")]:
        np.savez(path, arr_0=arr_0)
        assert_refused(match, path, read=False)
    np.savez(path, arr_0=np.asfortranarray(nhwc))
    assert_refused("Fortran order", path, read=False)
    np.savez(path, arr_0=np.array([{}], dtype=object))
    assert_refused("object array", path, read=False)
    np.savez(path, x=nhwc)
    assert_refused("neither a sample archive", path, read=False)
    assert_refused("a second ADM batch", write_adm(tmp_path / "one.npz"), write_adm(tmp_path / "two.npz"), read=False)
    assert_refused("holds mu beside its images; ADM's evaluator would silently score that",
             write_adm(path, mu=np.zeros(4), sigma=np.eye(4)), read=False)


def test_unusable_labels_are_ignored_with_a_warning(tmp_path):
    source = open_samples([write_adm(tmp_path / "adm.npz", arr_1=np.eye(12))])
    assert source.labels is None and "not a label for each image" in source.warnings[0]


@pytest.mark.parametrize(("second", "match"), [
    ((5, 12), "starts at index 5, expected 4"), ((3, 12), "starts at index 3, expected 4"),
])
def test_shards_with_gaps_or_overlaps(tmp_path, second, match):
    assert_refused(match, write_shard(tmp_path / "a.npz", 0, 4), write_shard(tmp_path / "b.npz", *second), read=False)


def test_shards_of_one_run_may_come_from_several_devices(tmp_path):
    shards = [write_shard(tmp_path / f"{begin}.npz", begin, begin + 4, device=device)
              for begin, device in ((0, "NVIDIA L20"), (4, "CPU x"), (8, "NVIDIA L20"))]
    assert open_samples(shards).origin["device"] == "CPU x, NVIDIA L20"
    assert "device" not in open_samples([write_shard(tmp_path / "d.npz")]).origin  # as older archives are


def test_shards_of_two_runs(tmp_path):
    assert_refused("differ in seed: not shards of one run", write_shard(tmp_path / "a.npz", 0, 4),
             write_shard(tmp_path / "b.npz", 4, 12, seed=1), read=False)
