"""The figures that show measured numbers: what is drawn, not how it looks."""

from __future__ import annotations

from functools import cache
from itertools import combinations, product

import numpy as np
import pytest
from conftest import ROOT
from further_arms import FURTHER_DIGITS
from matplotlib import pyplot as plt
from matplotlib.text import Text
from record_factory import profile, score

from varient.ablations import arms
from varient.config import ExperimentConfig, load_config
from varient.cost.roofline import system_cost
from varient.paper import paper_table
from varient.report import style
from varient.report.figures import FIGURES, figure_needs, render
from varient.report.figures.configurations import draw_configurations, measured_points, paper_points
from varient.report.figures.frontier import draw_frontier, measured_marks
from varient.report.figures.kv_live import PAPER_SIZE, KVSize, draw_kv_live, paper_plan
from varient.report.figures.ratios import draw_ratios, paper_ways, ways
from varient.report.figures.scales import draw_scales, needs_of_scales, predicted_by_scale
from varient.report.figures.schedule import draw_schedule, running_mean
from varient.report.figures.throughput import Setting, draw_throughput, needs_of_throughput, predicted
from varient.report.style import label_points, log_scale, new_figure, note_lines, styled
from varient.results import Results

_SOME = {"depth": 4, "seeds": 3, "ratios": {"p0": 1, "p10": 1, "p20": 3, "p50": 3, "p80": 3, "p100": 3},
         "stages": ("p10", "p20", "p50", "p80", "p100"), "bridges": (6, 7, 8, 9, 10)}
DIGITS = FURTHER_DIGITS.model_copy(update={"ablations": FURTHER_DIGITS.ablations.model_copy(update=_SOME)})
"""With the arms that these tests count on, whatever the experiment now has."""
SMOKE = load_config(ROOT / "workflow/config/smoke.yaml")
IMAGENET = load_config(ROOT / "workflow/config/imagenet256.yaml")
def _of_one_depth():
    """Four scales, and one subnet that none of the paper's stands for."""
    settings = SMOKE.model_dump(mode="json", exclude={"systems", "rows"})
    settings |= {"name": "one_depth", "patch_nums": [1, 2, 3, 4]}
    settings["supernet"] |= {"depths": [5], "bridge": 2, "counterparts": dict.fromkeys((16, 8, 4, 2), 0),
                             "phases": {5: [1, 2, 1]}}
    settings["ablations"] |= {"depth": 5, "refined": [], "further": {}, "evolution": [5], "zones": [[3, 4]],
                              "zone_depths": [5], "bridges": [2, 3, 4]}
    return ExperimentConfig.model_validate(settings)


ONE_DEPTH = _of_one_depth()
CONFIGS = {config.name: config for config in (DIGITS, SMOKE, IMAGENET, ONE_DEPTH)}
DRAWN = {"fig2": draw_ratios, "fig3": draw_schedule, "fig5": draw_configurations, "quality-cost": draw_frontier,
         "kv-live": draw_kv_live, "latency-by-scale": draw_scales, "throughput": draw_throughput}
PARTS = {"parameters_mib": 3.0, "activations_mib": 9.0, "decoder_mib": 0.5}


def _profile(system, latency_s, memory_mib, **changes):
    return profile(system, [latency_s], **{"memory": {"tensors_mib": memory_mib} | PARTS} | changes)


def _fid(arm):
    """Any numbers that differ: by p, network, seed and stage."""
    ratio = 0.6 if arm.arm == "three phases" else float(arm.arm.partition(",")[0].removeprefix("p = "))
    if arm.network == "full":
        return 0.6 + 0.2 * ratio + 0.01 * arm.seed
    return (16.0 if ratio == 0 else 1.2 - 0.3 * ratio) + 0.01 * arm.seed + 0.5 * (arm.comparison == "stages")


RATIOS = Results({arm.system: score(arm.system, _fid(arm)) for arm in arms(DIGITS)
                  if arm.comparison in ("ratios", "stages")}, {})
