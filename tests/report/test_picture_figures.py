"""Figures 1, 4, 6 and 7: what is drawn is what plan and archives say."""

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from PIL import Image
from record_factory import of, score

from varient.archive import Archive, ArchiveError, write_archive
from varient.config import load_config
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.report.figures import render
from varient.report.figures.framework import cells, draw_inference, framework, trained_share
from varient.report.figures.pictures import draw_depths, draw_depths_and_bridges, draw_evolution
from varient.report.style import colour_of_depth, styled
from varient.results import Results
from varient.training.schedule import FixedRatioSchedule, ProgressiveSchedule

DIGITS, SMOKE, IMAGENET = (load_config(ROOT / f"workflow/config/{name}.yaml")
                           for name in ("digits", "smoke", "imagenet256"))
NOTHING = Results({}, {})


@pytest.fixture(autouse=True)
def _in_style():
    with styled():
        yield
    plt.close("all")


@st.composite
def plans(draw):
    depth, num_scales = draw(st.integers(2, 12)), draw(st.integers(1, 6))
    layers = st.sets(st.integers(0, depth - 1), min_size=1).map(lambda found: tuple(sorted(found)))
    return DepthPlan(depth, tuple(draw(st.lists(layers, min_size=num_scales, max_size=num_scales))))


def _results(**fids):
    return of(*(score(system, fid) for system, fid in fids.items()))


def _write_samples(run_dir, system, seed, shards=2, size=40):
    """Shards of random images; all of them together."""
    images = np.random.default_rng(seed).integers(0, 256, (shards * size, 3, 8, 8), dtype=np.uint8)
    folder = run_dir / "samples" / system
    folder.mkdir(parents=True)
    for shard in range(shards):
        indices = np.arange(shard * size, (shard + 1) * size)
        write_archive(folder / f"shard-{shard}.npz", Archive(images[indices], indices % 10, indices, {}))
    return images


def _axis(figure, label):
    return next(axis for axis in figure.axes if axis.get_label() == label)


def _mesh(axis, shape):
    return np.asarray(axis.collections[0].get_array()).reshape(shape)


def _pictures(axis):
    return [image.get_array().transpose(2, 0, 1) for image in axis.images]


def _texts(figure):
    return [text.get_text() for source in (figure, *figure.axes) for text in source.texts]


@given(plans())
@settings(max_examples=15, deadline=None)
def test_filled_cells_are_the_layers_of_the_plan(plan):
    figure = plt.figure()
    axis = figure.add_subplot()
    draw_inference(axis, plan, Pyramid(range(1, plan.num_scales + 1)))
    drawn = _mesh(axis, (plan.depth, plan.num_scales))
    plt.close(figure)
    for k in range(1, plan.num_scales + 1):
        assert tuple(np.flatnonzero(drawn[:, k - 1])) == plan.layers(k)
        assert len(set(drawn[list(plan.layers(k)), k - 1])) == 1


@given(plans())
def test_a_scale_with_all_layers_is_in_the_bridge(plan):
    for k, column in enumerate(cells(plan).T, start=1):
        assert column.max() == (1 if len(plan.layers(k)) == plan.depth else 2)


@given(st.integers(3, 12), st.integers(0, 5), st.floats(0, 1))
def test_shared_layers_meet_both_zones_and_the_others_the_flexible_one_in_full_batches_alone(depth, bridge, ratio):
    plan, schedule = DepthPlan.bridge(depth, 2, bridge, 6), FixedRatioSchedule(3, ratio)
    assert (trained_share(plan, "bridge", schedule) == (bridge > 0)).all()
    expected = np.full((depth, 3), 1 - ratio)
    expected[[0, -1]] = 1
    np.testing.assert_allclose(trained_share(plan, "flexible", schedule), expected)


def test_fig1_is_drawn_from_the_plan_and_the_phases():
    figure = framework(DIGITS, 8, bridge=7)
    np.testing.assert_array_equal(_mesh(_axis(figure, "inference"), (30, 10)), cells(DIGITS.plan(8, 7)))
    schedule = ProgressiveSchedule((5, 15, 8))
    np.testing.assert_array_equal(_mesh(_axis(figure, "flexible"), (30, 28)),
                                  trained_share(DIGITS.plan(8, 7), "flexible", schedule))
    texts = _texts(figure)
    assert "bridge zone r1–r7: 30 layers, 24 of 65 tokens (37%)" in texts
    assert any("d = 8, N = 7" in text for text in texts)


@pytest.mark.parametrize("bridge", [0, 10])
def test_fig1_without_one_of_the_zones(bridge):
    assert sum(" zone r1–r10" in text for text in _texts(framework(DIGITS, 16, bridge))) == 1


def test_fig1_prints_the_papers_shares():
    texts = _texts(framework(IMAGENET, 16))
    assert "bridge zone r1–r6: 30 layers, 91 of 680 tokens (13%)" in texts
    assert "skipped: 40% of the full network's token-layers" in texts


def test_fig4_shows_the_first_image_of_each_class(tmp_path):
    full, shallow = (_write_samples(tmp_path, system, seed) for seed, system in enumerate(("var-d30", "variant-d2")))
    figure = draw_depths(DIGITS, _results(**{"var-d30": 0.5}), tmp_path)
    np.testing.assert_array_equal(_pictures(figure.axes[0]), np.concatenate([full[:10], shallow[:10]]))
    texts = _texts(figure)
    assert "0.50 ± 0.04" in texts and texts.count("–") == 4
    assert [f"no samples of variant-d{depth} here" in texts for depth in (16, 8, 4, 2)] == [True, True, True, False]
    name = next(text for text in figure.axes[0].texts if text.get_text() == "VARiant-d2")
    assert name.get_color() == colour_of_depth(2)


