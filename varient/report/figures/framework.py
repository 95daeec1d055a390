"""Figure 1: the layers that run at each scale and those that a batch trains, drawn from the plan."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, to_rgb
from matplotlib.figure import Figure

from varient.config import ExperimentConfig
from varient.cost.kv_accounting import passes, token_layers
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.report.needs import nothing, shown_depths
from varient.report.style import (
    BRIDGE_ZONE,
    FLEXIBLE_ZONE,
    GREY,
    INK,
    LIGHT_GREY,
    PAGE_IN,
    colour_in,
    new_figure,
    note_source,
)
from varient.results import Results
from varient.systems.ids import VarId
from varient.training.schedule import ProgressiveSchedule, Schedule

SKIPPED, IN_BRIDGE, IN_FLEXIBLE = 0, 1, 2
"""What a layer does at a scale: codes of `cells`."""

_IDLE = "#E6E6E6"
_CELLS = ListedColormap([_IDLE, BRIDGE_ZONE, FLEXIBLE_ZONE])
_TRAINED = {"bridge": LinearSegmentedColormap.from_list("bridge", [_IDLE, BRIDGE_ZONE]),
            "flexible": LinearSegmentedColormap.from_list("flexible", [_IDLE, FLEXIBLE_ZONE])}

_HEIGHT_IN, _TITLES_IN, _KEY_IN = 4.87, 4.68, 0.74
"""Height of the figure; bottoms of the titles and of the first line of the legend."""
_ROWS_IN = (1.14, 2.6)
"""Bottom and height of all panels whose rows are layers."""
_HEAD_IN, _STRIP_IN = (3.78, 0.76), (3.98, 0.48)
"""Bottom and height of the panels above them: token maps, and p(subnet)."""
_SCALES_IN, _BRIDGE_IN, _EPOCHS_IN = (0.5, 2.8), (4.1, 0.3), (4.52, 2.25)
"""Left and width of the columns."""
_SMALL = 6.5


def draw_framework(config: ExperimentConfig, results: Results, run_dir: Path) -> Figure:
    """The experiment's counterpart of the paper's d = 16, with the config's N."""
    return framework(config, shown_depths(config)[0])


needs_of_framework = nothing


def framework(config: ExperimentConfig, depth: int, bridge: int | None = None) -> Figure:
    """Inference and training of the subnet of ``depth`` layers.

    Args:
        bridge: N; None is the config's.

    Raises:
        ValueError: a depth or N that the experiment does not have.
    """
    plan, pyramid = config.plan(depth, bridge), config.pyramid
    schedule = ProgressiveSchedule(config.supernet.phases_of(depth, config.recipe(None)))
    figure = new_figure(PAGE_IN, _HEIGHT_IN)
    figure.set_layout_engine("none")  # axes are placed in inches
    for (left_in, _), title in ((_SCALES_IN, "(a) Inference: one pass a scale, coarse to fine"),
                                (_BRIDGE_IN, "(b) Training: which tokens pass a layer")):
        _write(figure, left_in, _TITLES_IN, title, weight="bold", size=8.5)
    draw_token_maps(_panel(figure, _SCALES_IN, _HEAD_IN, "token maps"), pyramid)
    draw_inference(_panel(figure, _SCALES_IN, _ROWS_IN, "inference"), plan, pyramid)
    draw_schedule(_panel(figure, _EPOCHS_IN, _STRIP_IN, "schedule"), schedule,
                  colour_in(config, str(VarId("variant", depth))))
    for zone, columns in (("bridge", _BRIDGE_IN), ("flexible", _EPOCHS_IN)):
        draw_training(_panel(figure, columns, _ROWS_IN, zone), plan, zone, schedule)
    _explain_inference(figure, plan, pyramid)
    _explain_training(figure, plan)
    note_source(figure, f"Arithmetic from the plan ({config.name}: D = {plan.depth}, d = {depth}, "
                        f"N = {len(zones(plan)['bridge'])}). Column width: logarithm of the number of tokens.\n"
                        "A layer receives its gradients at the tokens that pass through it; the darker the colour, the "
                        "larger the share of an epoch's batches in which they do.")
    return figure


def zones(plan: DepthPlan) -> dict[str, tuple[int, ...]]:
    """Scales at which all layers run, and the others."""
    full = [k for k in range(1, plan.num_scales + 1) if len(plan.layers(k)) == plan.depth]
    return {"bridge": tuple(full), "flexible": tuple(sorted(set(range(1, plan.num_scales + 1)) - set(full)))}


def scale_range(scales: Sequence[int]) -> str:
    """Consecutive scales as "r7–r10", a single one as "r10"."""
    return f"r{scales[0]}" if len(scales) == 1 else f"r{scales[0]}–r{scales[-1]}"