GRID = Results({"var-d30": score("var-d30", 0.66), "variant-d16": score("variant-d16", 0.64),
                "variant-d16-n7": score("variant-d16-n7", 0.62), "variant-d2": score("variant-d2", 1.9)}, {})
COSTS = Results({name: score(name, fid) for name, fid in (("var-d30", 0.66), ("variant-d16", 0.64), ("dit-mini", 0.23),
                                                           ("dit-mini-250", 0.23), ("variant-d2", 1.9))},
                {"var-d30": _profile("var-d30", 0.4, 55.0), "variant-d16": _profile("variant-d16", 0.3, 34.0),
                 "dit-mini": _profile("dit-mini", 1.0, 9.0, cache_policy="none"),
                 "dit-mini-250": _profile("dit-mini-250", 4.5, 9.0, cache_policy="none"),
                 "variant-d2": _profile("variant-d2", 0.2, 17.0, status="out_of_memory", reason="x", latency=None,
                                        decoder_latency=None)})
RESULTS = {"nothing": Results({}, {}), "ratios": RATIOS, "grid": GRID, "costs": COSTS}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A figure without training curves, drawn once; tests only look at it."""
    run_dir = tmp_path_factory.mktemp("runs")

    @cache
    def figure(name, config_name="digits", results="nothing"):
        return _draw(name, CONFIGS[config_name], RESULTS[results], run_dir)

    return figure


def _draw(name, config, results, run_dir):
    with styled():
        figure = DRAWN[name](config, results, run_dir)
    plt.close(figure)  # pyplot forgets it, and it can still be looked at
    return figure


def _write_curves(run_dir, network, **curves):
    (run_dir / f"training-{network}").mkdir()
    arrays = {f"{name}:{part}": np.array(values, dtype) for name, pair in curves.items()
              for part, values, dtype in zip(("step", "value"), pair, (np.int32, np.float32), strict=True)}
    np.savez(run_dir / f"training-{network}" / "curves.npz", **arrays)


def _texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts] + [text.get_text() for text in figure.texts]


def _panel(figure, title):
    return next(axis for axis in figure.axes if axis.get_title(loc="left").startswith(title))


def _points(axis):
    """All that is marked, but for the caps of error bars; rounded."""
    return {(round(float(x), 3), round(float(y), 3)) for line in axis.lines for x, y in line.get_xydata()
            if line.get_marker() in ("o", "*", "^", "s", "D")}


# -- Fig. 2 -----------------------------------------------------------------------------------------------------------

def test_fig2a_shows_seed_means_and_the_star_on_axes_that_have_room_for_p0(shown):
    axis = _panel(shown("fig2", results="ratios"), "(a) digits")
    assert {(0.7 + 0.01, 1.05 + 0.01), (0.62, 1.17), (0.6, 16.0)} <= _points(axis)  # p = 0.5, of three; p = 0.1; 0
    [star] = [line for line in axis.lines if line.get_marker() == "*"]
    assert star.get_xydata()[0] == pytest.approx((0.73, 1.03))
    texts = {text.get_text() for text in axis.texts} - {""}  # of lines to labels
    assert {"p = 0 (control)", "p = 0.1", "p = 0.2", "p = 0.5", "p = 0.8", "p = 1", "three phases"} == texts
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")


def test_fig2a_keeps_our_control_out_of_the_papers_front(shown):
    figure = shown("fig2", results="ratios")
    front = next(line for line in _panel(figure, "(a) digits").lines if line.get_linestyle() == "-" and
                 len(line.get_xdata()) > 1)
    assert (0.6, 16.0) not in {tuple(point) for point in front.get_xydata()} and len(front.get_xdata()) == 5
    assert "p = 0: our control, the full network trained alone" in " ".join(figure.texts[-1].get_text().split())


def test_fig2_spreads_are_over_seeds():
    [half] = [way for way in ways(DIGITS, RATIOS, "ratios") if way.arm == "p = 0.5"]
    spread = half.spread("full")
    assert (spread.count, spread.mean, spread.sd) == (3, pytest.approx(0.71), pytest.approx(0.01))


def test_fig2_shows_what_the_text_prints(shown):
    figure = shown("fig2", "imagenet256")
    printed = {(1.96, 2.68), (2.32, 2.15), (1.96, 2.05)}
    assert _points(_panel(figure, "(a) paper")) == printed
    assert {tuple(way.fids.iloc[0]) for way in paper_ways()} == printed
    assert sum("not measured here" in text for text in _texts(figure)) == 5


def test_fig2b_has_epochs_where_they_are_known(tmp_path):
    for recipe in ("p10", "p100"):
        _write_curves(tmp_path, f"supernet-d4-{recipe}", **{"validation/full": ([36, 72], [2.0, 1.9]),
                                                            "validation/subnet": ([36, 72], [2.5, 2.2])})
    figure = _draw("fig2", DIGITS, RATIOS, tmp_path)
    full, subnet = (axis for axis in figure.axes if axis.get_ylabel().startswith("loss"))
    assert [line.get_label() for line in full.lines] == ["p = 0.1", "p = 1"]
    assert full.lines[0].get_xydata().tolist() == [[2, 2.0], [4, pytest.approx(1.9)]]
    assert subnet.lines[1].get_ydata().tolist() == pytest.approx([2.5, 2.2])
    assert full.get_xlabel() == "epoch"
    assert "every 2 epochs, not after the last" in " ".join(figure.texts[-1].get_text().split())


def test_fig2b_draws_however_many_are_validated(tmp_path):
    names = list(DIGITS.ablations.ratios)
    recipes = {name: DIGITS.recipe(name).model_copy(update={"validate_every": 1}) for name in names}
    supernet = DIGITS.supernet.model_copy(update={"recipes": DIGITS.supernet.recipes | recipes})
    for name in names:
        losses = [18, 36], [2.0, 1.9]
        _write_curves(tmp_path, f"supernet-d4-{name}", **{"validation/full": losses, "validation/subnet": losses})
    figure = _draw("fig2", DIGITS.model_copy(update={"supernet": supernet}), RESULTS["nothing"], tmp_path)
    full = next(axis for axis in figure.axes if axis.get_ylabel() == "loss, full network")
    assert [line.get_label() for line in full.lines] == ["p = 0", "p = 0.1", "p = 0.2", "p = 0.5", "p = 0.8", "p = 1"]
    assert len({(line.get_color(), line.get_linestyle()) for line in full.lines}) == 6
    note = figure.texts[-1].get_text()
    assert "every epoch, not after the last" in note and "bars" not in note


def test_fig2_says_that_the_paper_names_no_depth(shown):
    note = " ".join(shown("fig2", "imagenet256").texts[-1].get_text().split())
    assert "Sec. 3.3.1, which does not state d; star: Table 4, d = 16" in note


def test_fig2c_sets_the_end_of_phase_1_against_the_end(shown):
    figure = shown("fig2", results="ratios")
    axis = next(axis for axis in figure.axes if axis.get_ylabel() == "FID, subnet")
    early, late = (next(line for line in axis.lines if line.get_linestyle() == style) for style in ("--", "-"))
    assert early.get_xdata().tolist() == late.get_xdata().tolist() == [0.1, 0.2, 0.5, 0.8, 1.0]
    assert early.get_ydata()[0] == pytest.approx(1.67) and late.get_ydata()[0] == pytest.approx(1.17)


# -- Fig. 3 -----------------------------------------------------------------------------------------------------------

def test_fig3a_follows_equation_5(shown):
    axis = _panel(shown("fig3"), "(a)")
    by_epochs = {len(line.get_xdata()): line.get_ydata() for line in axis.lines if len(line.get_xdata()) > 1}
    assert sorted(by_epochs) == [25, 28, 32, 35]
    p = by_epochs[25]
    assert p[0] == p[4] == 0.2 and p[9] == pytest.approx(0.2 + 0.8 * 5 / 15) and p[19] == p[24] == 1
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["1", "5\n$E_1$", "20\n$E_2$", "35"]


def test_fig3b_shows_both_zones_in_both_groups(tmp_path):
    steps = list(range(0, 25 * 18, 18))
    norms = {f"gradient_norm/{plan}/{zone}/{group}": (steps, np.linspace(start, 0.1, 25).astype(np.float32))
             for start, (group, zone, plan) in enumerate(product(
                 ("shared", "full_only"), ("bridge", "flexible"), ("subnet", "full")), start=1)}
    _write_curves(tmp_path, "supernet-d16", **norms)
    figure = _draw("fig3", DIGITS, RESULTS["nothing"], tmp_path)
    shared, full_only = _panel(figure, "(b)"), _panel(figure, "full-only")
    assert [line.get_ydata()[0] for line in shared.lines[::2]] == [1, 2, 3, 4]
    assert [line.get_ydata()[0] for line in full_only.lines[::2]] == [5, 6, 7, 8]
    assert shared.lines[0].get_xdata().tolist() == list(range(1, 26))


def test_running_mean_at_the_ends_and_of_few_values():
    assert running_mean(np.array([1.0, 2, 6, 7]), 3).tolist() == pytest.approx([1.5, 3, 5, 6.5])
    assert running_mean(np.array([4.0]), 5).tolist() == [4]


# -- Fig. 5 -----------------------------------------------------------------------------------------------------------

def test_fig5_measured_points_have_the_cache_of_their_plan():
    points = {(point.depth, point.bridge): point for point in measured_points(DIGITS, GRID)}
    assert set(points) == {(16, 6), (16, 7), (2, 6), *((30, n) for n in range(6, 11))}
    size = KVSize.of(DIGITS)
    assert points[16, 7].kv_mib == size.peak_mib(DIGITS.plan(16, 7), "lean")
    assert points[30, 6].kv_mib == 46.4375  # what the cache itself counted in a run at these sizes
    assert points[2, 6].fid_pm == pytest.approx(1.96 * 0.02)


def test_fig5_draws_ours_and_table_8(shown):
    figure = shown("fig5", results="grid")
    ours_d = next(axis for axis in figure.axes if axis.get_ylabel() == "FID, digits")
    assert {(2, 1.9), (16, 0.64), (30, 0.66)} == _points(ours_d)
    paper_d = next(axis for axis in figure.axes if axis.get_ylabel() == "FID, paper")
    assert {(int(row["depth"]), float(row["N6"])) for _, row in paper_table(8).iterrows()} == _points(paper_d)
    stars = {axis.get_title(loc="left"): tuple(line.get_xydata()[0]) for axis in figure.axes for line in axis.lines
             if line.get_marker() == "*"}
    assert stars == {"(c) both, digits": (KVSize.of(DIGITS).peak_mib(DIGITS.plan(16, 7), "lean"), 0.62),
                     "(c) both, paper": (PAPER_SIZE.peak_mib(paper_plan(16, 7), "reference"), 2.0)}


def test_fig5_shows_both_caches_by_depth(shown):
    axis = next(axis for axis in shown("fig5", results="grid").axes if axis.get_ylabel() == "KV (MiB)")
    lines = {line.get_label(): line.get_xydata()[-1].tolist() for line in axis.lines}
    assert lines == {"reference": [30, 60.9375], "lean": [30, 46.4375]}


def test_fig5_paper_points_have_the_papers_cache():
    points = {(point.depth, point.bridge): point.kv_mib for point in paper_points()}
    assert len(points) == 25
    assert points[30, 6] == 28687.5 and points[2, 10] == 28687.5
    assert 1 - points[16, 7] / points[30, 6] == pytest.approx(0.36, abs=0.005)  # Sec. 6.3


def test_fig5_of_a_depth_that_stands_for_none_of_the_papers(shown):
    systems = {"var-d6": 3.0, "variant-d5": 2.0, "variant-d5-n3": 1.5, "variant-d5-full": 1.25}
    results = Results({system: score(system, fid) for system, fid in systems.items()}, {})
    figure = _draw("fig5", ONE_DEPTH, results, None)
    assert _panel(figure, "(b)").get_title(loc="left") == "(b) bridge, $d$ = 5"
    assert _points(_panel(figure, "(a)")) == {(5, 2.0), (6, 3.0)}
    assert _points(_panel(figure, "(b)")) == {(2, 2.0), (3, 1.5), (4, 1.25)}
    assert not any(line.get_marker() == "*" for line in _panel(figure, "(c) both, one_depth").lines)


def test_fig5_has_no_star_where_another_layout_of_scales_gives_n_another_meaning(tmp_path):
    config = SMOKE.model_copy(update={"patch_nums": (1, 1, 1, 1, 2, 2, 3, 4), "ablations": None})
    results = Results({system: score(system, 2.0) for system in ("var-d6", "variant-d4", "variant-d2")}, {})
    figure = _draw("fig5", config, results, tmp_path)
    assert not any(line.get_marker() == "*" for line in _panel(figure, "(c) both, smoke").lines)


def test_fig5_without_records_shows_the_paper_and_what_is_missing(shown):
    figure = shown("fig5", "imagenet256")
    missing = [text for text in _texts(figure) if "not measured here" in text]
    assert len(missing) == 3 and all("variant-d16" in text for text in missing)
    assert _points(next(axis for axis in figure.axes if axis.get_ylabel() == "FID, paper"))


# -- Quality against cost ---------------------------------------------------------------------------------------------

def test_frontier_places_systems_that_have_both_records(shown):
    axis = _panel(shown("quality-cost", results="costs"), "(b) measured")
    assert {(0.4, 0.66), (0.3, 0.64), (1.0, 0.23), (4.5, 0.23)} == _points(axis)
    assert {"var-d30", "d16", "dit-mini", "dit-mini-250"} <= {text.get_text() for text in axis.texts}


def test_frontier_shows_how_far_repeats_of_a_latency_are_apart():
    """Something else ran beside the first three."""
    repeats = {"median_s": 0.5, "iqr_s": 0.2, "repeats_s": [0.6, 0.6, 0.5, 0.4, 0.4]}
    profiles = {"var-d30": _profile("var-d30", 0.5, 55.0, latency=repeats), "dit-mini": COSTS.profiles["dit-mini"]}
    [var, dit] = measured_marks(DIGITS, Results(COSTS.scores, profiles))
    assert var.latency_quartiles_s == pytest.approx((0.4, 0.6)) and dit.latency_quartiles_s is None
    figure = _draw("quality-cost", DIGITS, Results(COSTS.scores, profiles), None)
    bars = [line.get_xydata().tolist() for line in _panel(figure, "(b) measured").lines]
    assert [[pytest.approx(0.4), 0.66], [pytest.approx(0.6), 0.66]] in bars
    assert "other work disturbed the latencies of var-d30." in figure.texts[-1].get_text().replace("\n", " ")


def test_frontier_arrow_begins_at_the_estimate_with_the_reference_cache(shown):
    marks = {mark.name: mark for mark in measured_marks(DIGITS, COSTS)}
    assert marks["var-d30"].reference_mib == 3 + 60.9375 + 9
    assert marks["dit-mini"].reference_mib is None and "variant-d2" not in marks
    axis = _panel(shown("quality-cost", results="costs"), "(a) measured")
    arrows = {text.xy: text.xyann for text in axis.texts if text.arrow_patch and text.anncoords == "data"}
    assert arrows[55.0, 0.66] == (3 + 60.9375 + 9, 0.66) and len(arrows) == 2
    assert any("estimate" in text.get_text() for text in axis.texts)


@pytest.mark.parametrize(("memory", "estimate"), [
    ({"tensors_mib": 55.0} | PARTS | {"decoder_mib": 80.0}, 83.0),
    ({"tensors_mib": 75.0} | PARTS, 75.0),  # never left of the measured point
    ({"tensors_mib": 55.0} | PARTS | {"activations_mib": None}, None),
    ({"tensors_mib": 55.0}, None)])
def test_frontier_estimate_is_of_the_parts_that_were_measured(memory, estimate):
    results = Results(COSTS.scores, {"var-d30": _profile("var-d30", 0.4, 55.0, memory=memory)})
    [mark] = measured_marks(DIGITS, results)
    assert (mark.memory_mib, mark.reference_mib) == (memory["tensors_mib"], estimate)
    says_so = any("estimate" in text for text in _texts(_draw("quality-cost", DIGITS, results, None)))
    assert says_so == (estimate is not None)


def test_frontier_estimate_is_at_the_batch_of_the_record():
    results = Results(COSTS.scores, {"var-d30": _profile("var-d30", 0.4, 55.0, batch_size=128)})
    [mark] = measured_marks(DIGITS, results)
    assert mark.reference_mib == 3 + 2 * 60.9375 + 9
    assert "batch 128" in _draw("quality-cost", DIGITS, results, None).texts[-1].get_text()


def test_frontier_shows_table_2_beside_it(shown):
    figure = shown("quality-cost", "imagenet256")
    assert (39265, 1.95) in _points(_panel(figure, "(c) paper"))
    assert (19.2, 2.26) in _points(_panel(figure, "(d) paper"))
    assert sum("scores and profiles" in text for text in _texts(figure)) == 2


# -- Live keys and values ---------------------------------------------------------------------------------------------

def test_kv_live_peaks(shown):
    reference, lean = shown("kv-live").axes
    peaks = [[max(line.get_ydata()) for line in axis.lines] for axis in (reference, lean)]
    assert peaks[0] == pytest.approx([28687.5, 17091.6, 10465.3, 7152.2, 5495.6], abs=0.05)
    assert peaks[1] == pytest.approx([12165, 6600, 3420, 1830, 1614.4], abs=0.05)
    assert [line.get_linestyle() for line in (*reference.lines, *lean.lines)] == ["--"] * 5 + ["-"] * 5
    legend = [text.get_text() for text in lean.get_legend().get_texts()]
    assert legend[0] == "$d$ = 30: 12165" and legend[-1] == "$d$ = 2: 1614.4"


def test_kv_live_ends_with_the_layer_in_flight():
    times, mib = PAPER_SIZE.in_flight_mib(paper_plan(2), "lean")
    assert times[0] == pytest.approx(0.5 / 30) and times[-1] == 9.75
    assert mib[-1] < mib[-2]


# -- Latency by scale -------------------------------------------------------------------------------------------------

def _by_scale(system, seconds, **changes):
    return profile(system, [1.0], latency_by_scale_s=[seconds * k for k in range(1, 11)], **changes)


def _bars(axis):
    """The height of each scale's part of the bars, by place."""
    return [[bar.get_height() for bar in container] for container in axis.containers]