def test_fig4_prints_the_memory_that_the_cache_counts(tmp_path):
    """12165 and 6600 MiB: docs of the cache, VAR-d30 at batch 64 in 2-byte numbers."""
    texts = _texts(draw_depths(IMAGENET, NOTHING, tmp_path))
    assert {"12,165.0 MiB", "6,600.0 MiB", "54%"} <= set(texts)


@pytest.mark.parametrize("fid", [1.95, 99.99, 131.87, 1234.5, 99999.0])
def test_numbers_beside_the_pictures_do_not_run_into_them(tmp_path, fid):
    """At the paper's size too, whose caches are the largest."""
    record = _results(**{"var-d30": fid}).scores["var-d30"].model_copy(update={"fid_sd": fid / 10})
    figure = draw_depths(IMAGENET, Results({"var-d30": record}, {}), tmp_path)
    figure.canvas.draw()
    [axis] = figure.axes
    pictures = axis.get_window_extent().x1
    for text in axis.texts:
        if "±" in text.get_text() or "MiB" in text.get_text():
            assert text.get_window_extent().x0 > pictures, text.get_text()


def test_fig4_takes_classes_evenly_apart_where_there_are_many(tmp_path):
    texts = _texts(draw_depths(IMAGENET, NOTHING, tmp_path))
    assert [text for text in texts if text.isdigit()] == [str(label) for label in range(0, 1000, 100)]


def test_large_images_are_averaged_where_they_are_reduced(tmp_path):
    """A chequerboard of single pixels comes out grey; leaving pixels out would show black, white or stripes."""
    labels = np.arange(0, 1000, 100)
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    images = np.broadcast_to(board, (len(labels), 3, 256, 256))
    write_archive(tmp_path / "samples/var-d30/shard-0.npz", Archive(images, labels, labels, {}))
    draw_depths(IMAGENET, NOTHING, tmp_path).savefig(tmp_path / "page.png")
    page = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    side = 50  # pixels of a picture, at least
    assert ((page > 120) & (page < 135)).sum() > len(labels) * side ** 2


def test_fig6_shows_depths_and_bridges(tmp_path):
    images = {system: _write_samples(tmp_path, system, seed) for seed, system in enumerate(
        ("variant-d16-full", "variant-d16-n9", "variant-d16"))}
    figure = draw_depths_and_bridges(DIGITS, NOTHING, tmp_path)
    depths, bridges = figure.axes
    np.testing.assert_array_equal(_pictures(depths), images["variant-d16"][:10])
    np.testing.assert_array_equal(_pictures(bridges), np.concatenate([found[:10] for found in images.values()]))
    assert [text.get_text() for text in bridges.texts if text.get_text().startswith("N =")] == [
        "N = 10", "N = 9", "N = 8", "N = 7", "N = 6"]


def test_fig7_follows_two_classes_through_the_phases(tmp_path):
    systems = ("var-d30", "free-d16", "variant-d16-e5", "variant-d16-e20", "variant-d16")
    images = [_write_samples(tmp_path, system, seed) for seed, system in enumerate(systems)]
    figure = draw_evolution(DIGITS, _results(**{"variant-d16-e5": 0.75}), tmp_path)
    shown = [label + 10 * turn for label in (2, 7) for turn in range(6)]
    np.testing.assert_array_equal(_pictures(figure.axes[0]), np.concatenate([each[shown] for each in images]))
    texts = _texts(figure)
    assert texts.index("FID 0.75 ± 0.04") == texts.index("phase 1, epoch 5") + 1


def test_fig7_of_imagenet_shows_the_papers_animals(tmp_path):
    assert {"class 281", "class 1"} <= set(_texts(draw_evolution(IMAGENET, NOTHING, tmp_path)))


@pytest.mark.parametrize("draw", [draw_depths_and_bridges, draw_evolution])
def test_an_experiment_without_ablations_says_so_and_claims_no_measurement(draw, tmp_path):
    texts = _texts(draw(IMAGENET.model_copy(update={"ablations": None}), NOTHING, tmp_path))
    assert any(text.startswith("not measured here") for text in texts)
    assert not any("measured (" in text for text in texts)


def test_a_missing_shard_leaves_a_note_and_a_damaged_one_is_refused(tmp_path):
    _write_samples(tmp_path, "var-d30", 0)
    first = tmp_path / "samples/var-d30/shard-0.npz"
    first.write_bytes(first.read_bytes()[:100])
    with pytest.raises(ArchiveError, match="truncated or damaged"):
        draw_depths(DIGITS, NOTHING, tmp_path)
    first.unlink()
    assert "no samples of var-d30 here" in _texts(draw_depths(DIGITS, NOTHING, tmp_path))


@pytest.mark.parametrize("name", ["fig1", "fig4", "fig6", "fig7"])
def test_rendered_bytes_are_the_same_each_time(name, tmp_path):
    _write_samples(tmp_path, "var-d6", 0)
    once, again = (render(name, SMOKE, NOTHING, tmp_path, tmp_path / stem) for stem in ("once", "again"))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]