def cells(plan: DepthPlan) -> np.ndarray:
    """What each layer does at each scale, (D, K): `SKIPPED`, `IN_BRIDGE` or `IN_FLEXIBLE`."""
    codes = np.full((plan.depth, plan.num_scales), SKIPPED)
    for zone, code in (("bridge", IN_BRIDGE), ("flexible", IN_FLEXIBLE)):
        for k in zones(plan)[zone]:
            codes[list(plan.layers(k)), k - 1] = code
    return codes


def trained_share(plan: DepthPlan, zone: str, schedule: Schedule) -> np.ndarray:
    """Share of an epoch's batches in which tokens of a zone pass a layer, (D, E).

    A full batch takes them through all layers, a subnet batch through the plan's.
    """
    scales = zones(plan)[zone]
    in_full = np.full((plan.depth, 1), float(bool(scales)))
    in_subnet = np.isin(np.arange(plan.depth), [layer for k in scales for layer in plan.layers(k)])[:, None]
    p_subnet = np.array([schedule.subnet_probability(epoch) for epoch in range(1, schedule.epochs + 1)])
    return (1 - p_subnet) * in_full + p_subnet * in_subnet


def draw_token_maps(axis: Axes, pyramid: Pyramid) -> None:
    """The scales above their columns: map, number, side and tokens."""
    edges = _column_edges(pyramid)
    axis.set_axis_off()
    box = axis.get_position()
    width, height = box.width * PAGE_IN, box.height * _HEIGHT_IN
    inch = edges[-1] / width  # both axes in the same unit, so that maps are square
    axis.set(xlim=(0, edges[-1]), ylim=(0, height * inch))
    lines = [(0.27, "scale", "r{k}"), (0.155, "side", "{side}"), (0.04, "tokens", "{tokens}")]
    for y, name, _ in lines:
        axis.text(-0.06 * inch, y * inch, name, ha="right", va="center", color=GREY, size=_SMALL)
    for k in pyramid.scales:
        side, middle = pyramid.side(k), (edges[k - 1] + edges[k]) / 2
        half = 0.4 * (edges[k] - edges[k - 1])
        axis.pcolormesh(np.linspace(middle - half, middle + half, side + 1),
                        0.36 * inch + np.linspace(0, 2 * half, side + 1), np.zeros((side, side)),
                        cmap=ListedColormap([LIGHT_GREY]), edgecolor="white", linewidth=0.35)
        for y, _, text in lines:
            axis.text(middle, y * inch, text.format(k=k, side=side, tokens=pyramid.tokens(k)), ha="center",
                      va="center", size=_SMALL)