def test_latency_by_scale_is_stacked_by_depth_from_deep_to_shallow():
    assert needs_of_scales(DIGITS).profile == ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2")
    profiles = {"variant-d2": _by_scale("variant-d2", 0.01), "var-d30": _by_scale("var-d30", 0.03),
                "variant-d8": profile("variant-d8", [1.0]),  # an older one
                "variant-d4": profile("variant-d4", [1.0], latency_by_scale_s=[0.5, 0.5])}  # of two scales
    figure = _draw("latency-by-scale", DIGITS, Results({}, profiles), None)
    measured, predicted = figure.axes
    assert [label.get_text() for label in measured.get_xticklabels()] == ["30", "2"]
    assert _bars(measured) == [pytest.approx([0.03 * k, 0.01 * k]) for k in range(1, 11)]
    tops = [bar.get_y() + bar.get_height() for bar in measured.containers[-1]]
    assert tops == pytest.approx([0.03 * 55, 0.01 * 55])
    assert [text.get_text() for text in measured.texts] == ["1.65", "0.55"]
    assert [label.get_text() for label in predicted.get_xticklabels()] == ["30", "16", "8", "4", "2"]
    note = " ".join(figure.texts[-1].get_text().split())
    assert "batch 64" in note and "no latency by scale of variant-d16, variant-d8, variant-d4" in note
    assert "disturbed" not in note


