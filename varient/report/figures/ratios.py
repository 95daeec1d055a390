"""Fig. 2: what a fixed p(subnet) does to the subnet and to the full network, beside the paper's three phases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.ablations import THREE_PHASES, arms_of
from varient.config import ExperimentConfig
from varient.paper import paper_rows, paper_table
from varient.report.needs import Needs, needs
from varient.report.style import (
    BETTER,
    INK,
    LIGHT_GREY,
    ORANGE,
    PAGE_IN,
    PURPLE,
    SKY,
    STAR,
    PointLabel,
    label_points,
    log_scale,
    missing_records,
    new_figure,
    note_below,
)
from varient.results import Results, SeedSpread, arm_scores, curves_of
from varient.systems.ids import base_system
from varient.systems.names import SupernetId
from varient.training.recipes import supernet_of

NETWORKS = {"full": "full network", "subnet": "subnet"}
STAR_DEPTH = "16"
"""Row of Table 4 that the paper's star in Fig. 2a probably shows; its text does not state d of that figure."""

_CURVE_LOOKS = tuple(product(("-", "--", ":"), (ORANGE, PURPLE, SKY)))
"""Line styles and colours of the fixed ratios in Fig. 2b, in turn."""

_Losses = Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]
"""Network that was trained -> curve -> steps and values."""


@dataclass(frozen=True)
class Way:
    """FIDs of one way of training.

    Attributes:
        arm: "p = 0.1" or "three phases".
        fids: one row for each training, at least one; columns `full` and `subnet`.
    """

    arm: str
    fids: pd.DataFrame

    @property
    def ratio(self) -> float | None:
        """p, where it is fixed."""
        return None if self.arm == THREE_PHASES else float(self.arm.removeprefix("p = "))

    @property
    def is_control(self) -> bool:
        """Whether the subnet is never trained; the paper's ratios begin at 0.1."""
        return self.ratio == 0

    def spread(self, network: str) -> SeedSpread:
        """FID of a network over the trainings."""
        spread = SeedSpread.of(self.fids[network])
        assert spread is not None  # `fids` has a row
        return spread


def draw_ratios(config: ExperimentConfig, results: Results, run_dir: Path) -> Figure:
    """Fig. 2: (a) both FIDs of each p, ours and the paper's; (b) validation losses; (c) FID early and late."""
    figure = new_figure(PAGE_IN, 4.4)
    panels: dict[str, Axes] = figure.subplot_mosaic([["ours", "loss/full", "stages/full"],
                                                     ["paper", "loss/subnet", "stages/subnet"]],
                                                    width_ratios=(1.25, 1, 1))
    at_end = ways(config, results, "ratios")
    absent = ([name for name in needs_of_ratios(config).score if name not in results.scores]
              if config.ablations else ["fixed ratios: the config has no ablations"])
    losses = _validated(config, run_dir)
    depth = f", $d$ = {config.ablations.depth}" if config.ablations else ""
    panels["ours"].set_title(f"(a) {config.name}{depth}")
    panels["paper"].set_title("(a) paper")
    panels["loss/full"].set_title("(b) validation loss")
    panels["stages/full"].set_title("(c) FID early and late")
    _draw_losses([panels[f"loss/{network}"] for network in NETWORKS], config, losses)
    _draw_stages([panels[f"stages/{network}"] for network in NETWORKS], ways(config, results, "stages"), at_end, absent)
    note_below(figure, f"{_measured_note(config, at_end, losses)}Paper: Sec. 3.3.1, which does not state d; "
                       f"star: Table 4, d = {STAR_DEPTH}", results)
    fronts = {panels["ours"]: at_end, panels["paper"]: paper_ways()}
    label_points({axis: _draw_front(axis, found, absent) for axis, found in fronts.items()})
    return figure


def needs_of_ratios(config: ExperimentConfig) -> Needs:
    """All fixed ratios, at the end and at the end of phase 1, and the curves of those that were validated."""
    settings = config.ablations
    validated = [SupernetId(settings.depth, recipe) for recipe in settings.ratios
                 if config.recipe(recipe).validate_every] if settings else []
    shown = [arm.system for arm in arms_of(config, "ratios", "stages") if settings and arm.depth == settings.depth]
    return needs(score=[base_system(config), *shown], curves=validated)


def _measured_note(config: ExperimentConfig, found: Sequence[Way], losses: _Losses) -> str:
    """A note on our panels; empty where they show nothing."""
    parts = [f"Measured ({config.name})"] if found or losses else []
    if any(len(way.fids) > 1 for way in found):
        parts.append("bars: 95 % interval of the mean over trainings (small dots)")
    if any(way.is_control for way in found):
        parts.append("p = 0: our control, the full network trained alone")
    if losses:
        every = sorted({config.recipe(supernet_of(name, config).recipe).validate_every for name in losses})
        unit = "epoch" if every == [1] else f"{' or '.join(map(str, every))} epochs"
        parts.append(f"(b) on held-out images, every {unit}, not after the last")
    return "; ".join(parts) + ".\n" if parts else ""


def ways(config: ExperimentConfig, results: Results, comparison: str) -> list[Way]:
    """The arms of `ratios` or `stages` at the ablations' depth of which both networks are scored; of the latter,
    without the epoch."""
    scores, settings = arm_scores(config, results), config.ablations
    shown = scores[(scores["comparison"] == comparison) & (scores["depth"] == (settings and settings.depth))]
    found = []
    for arm, rows in shown.groupby("arm", sort=False):
        fids = rows.pivot(index="seed", columns="network", values="fid").dropna()
        if len(fids):
            found.append(Way(arm.partition(",")[0], fids))
    return found


