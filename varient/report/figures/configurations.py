"""Fig. 5: FID and KV cache against the subnet's depth d, against the size N of the bridge zone, and over all pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.ablations import arms_of
from varient.config import ExperimentConfig
from varient.cost.paper_systems import BRIDGE
from varient.paper import paper_table
from varient.plan import DepthPlan
from varient.report.figures.kv_live import PAPER_SIZE, KVSize, paper_plan
from varient.report.needs import Needs, arm_systems, needs, shown_depths
from varient.report.style import (
    GREY,
    INK,
    PAGE_IN,
    STAR,
    PointLabel,
    colour_in,
    colour_of_depth,
    corner_note,
    label_points,
    log_scale,
    missing_records,
    new_figure,
    note_below,
)
from varient.results import Results
from varient.spread import half_width
from varient.systems.ids import VarId, base_system

RECOMMENDED = 16, 7
"""d and N of the paper's red star."""


class Point(NamedTuple):
    """One configuration.

    Attributes:
        fid_pm: half of the 95 % interval over redraws of the images; None where it is not known.
    """

    depth: int
    bridge: int
    fid: float
    fid_pm: float | None
    kv_mib: float
    colour: str


def draw_configurations(config: ExperimentConfig, results: Results, _run_dir: Path) -> Figure:
    """Fig. 5, ours above the paper's: (a) d at the config's N, (b) N at the paper's d = 16, (c) both."""
    figure = new_figure(PAGE_IN, 4.9)
    # Three rows at the left, two at the right.
    panels: dict[str, Axes] = figure.subplot_mosaic(
        [["ours_d", "ours_n", "ours"]] * 2 + [["kv_d", "kv_n", "ours"], ["kv_d", "kv_n", "paper"]]
        + [["paper_d", "paper_n", "paper"]] * 2, width_ratios=(1, 1, 1.4))
    ours, printed = measured_points(config, results), paper_points()
    absent = [name for name in needs_of_configurations(config).score if name not in results.scores]
    middle, bridge, full = _middle(config), config.supernet.bridge, config.transformer.depth
    _draw_fids(panels["ours_d"], [point for point in ours if point.bridge == bridge], _depth_of, absent)
    _draw_fids(panels["ours_n"], [point for point in ours if point.depth == middle], _bridge_of, absent)
    _draw_kv(panels["kv_d"], {depth: config.plan(depth) for depth in (*config.supernet.depths, full)}, config)
    _draw_kv(panels["kv_n"], {size: config.plan(middle, size) for size in _bridges(config)}, config)
    _draw_fids(panels["paper_d"], [point for point in printed if point.bridge == BRIDGE], _depth_of)
    _draw_fids(panels["paper_n"], [point for point in printed if point.depth == RECOMMENDED[0]], _bridge_of)
    panels["kv_d"].legend(loc="upper left", handlelength=1.5)
    _name(panels, config)
    figure.align_ylabels([panels[f"{row}_d"] for row in ("ours", "kv", "paper")])
    measured = (f"FID: measured ({config.name}), a supernet for each d, trained with N = {bridge}; bars: 95 % over "
                "redraws of the images; paper" if ours else "FID: paper")
    note_below(figure, f"{measured}: Table 8, star: the configuration it recommends.\nKV: arithmetic, batch "
                       f"{config.profiling.batch_size}", results)
    label_points({panels["ours"]: _draw_space(panels["ours"], ours, _recommended(config), absent),
                  panels["paper"]: _draw_space(panels["paper"], printed, RECOMMENDED)})
    return figure


def needs_of_configurations(config: ExperimentConfig) -> Needs:
    """VAR, its subnets, and the grid d x N."""
    return needs(score=[base_system(config), *(VarId("variant", depth) for depth in shown_depths(config)),
                        *arm_systems(config, "grid")])


def _name(panels: Mapping[str, Axes], config: ExperimentConfig) -> None:
    """Titles of the columns, names of the axes."""
    for row, label in (("ours", f"FID, {config.name}"), ("kv", "KV (MiB)"), ("paper", "FID, paper")):
        panels[f"{row}_d"].set_ylabel(label)
        panels[f"{row}_d"].set_xlabel("subnet depth $d$")
        panels[f"{row}_n"].set_xlabel("bridge size $N$")
    panels["ours_d"].set_title(f"(a) depth, $N$ = {config.supernet.bridge}")
    panels["ours_n"].set_title(f"(b) bridge, $d$ = {_middle(config)}")
    for name, title, size in (("ours", config.name, "lean"), ("paper", "paper", "reference, at the paper's size")):
        panels[name].set_title(f"(c) both, {title}")
        panels[name].set_xlabel(f"KV (MiB), {size}")