def test_latency_by_scale_names_the_disturbed():
    profiles = {"var-d30": _by_scale("var-d30", 0.03, load={"before_1min": 9, "after_1min": 9, "cores": 2, "threads": 1,
                                                            "others": 1.5})}
    note = _draw("latency-by-scale", DIGITS, Results({}, profiles), None).texts[-1].get_text()
    assert "disturbed the profiles of var-d30" in " ".join(note.split())


def test_the_predicted_scales_are_the_predicted_latencies():
    for depth, name in ((30, "var-d30"), (2, "variant-d2")):
        assert sum(predicted_by_scale()[depth]) == pytest.approx(system_cost(name, policy="reference").latency_s)


# -- Throughput ------------------------------------------------------------------------------------------------------

def _swept(system, *latencies_s, device="CPU", full=False):
    """A sweep with these latencies at 1, 2, 4, ... images; then out of memory, or not."""
    records = [profile(system, [seconds], batch_size=2 ** at, device=device) for at, seconds in enumerate(latencies_s)]
    return records + [profile(system, [1.0], batch_size=2 ** len(records), device=device, status="out_of_memory",
                              reason="full", latency=None, decoder_latency=None)] * full


def test_throughput_is_drawn_up_to_the_batch_that_does_not_fit():
    assert needs_of_throughput(DIGITS).sweep == ("var-d30", "variant-d16", "variant-d2")
    sweeps = (*_swept("var-d30", 0.5, 0.5, 0.8, full=True), *_swept("variant-d2", 0.1, 0.2))
    figure = _draw("throughput", DIGITS, Results({}, {}, sweeps=sweeps), None)
    measured, expected = figure.axes
    assert [line.get_label() for line in measured.lines] == ["var-d30", "variant-d2"]
    assert np.allclose(measured.lines[0].get_xydata(), [(1, 2), (2, 4), (4, 5)])
    assert measured.lines[0].get_markevery() == [2]
    assert [line.get_label() for line in expected.lines] == ["var-d30", "variant-d2"]
    note = " ".join(figure.texts[-1].get_text().split())
    assert "batch 8 of var-d30 does not fit" in note and "of variant-d2 does not" not in note
    assert "no sweep of variant-d16" in note and "L20" in note


