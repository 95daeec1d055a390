"""Fig. 3: p(subnet) over the epochs of each supernet, and gradient norms by zone of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.config import ExperimentConfig, Recipe
from varient.report.needs import Needs, needs, shown_depths
from varient.report.style import (
    BRIDGE_ZONE,
    FLEXIBLE_ZONE,
    GREY,
    LIGHT_GREY,
    PAGE_IN,
    SMALL_PT,
    colour_in,
    missing_records,
    new_figure,
    note_below,
)
from varient.results import Results, curves_of
from varient.systems.ids import VarId
from varient.systems.names import SupernetId
from varient.training.recipes import schedule_of, supernet_of

GROUPS = {"shared": "shared layers", "full_only": "full-only layers"}
ZONES = {"bridge": BRIDGE_ZONE, "flexible": FLEXIBLE_ZONE}

PLANS = {"subnet": "-", "full": "--"}

SMOOTHED_EPOCHS = 5
"""Width of the running mean: one batch an epoch is measured."""


def draw_schedule(config: ExperimentConfig, results: Results, run_dir: Path) -> Figure:
    """Fig. 3: (a) p(subnet) by epoch, (b) norm of the gradient by zone, in shared and in full-only layers."""
    figure = new_figure(PAGE_IN, 2.5)
    panels: dict[str, Axes] = figure.subplot_mosaic([["p", *GROUPS]], width_ratios=(1.1, 1, 1))
    _draw_probability(panels["p"], config)
    [network] = needs_of_schedule(config).curves
    phases = config.supernet.phases_of(supernet_of(network, config).depth, Recipe())
    curves = curves_of(run_dir, network)
    for group in GROUPS:
        if all(_norms(plan, zone, group) in curves for plan in PLANS for zone in ZONES):
            _draw_gradients(panels[group], curves, group, phases)
        else:  # not trained, or a subnet without one of the zones or groups
            missing_records(panels[group], "gradient norms", [network])
    panels["shared"].set_title(f"(b) gradients, {GROUPS['shared']}")
    panels["full_only"].set_title(GROUPS["full_only"])
    for group in GROUPS:
        panels[group].set_ylabel("gradient norm")
    measured = (f"; (b) measured ({config.name}): {network}, both plans on the first batch of each epoch; line: mean "
                f"of {SMOOTHED_EPOCHS} epochs.\nUnder the subnet's plan the flexible zone reaches full-only layers "
                "through the keys and values of the bridge zone" if curves else "")
    note_below(figure, f"(a) arithmetic: Eq. 5 and the config's phases{measured}", results)
    return figure


def needs_of_schedule(config: ExperimentConfig) -> Needs:
    """The training of the deepest subnet that stands for one of the paper's."""
    return needs(curves=[SupernetId(shown_depths(config)[0])])


def _draw_probability(axis: Axes, config: ExperimentConfig) -> None:
    """p by epoch.  All depths share the first phases, so the longest is drawn first and each end is marked."""
    phases = {depth: config.supernet.phases_of(depth, Recipe()) for depth in config.supernet.depths}
    longest_first = sorted(phases, key=lambda depth: sum(phases[depth]), reverse=True)
    _shade_phases(axis, phases[longest_first[0]])
    for depth in longest_first:
        schedule, colour = schedule_of(Recipe(), phases[depth]), colour_in(config, str(VarId("variant", depth)))
        epochs = range(1, schedule.epochs + 1)
        axis.plot(epochs, [schedule.subnet_probability(epoch) for epoch in epochs], color=colour, linewidth=1.8)
        axis.plot(schedule.epochs, 1, "o", color=colour, clip_on=False)
        axis.annotate(str(depth), (schedule.epochs, 1), textcoords="offset points", xytext=(0, -5), ha="center",
                      va="top", fontsize=SMALL_PT)
    axis.annotate("last epoch, by $d$", (sum(phases[longest_first[0]]), 1), textcoords="offset points",
                  xytext=(0, -15), ha="right", va="top", fontsize=SMALL_PT)
    axis.set_ylim(0, 1.16)
    axis.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axis.set_ylabel("p(subnet)")
    axis.set_title("(a) schedule, phases 1 to 3")


def _draw_gradients(axis: Axes, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], group: str,
                    phases: tuple[int, int, int]) -> None:
    """Norms of one group of layers under each plan: a point an epoch, and their running mean.

    Under the subnet's plan gradients of the flexible zone still reach full-only layers, because its tokens attend to
    keys and values of the bridge zone, which depend on those layers.
    """
    _shade_phases(axis, phases)
    for zone, colour in ZONES.items():
        for plan, line in PLANS.items():
            norms = curves[_norms(plan, zone, group)][1]
            epochs = np.arange(1, len(norms) + 1)
            axis.plot(epochs, norms, ".", color=colour, markersize=3, alpha=0.3)
            axis.plot(epochs, running_mean(norms, SMOOTHED_EPOCHS), line, color=colour, label=f"{zone} zone, {plan}")
    axis.set_ylim(0, 1.1 * axis.dataLim.ymax)
    if group == next(iter(GROUPS)):
        axis.legend(loc="upper right", bbox_to_anchor=(1, 0.94), handlelength=1.2)


def _norms(plan: str, zone: str, group: str) -> str:
    """Name of the curve."""
    return f"gradient_norm/{plan}/{zone}/{group}"


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the ``width`` values around each value; at the ends, of fewer."""
    window = np.ones(min(width, len(values)))
    return np.convolve(values, window, mode="same") / np.convolve(np.ones(len(values)), window, mode="same")


def _shade_phases(axis: Axes, phases: tuple[int, int, int]) -> None:
    """Phase 2 in grey, with E1 and E2 at the axis; an epoch is centred on its number."""
    first, second, last = accumulate(phases)
    axis.axvspan(first + 0.5, second + 0.5, color=LIGHT_GREY, alpha=0.4, linewidth=0)
    for phase, (begin, end) in enumerate(((0, first), (first, second), (second, last)), start=1):
        axis.text((begin + end + 1) / 2, 0.99, str(phase), ha="center", va="top", fontsize=SMALL_PT, color=GREY,
                  transform=axis.get_xaxis_transform())
    axis.set_xlim(0.5, last + 0.5)
    axis.set_xticks([1, first, second, last], ["1", f"{first}\n$E_1$", f"{second}\n$E_2$", str(last)])
    axis.set_xlabel("epoch")