def draw_inference(axis: Axes, plan: DepthPlan, pyramid: Pyramid) -> None:
    """Layers x scales: a cell is filled where the layer runs; beside it the numbers of the subnet's layers."""
    plan.check_fits(plan.depth, pyramid.num_scales)
    edges = _column_edges(pyramid)
    _draw_rows(axis, edges, cells(plan), _CELLS, top=IN_FLEXIBLE)
    axis.vlines(edges[1:-1], -0.5, plan.depth - 0.5, color="white", linewidth=0.6)
    step = max(1, plan.depth // 6)
    axis.set_yticks(range(0, plan.depth, step))
    axis.set_ylabel("layer", labelpad=2)
    kept = sorted({layer for k in zones(plan)["flexible"] for layer in plan.layers(k)})
    size = min(_SMALL, 0.85 * 72 * _ROWS_IN[1] / plan.depth)
    for layer in kept:
        axis.annotate(str(layer), (edges[-1], layer), (4, 0), textcoords="offset points", va="center", size=size,
                      color=FLEXIBLE_ZONE)
    if kept:
        axis.annotate(f"$I_{{{len(kept)}}}$", (1, 1), (4, 3), xycoords="axes fraction", textcoords="offset points",
                      size=7.5, color=FLEXIBLE_ZONE)


def draw_schedule(axis: Axes, schedule: ProgressiveSchedule, colour: str) -> None:
    """The shares of subnet batches, in their colour, and of full batches by epoch; the phases above them."""
    epochs = range(1, schedule.epochs + 1)
    edges = np.arange(schedule.epochs + 1)
    p_subnet = [schedule.subnet_probability(epoch) for epoch in epochs]
    axis.stairs(np.ones(len(p_subnet)), edges, baseline=p_subnet, fill=True, color=LIGHT_GREY)
    axis.stairs(p_subnet, edges, fill=True, color=colour)
    axis.set(xlim=(0, schedule.epochs), ylim=(0, 1), xticks=[])
    axis.set_yticks([0, p_subnet[0], 1], ["0", f"{p_subnet[0]:g}", "1"])
    axis.tick_params(length=0, pad=2, labelsize=_SMALL)
    axis.spines[:].set_visible(False)
    axis.set_ylabel("p(subnet)", labelpad=2, size=_SMALL)
    ends = np.cumsum((0, *schedule.phases))
    for phase, (begin, end) in enumerate(pairwise(ends), start=1):
        axis.axvline(end, color="white", linewidth=1)
        axis.annotate(f"phase {phase}" if phase == 1 else str(phase), ((begin + end) / 2, 1), (0, 3),
                      textcoords="offset points", ha="center", size=_SMALL)
    # Both within phase 2, above and below its ramp.
    axis.annotate("full batches", (ends[1], 1), (3, -3), textcoords="offset points", va="top", size=_SMALL)
    axis.annotate("subnet batches", (ends[2], 0), (-3, 4), textcoords="offset points", ha="right", size=_SMALL,
                  color=INK if sum(to_rgb(colour)) > 1.5 else "white")


def draw_training(axis: Axes, plan: DepthPlan, zone: str, schedule: ProgressiveSchedule) -> None:
    """Layers x epochs: the darker, the larger the share of batches in which tokens of the zone pass the layer."""
    _draw_rows(axis, np.arange(schedule.epochs + 1), trained_share(plan, zone, schedule), _TRAINED[zone], top=1)
    colour = BRIDGE_ZONE if zone == "bridge" else FLEXIBLE_ZONE
    axis.set_yticks([])
    axis.annotate(zone if zone == "bridge" else "flexible zone", (0.5, 1), (0, 3), xycoords="axes fraction",
                  textcoords="offset points", ha="center", size=_SMALL, color=colour)
    if zone == "flexible":
        axis.set_xticks(np.unique(np.cumsum((0, *schedule.phases))))
        axis.set_xlabel("epoch", labelpad=1, size=_SMALL)


def _draw_rows(axis: Axes, edges: np.ndarray, values: np.ndarray, colours: Colormap, top: float) -> None:
    """A panel whose rows are layers, the first at the bottom."""
    rows = np.arange(len(values) + 1) - 0.5
    axis.pcolormesh(edges, rows, values, cmap=colours, vmin=0, vmax=top)
    axis.hlines(rows[1:-1], edges[0], edges[-1], color="white", linewidth=0.6)
    axis.set(xlim=(edges[0], edges[-1]), ylim=(rows[0], rows[-1]))
    axis.spines[:].set_visible(False)
    axis.set_xticks([])
    axis.tick_params(length=0, pad=2, labelsize=_SMALL)


def _column_edges(pyramid: Pyramid) -> np.ndarray:
    """Edges of the scales' columns; the first scale needs room for its name."""
    return np.concatenate([[0], np.cumsum([1.5 + np.log2(side) for side in pyramid.patch_nums])])


def _panel(figure: Figure, columns_in: tuple[float, float], rows_in: tuple[float, float], name: str) -> Axes:
    (left, width), (bottom, height) = columns_in, rows_in
    return figure.add_axes((left / PAGE_IN, bottom / _HEIGHT_IN, width / PAGE_IN, height / _HEIGHT_IN), label=name)


def _write(figure: Figure, left_in: float, bottom_in: float, text: str, **style: Any) -> None:
    figure.text(left_in / PAGE_IN, bottom_in / _HEIGHT_IN, text, **{"size": _SMALL, **style})


def _explain(figure: Figure, left_in: float, lines: Sequence[tuple[str, str]]) -> None:
    """Lines of colour and text below the panels."""
    for number, (colour, text) in enumerate(lines):
        bottom_in = _KEY_IN - 0.145 * number
        _write(figure, left_in, bottom_in, "■", color=colour, size=8)
        _write(figure, left_in + 0.13, bottom_in + 0.005, text)


def _explain_inference(figure: Figure, plan: DepthPlan, pyramid: Pyramid) -> None:
    lines = []
    for zone, colour in (("bridge", BRIDGE_ZONE), ("flexible", FLEXIBLE_ZONE)):
        if scales := zones(plan)[zone]:
            tokens = sum(map(pyramid.tokens, scales))
            lines.append((colour, f"{zone} zone {scale_range(scales)}: {len(plan.layers(scales[0]))} layers, "
                                  f"{tokens} of {pyramid.length} tokens ({tokens / pyramid.length:.0%})"))
    saved = 1 - token_layers(passes(plan, pyramid)) / (plan.depth * pyramid.length)
    lines.append((_IDLE, f"skipped: {saved:.0%} of the full network's token-layers"))
    _explain(figure, _SCALES_IN[0], lines)


def _explain_training(figure: Figure, plan: DepthPlan) -> None:
    scales = zones(plan)
    shared = len(plan.layers(scales["flexible"][0])) if scales["flexible"] else plan.depth
    bridge = "every batch takes them through all layers" if scales["bridge"] else "none"
    _explain(figure, _BRIDGE_IN[0], [
        (BRIDGE_ZONE, f"bridge tokens: {bridge}"),
        (FLEXIBLE_ZONE, f"flexible tokens: the {shared} shared layers in every batch,"),
        ("none", f"the {plan.depth - shared} full-only layers (fading) in full batches alone")])