def test_the_predicted_throughput_ends_where_the_memory_does_and_is_for_the_gpu_of_the_sweeps():
    points = dict(predicted("var-d30", Setting(), 16))
    assert points[64] == pytest.approx(64 / 3.62) and max(points) == 64  # 128 images need more than an L20 has
    assert Setting.of(_swept("var-d30", 1.0)) == Setting()
    on_h200 = Setting.of(_swept("var-d30", 1.0, device="NVIDIA H200"))
    assert on_h200 == Setting("h200", "fp32", "lean") and predicted("dit-mini", on_h200, 16) == []


def test_sweeps_on_another_device_are_left_out_and_named(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, stem: figures.append(figure) or [])
    sweeps = (*_swept("var-d30", 0.5, 0.5), *_swept("variant-d2", 0.1, device="NVIDIA L20"))
    render("throughput", DIGITS, Results({}, {}, sweeps=sweeps), tmp_path, tmp_path / "stem")
    assert [line.get_label() for line in figures[0].axes[0].lines] == ["var-d30"]
    assert "variant-d2, whose device is NVIDIA L20" in " ".join(figures[0].texts[-1].get_text().split())
    plt.close(figures[0])


# -- All --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("config", ["smoke", "imagenet256", "one_depth"])
def test_nothing_measured_is_said_and_no_error(shown, name, config):
    figure = shown(name, config)
    note = figure.texts[-1].get_text()
    assert "arithmetic" in note or "paper" in note.lower()
    assert "measured" not in note.lower() and "Left out" not in note
    assert name == "kv-live" or any("not measured here" in text for text in _texts(figure))