def paper_ways() -> list[Way]:
    """The values of Fig. 2a that Sec. 3.3.1 prints, and the three phases from Table 4."""
    printed = {row["id"]: row["value"] for row in paper_rows("claims")}
    table = paper_table(4).set_index("subnet_depth").loc[STAR_DEPTH]
    fids = {"p = 0.1": (printed["3.3.1-p01-full"], printed["3.3.1-p01-sub"]),
            "p = 1": (printed["3.3.1-p10-full"], printed["3.3.1-p10-sub"]),
            THREE_PHASES: (table["joint_full_fid"], table["joint_subnet_fid"])}
    return [Way(arm, pd.DataFrame([pair], columns=list(NETWORKS)).astype(float)) for arm, pair in fids.items()]


def _draw_front(axis: Axes, found: Sequence[Way], absent: Sequence[str]) -> list[PointLabel]:
    """FID of the full network over x and of the subnet over y, both better to the lower left.

    Logarithmic: a subnet that is hardly ever trained (small p) would flatten all that is of interest.
    """
    if not found:
        missing_records(axis, "scores", absent)
        return []
    fixed = [way for way in found if way.ratio]  # the paper's: without our control
    centres = {way.arm: (way.spread("full").mean, way.spread("subnet").mean) for way in found}
    axis.plot(*zip(*(centres[way.arm] for way in fixed), strict=True), color=LIGHT_GREY, linewidth=1, zorder=1)
    for way in found:
        colour = STAR["color"] if way.ratio is None else INK
        if len(way.fids) > 1:
            axis.plot(way.fids["full"], way.fids["subnet"], ".", color=colour, alpha=0.3, markersize=4, zorder=2)
        axis.errorbar(*centres[way.arm], xerr=way.spread("full").half_width_95,
                      yerr=way.spread("subnet").half_width_95, color=colour, elinewidth=0.8, fmt="none")
        axis.plot(*centres[way.arm], **(STAR if way.ratio is None else {"marker": "o", "color": INK}), zorder=4)
    axis.set_xlabel(f"FID, full network {BETTER}")
    axis.set_ylabel(f"FID, subnet {BETTER}")
    log_scale(axis, "x")
    log_scale(axis, "y")
    axis.margins(0.2, 0.15)  # room for names at the left
    return [(*centres[way.arm], f"{way.arm} (control)" if way.is_control else way.arm) for way in found]


def _validated(config: ExperimentConfig, run_dir: Path) -> _Losses:
    """Curves of those trainings with a fixed ratio that were validated."""
    found = {name: curves_of(run_dir, name) for name in needs_of_ratios(config).curves}
    return {name: curves for name, curves in found.items()
            if all(f"validation/{network}" in curves for network in NETWORKS)}


def _draw_losses(axes: Sequence[Axes], config: ExperimentConfig, losses: _Losses) -> None:
    """Validation losses of the fixed ratios that are validated.

    Validation runs before a step, so there is none after the last step.
    """
    wanted = needs_of_ratios(config).curves
    per_epoch = config.supernet.training.batches_per_epoch
    for axis, network in zip(axes, NETWORKS, strict=True):
        axis.set_ylabel(f"loss, {NETWORKS[network]}")
        axis.set_xlabel("epoch" if per_epoch else "step")
        if not losses:
            missing_records(axis, "training curves", wanted or ["fixed ratios with validate_every"])
            continue
        for (name, curves), (style, colour) in zip(losses.items(), cycle(_CURVE_LOOKS), strict=False):
            steps, values = curves[f"validation/{network}"]
            ratio = config.recipe(supernet_of(name, config).recipe).ratio
            axis.plot(steps / (per_epoch or 1), values, label=f"p = {ratio:g}", linestyle=style, color=colour)
    if losses:
        axes[0].legend(loc="best", handlelength=1.2)


def _draw_stages(axes: Sequence[Axes], early: Sequence[Way], late: Sequence[Way], absent: Sequence[str]) -> None:
    """FID over p at the end of phase 1 and of the training; a line for the three phases at the end."""
    for axis, network in zip(axes, NETWORKS, strict=True):
        axis.set_ylabel(f"FID, {NETWORKS[network]}")
        axis.set_xlabel("p(subnet)")
        if not early:
            missing_records(axis, "scores", absent)
            continue
        for name, found, style, face in (("end of phase 1", early, "--", "white"), ("end", late, "-", INK)):
            spreads = {way.ratio: way.spread(network) for way in found if way.ratio}
            fixed = sorted(spreads)
            axis.errorbar(fixed, [spreads[ratio].mean for ratio in fixed],
                          yerr=[spreads[ratio].half_width_95 or 0 for ratio in fixed], color=INK, marker="o",
                          markersize=3.5, linewidth=1, elinewidth=0.8, label=name, linestyle=style,
                          markerfacecolor=face)
        for way in (way for way in late if way.ratio is None):
            axis.axhline(way.spread(network).mean, color=STAR["color"], linestyle=":", linewidth=1, label=THREE_PHASES)
        axis.set_xticks([0, 0.5, 1])
        log_scale(axis, "y")
    if early:
        axes[0].legend(loc="best", handlelength=1.8)
