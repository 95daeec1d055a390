"""Latency by scale, stacked: of the full network and its subnets, measured and at the paper's size predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.config import ExperimentConfig
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_DEVICE, PAPER_POLICY, system_cost
from varient.disturbance import disturbances
from varient.paper import DEPTH, PAPER_DEPTHS
from varient.profile_records import ProfileRecord
from varient.pyramid import VAR_256, Pyramid
from varient.report.needs import Needs, needs, shown_depths
from varient.report.style import PAGE_IN, SMALL_PT, missing_records, new_figure, note_below
from varient.results import Results
from varient.systems.ids import VarId, base_system


def draw_scales(config: ExperimentConfig, results: Results, _run_dir: Path) -> Figure:
    """Seconds of each scale, the first at the bottom: measured, and predicted at the paper's size."""
    figure = new_figure(PAGE_IN, 3.2)
    left, right = figure.subplots(1, 2)
    wanted = needs_of_scales(config).profile
    there = {name: results.profiles[name] for name in wanted
             if name in results.profiles
             and len(results.profiles[name].latency_by_scale_s) == config.pyramid.num_scales}
    absent = [name for name in wanted if name not in there]
    if there:
        _draw_stacks(left, {_depth(name): record.latency_by_scale_s for name, record in there.items()}, config.pyramid)
    else:
        missing_records(left, "latency by scale", absent)
    _draw_stacks(right, predicted_by_scale(), VAR_256)
    left.set_title(f"(a) measured ({config.name})" if there else f"(a) {config.name}")
    right.set_title("(b) predicted, at the paper's size")
    note_below(figure, f"{_measured_note(there, absent)}(b): the cost model for an {PAPER_DEVICE.upper()} at the "
                       f"paper's setting, batch {PAPER_BATCH_SIZE}.  Neither has the image decoder in it", results)
    return figure


def needs_of_scales(config: ExperimentConfig) -> Needs:
    """Profiles of the VAR rows of Table 2: the full network and its subnets from deep to shallow."""
    return needs(profile=[base_system(config), *(VarId("variant", depth) for depth in shown_depths(config))])


def predicted_by_scale() -> dict[int, tuple[float, ...]]:
    """Seconds of each scale by depth, for the VAR rows of Table 2 in its setting."""
    names = {DEPTH: VarId("var", DEPTH)} | {depth: VarId("variant", depth) for depth in PAPER_DEPTHS}
    return {depth: system_cost(str(name), policy=PAPER_POLICY).stages[0].latency_s for depth, name in names.items()}


def _measured_note(there: Mapping[str, ProfileRecord], absent: Sequence[str]) -> str:
    """A note on the measured panel; empty where it shows nothing."""
    if not there:
        return ""
    batch_sizes = sorted({record.batch_size for record in there.values()})
    disturbed = [name for name, record in there.items() if disturbances(record)]
    said = [f"medians, batch {' or '.join(map(str, batch_sizes))}"]
    said += [f"no latency by scale of {', '.join(absent)}"] if absent else []
    said += [f"other work disturbed the profiles of {', '.join(disturbed)}"] if disturbed else []
    return f"(a): {'; '.join(said)}.\n"


def _depth(name: str) -> int:
    found = VarId.parse(name)
    assert found is not None  # `needs_of_scales` names systems of VAR alone
    return found.depth


def _draw_stacks(axis: Axes, seconds: Mapping[int, Sequence[float]], pyramid: Pyramid) -> None:
    """One bar for each depth, the total above it; the legend has the scales from top to bottom."""
    colours = matplotlib.colormaps["cividis"](np.linspace(0.95, 0.05, pyramid.num_scales))
    places, bottom = range(len(seconds)), np.zeros(len(seconds))
    for k in pyramid.scales:
        heights = np.array([by_scale[k - 1] for by_scale in seconds.values()])
        axis.bar(places, heights, 0.7, bottom, color=colours[k - 1], label=f"{k}: {pyramid.side(k)}²")
        bottom += heights
    for place, total in enumerate(bottom):
        axis.text(place, float(total), f"{total:.3g}", ha="center", va="bottom", fontsize=SMALL_PT)
    axis.set_xticks(places, [str(depth) for depth in seconds])
    axis.set_xlabel("depth $d$")
    axis.set_ylabel("latency (s)")
    axis.legend(*(reversed(found) for found in axis.get_legend_handles_labels()), title="scale, tokens",
                bbox_to_anchor=(1, 1), loc="upper left", alignment="left")