@pytest.mark.parametrize("name", ["fig4", "fig5", "quality-cost"])
def test_records_that_are_not_comparable_are_left_out_and_named(name, tmp_path, monkeypatch):
    """Of a protocol, and of an experiment, other than the rest's; what a figure does not show is not its business."""
    odd = {"variant-d16": score("variant-d16", 0.1, protocol="adm"),
           "variant-d8": score("variant-d8", 0.1, experiment="imagenet256"),
           "free-d8": score("free-d8", 0.1, protocol="adm")}
    figures = []
    monkeypatch.setattr(style, "save", lambda figure, stem: figures.append(figure) or [])
    render(name, DIGITS, Results({**GRID.scores, **COSTS.scores, **odd}, COSTS.profiles), tmp_path, tmp_path / "stem")
    [figure] = figures
    texts = _texts(figure)
    assert not any("0.1 ±" in text or "0.10 ±" in text for text in texts)
    assert 0.1 not in {y for axis in figure.axes for line in axis.lines for y in line.get_ydata()}
    note = " ".join(figure.texts[-1].get_text().split())
    assert note.endswith("Left out: score of variant-d8, which belongs to imagenet256; score of variant-d16, whose "
                         "protocol is adm and not digits.")
    plt.close(figure)


def test_a_note_names_two_that_are_left_out_and_counts_the_rest():
    assert note_lines(["Paper."]) == ["Paper."]
    assert note_lines(["Paper."], ["a", "b", "c", "d"]) == ["Paper.", "Left out: a; b; and 2 more."]


