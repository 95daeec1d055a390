"""Shards of a system's images: the same images however the work is divided."""

import numpy as np
import pytest
import torch

from varient import generation
from varient.devices import wanting
from varient.evaluation.inputs import SampleError, open_samples
from varient.generation import generate_shard, images, shard_indices
from varient.models.checkpoint import save_weights
from varient.systems.registry import resolve_system


@pytest.fixture
def run(smoke, tmp_path):
    """Draw a shard of `variant-d2`, from random weights, with some settings of `sampling` changed; its file."""
    torch.manual_seed(0)
    pipeline = resolve_system("variant-d2", smoke).load(None, "fp32")
    with torch.no_grad():
        pipeline.model.head.weight.normal_()  # the initial head is nearly zero; images should differ
    save_weights(tmp_path / "tokenizer.safetensors", pipeline.tokenizer, {})
    save_weights(tmp_path / "supernet-d2.safetensors", pipeline.model, {})

    def draw(shard=0, **changes):
        sampling = smoke.sampling.model_copy(update={"num_images": 30, "shards": 1} | changes)
        output = tmp_path / f"{sampling.shards}/shard-{shard}.npz"
        generate_shard(smoke.model_copy(update={"sampling": sampling}), "variant-d2", shard, tmp_path, output)
        return output

    return draw


def _same(ours, theirs):
    """The same images; kernels that round otherwise for another number of rows may move a few pixels by one of 256."""
    moved = ours.batch(0, 30).astype(int) - theirs.batch(0, 30)
    return abs(moved).max() <= 1 and (moved != 0).mean() < 1e-3


def test_a_shard_says_what_drew_it(run):
    with wanting("cpu"):
        assert open_samples([run()]).origin["device"].startswith("CPU ")


def test_a_shard_names_the_switches_that_drew_it(run, monkeypatch):
    """30 images in batches of 8: the last one is another graph."""
    plain = open_samples([run(batch_size=8)])
    monkeypatch.setenv("VARIENT_GRAPHS", "1")
    found = open_samples([run(batch_size=8)])
    assert "acceleration" not in plain.origin and found.origin == plain.origin | {"acceleration": ["graphs"]}
    assert np.array_equal(found.batch(0, 30), plain.batch(0, 30))


@pytest.mark.parametrize("changes", [{"batch_size": 7}, {"batch_size": 1}, {"decoded_at_once": 4}])
def test_what_divides_the_work_changes_no_image(run, changes):
    whole, other = open_samples([run(batch_size=30)]), open_samples([run(**changes)])
    assert _same(other, whole) and other.origin == whole.origin
    guided = open_samples([run(cfg=3.0)])
    assert not _same(guided, whole) and guided.origin != whole.origin


def test_shards_of_any_number_are_one_set_and_those_of_two_numbers_are_none(run):
    whole = open_samples([run()])
    halves, thirds = ([run(shard, shards=count) for shard in range(count)] for count in (2, 3))
    for parts in (halves, thirds):
        merged = open_samples(parts)
        assert _same(merged, whole) and merged.origin == whole.origin
    assert len(np.unique(whole.batch(0, 30).reshape(30, -1), axis=0)) > 20
    for mixed in ([halves[0], thirds[1], thirds[2]], [thirds[0], halves[1]]):  # as files of a former number lie about
        with pytest.raises(SampleError, match="a shard is missing, doubled or out of order"):
            open_samples(mixed)


@pytest.mark.parametrize(("shards", "num_images"), [(1, 7), (3, 7), (7, 7), (50, 50_000)])
def test_shards_divide_the_images_in_order(shards, num_images):
    parts = [shard_indices(shard, shards=shards, num_images=num_images) for shard in range(shards)]
    assert [index for part in parts for index in part] == list(range(num_images))
    with pytest.raises(ValueError, match=f"shard {shards} is outside"):
        shard_indices(shards, shards=shards, num_images=num_images)


def test_a_killed_shard_goes_on_after_its_last_batch_to_the_same_bytes(run, monkeypatch):
    whole = run(batch_size=7).read_bytes()
    drawn = []

    def draw(sampler, labels, indices, seed):
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append(indices[0])
        return images(sampler, labels, indices, seed)

    output = run(batch_size=7)
    output.unlink()
    monkeypatch.setattr(generation, "images", draw)
    with pytest.raises(KeyboardInterrupt):
        run(batch_size=7)
    assert drawn == [0, 7, 14] and not output.exists()
    unfinished = output.parent / ".unfinished-shard-0"
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):  # of other settings nothing is taken
        run(batch_size=7, cfg=3.0)
    assert drawn == [0, 7, 14]
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        run(batch_size=7)
    assert drawn == [0, 7, 14]
    flipped = bytearray((unfinished / "0.npz").read_bytes())
    flipped[len(flipped) // 2] ^= 1  # of a pixel
    (unfinished / "0.npz").write_bytes(flipped)
    (unfinished / "7.npz").write_bytes(b"half a fi")  # what is damaged is drawn again
    np.savez(unfinished / "14.npz", images=np.zeros((7, 3, 4, 4), np.uint8))
    left = [output.parent / name for name in (".shard-0-0123abcd.npz", ".shard-0-k_3xyz12.npz")]
    for path in left:
        path.write_bytes(b"half")  # of a killed write
    drawn.clear()
    with pytest.raises(KeyboardInterrupt):
        run(batch_size=7)
    assert drawn == [0, 7, 14]
    drawn.clear()
    assert run(batch_size=7).read_bytes() == whole
    assert drawn == [21, 28] and not unfinished.exists() and not any(path.exists() for path in left)
