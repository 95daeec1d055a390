import numpy as np
import pytest

from varient.archive import Archive, ArchiveError, read_archive, write_archive
from varient.evaluation.inputs import open_samples


def _archive(first=0, count=4, **origin):
    rng = np.random.default_rng(first)
    return Archive(rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8), np.arange(count) % 10,
                   np.arange(first, first + count), {"system": "var-d30", **origin})


def _write(tmp_path, *archives):
    paths = [tmp_path / f"{number}.npz" for number in range(len(archives))]
    for path, archive in zip(paths, archives, strict=True):
        write_archive(path, archive)
    return paths


def test_shards_merge_to_the_same_whole_in_any_order(tmp_path):
    paths = _write(tmp_path, _archive(0), _archive(4, 3), _archive(7, 5))
    forward, backward = open_samples(paths), open_samples(paths[::-1])
    assert forward.indices.tolist() == list(range(12))
    assert np.array_equal(forward.batch(0, 12), backward.batch(0, 12))


def test_writing_again_gives_the_same_bytes(tmp_path):
    first, second = _write(tmp_path, _archive(), _archive())
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_archive_is_named(tmp_path, share):
    (path,) = _write(tmp_path, _archive())
    data = path.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(ArchiveError, match=r"0.npz: truncated or damaged"):
        read_archive(path)


def test_a_flipped_byte_is_noticed(tmp_path):
    (path,) = _write(tmp_path, _archive())
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ArchiveError, match="truncated or damaged"):
        read_archive(path)


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(ArchiveError, match="no such sample archive"):
        read_archive(tmp_path / "none.npz")
    np.savez(tmp_path / "adm.npz", arr_0=np.zeros((1, 8, 8, 3), np.uint8))
    with pytest.raises(ArchiveError, match="not a sample archive"):
        read_archive(tmp_path / "adm.npz")
    wrong = _archive()
    (path,) = _write(tmp_path, Archive(wrong.images.astype(np.float32), wrong.labels, wrong.indices, {}))
    with pytest.raises(ArchiveError, match="images are float32"):
        read_archive(path)