@pytest.mark.parametrize("name", ["fig2", "quality-cost"])
def test_the_same_pixels_twice(name, tmp_path):
    results = Results({**RATIOS.scores, **COSTS.scores}, COSTS.profiles)
    first, second = (render(name, DIGITS, results, tmp_path, tmp_path / stem)[0] for stem in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("ablations", [True, False])
@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_of_four_scales_and_one_depth(name, ablations, tmp_path):
    config = ONE_DEPTH if ablations else ONE_DEPTH.model_copy(update={"ablations": None})
    wanted = figure_needs(name, config)
    results = Results(*({system: make(system, *numbers, experiment=config.name) for system in getattr(wanted, kind)}
                        for kind, make, numbers in (("score", score, (2.0,)), ("profile", _profile, (0.4, 55.0)))))
    paths = render(name, config, results, tmp_path, tmp_path / name)
    assert paths and all(path.stat().st_size > 5000 for path in paths)


@pytest.mark.parametrize(("values", "expected"), [
    ((18000, 40000), (20000, 25000, 30000, 35000, 40000)), ((0.6, 1.9), (0.7, 1, 1.5)),
    ((0.08, 4.5), (0.1, 0.2, 0.5, 1, 2))])
def test_a_logarithmic_axis_has_several_numbers_however_much_it_spans(values, expected):
    with styled():
        figure = new_figure(3, 3)
        axis = figure.subplots()
        axis.plot(values, values)
        log_scale(axis, "x")
        ticks = [tick for tick in axis.get_xticks() if values[0] <= tick <= values[1]]
    plt.close(figure)
    assert ticks == pytest.approx(expected)


def test_labels_keep_apart():
    with styled():
        figure = new_figure(3, 3)
        axis = figure.subplots()
        points = [(0, 0), (0.02, 0), (0.04, 0.01), (1, 1)]
        axis.plot(*zip(*points, strict=True), "o")
        label_points({axis: [(x, y, f"label {index}") for index, (x, y) in enumerate(points)]})
        renderer = figure.canvas.get_renderer()
        boxes = [Text.get_window_extent(text, renderer) for text in axis.texts]
    plt.close(figure)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert boxes[3].x1 <= axis.get_window_extent().x1