def measured_points(config: ExperimentConfig, results: Results) -> list[Point]:
    """The measured points of the grid d x N; the full network, d = D, is the same for all N, as in Table 8."""
    full = config.transformer.depth
    systems = ({(full, n): base_system(config) for n in _bridges(config)}
               | {(depth, config.supernet.bridge): str(VarId("variant", depth)) for depth in config.supernet.depths})
    systems |= {(arm.depth, int(arm.arm.removeprefix("N = "))): arm.system for arm in arms_of(config, "grid")}
    size = KVSize.of(config)
    return [Point(depth, n, record.fid, half_width(record.fid_sd), size.peak_mib(config.plan(depth, n), "lean"),
                  colour_in(config, system))
            for (depth, n), system in systems.items()
            if (record := results.scores.get(system)) and record.fid is not None and record.fid_sd is not None]


def paper_points() -> list[Point]:
    """Table 8, with the size of the released code's KV cache at the batch of Table 2."""
    rows = ((int(row["depth"]), {int(name[1:]): fid for name, fid in row.items() if name != "depth"})
            for _, row in paper_table(8).iterrows())
    return [Point(depth, bridge, float(fid), None, PAPER_SIZE.peak_mib(paper_plan(depth, bridge), "reference"),
                  colour_of_depth(depth)) for depth, fids in rows for bridge, fid in fids.items()]


def _middle(config: ExperimentConfig) -> int:
    """The depth that corresponds to the paper's d = 16, or to its next shallower one; else the deepest."""
    return shown_depths(config)[0]


def _recommended(config: ExperimentConfig) -> tuple[int | None, int | None]:
    """The counterpart of the paper's choice of d and N; there is no N for layouts without the paper's ten scales."""
    depth, bridge = RECOMMENDED
    return config.counterpart(depth), bridge if config.pyramid.num_scales == PAPER_SIZE.pyramid.num_scales else None


def _bridges(config: ExperimentConfig) -> Sequence[int]:
    """The N that the experiment compares, its own included; all from its own upwards, if it compares none."""
    own, last = config.supernet.bridge, config.pyramid.num_scales
    compared = config.ablations.bridges if config.ablations else ()
    return sorted({own, *(compared or range(own, last + 1))})


def _depth_of(point: Point) -> int:
    return point.depth


def _bridge_of(point: Point) -> int:
    return point.bridge


def _draw_fids(axis: Axes, points: Sequence[Point], x_of: Callable[[Point], int], absent: Sequence[str] = ()) -> None:
    """FID over d or N."""
    if not points:
        missing_records(axis, "scores", absent)
        return
    points = sorted(points, key=x_of)
    axis.plot([x_of(point) for point in points], [point.fid for point in points], color=GREY, linewidth=1)
    for point in points:
        axis.errorbar(x_of(point), point.fid, yerr=point.fid_pm, fmt="o", color=point.colour, capsize=2, elinewidth=1)
    axis.set_xticks([x_of(point) for point in points])
    axis.margins(y=0.15)


def _draw_kv(axis: Axes, plans: Mapping[int, DepthPlan], config: ExperimentConfig) -> None:
    """KV cache of some plans, by d or N, under both policies."""
    size, at = KVSize.of(config), sorted(plans)
    axis.plot(at, [size.peak_mib(plans[x], "reference") for x in at], label="reference", linestyle="--", linewidth=0.9,
              color=GREY)
    axis.plot(at, [size.peak_mib(plans[x], "lean") for x in at], label="lean", color=INK, marker="o", markersize=3)
    axis.set_xticks(at)
    axis.set_ylim(0, None)


def _draw_space(axis: Axes, points: Sequence[Point], recommended: tuple[int | None, int | None],
                absent: Sequence[str] = ()) -> list[PointLabel]:
    """FID over KV cache: one line for each depth, larger markers for larger N, a star for the paper's choice."""
    if not points:
        missing_records(axis, "scores", absent)
        return []
    smallest, largest = (bound(point.bridge for point in points) for bound in (min, max))
    labels = {}
    for depth in sorted({point.depth for point in points}):
        line = sorted((point for point in points if point.depth == depth), key=_bridge_of)
        where, colour = ([point.kv_mib for point in line], [point.fid for point in line]), line[0].colour
        axis.plot(*where, color=colour, linewidth=1)
        axis.scatter(*where, s=[8 + 9 * (point.bridge - smallest) for point in line], color=colour, edgecolor="white",
                     linewidth=0.5, zorder=3)
        labels[depth] = (line[0].kv_mib, line[0].fid, f"$d$ = {depth}")
    for star in (point for point in points if (point.depth, point.bridge) == recommended):
        axis.plot(star.kv_mib, star.fid, zorder=4, **STAR)
        labels[star.depth] = (star.kv_mib, star.fid, f"$d$ = {star.depth}, $N$ = {star.bridge}")
    axis.set_ylabel("FID")
    log_scale(axis, "y")
    axis.margins(0.08, 0.12)
    corner_note(axis, f"marker: $N$ = {smallest} (small) to {largest}", right=True, top=True)
    return list(labels.values())
