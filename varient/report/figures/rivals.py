"""Quality against the KV cache: VARiant, methods that train nothing, and both together; beside it what is published."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.config import ExperimentConfig
from varient.paper.rivals import SHOWN_BATCH_SIZE, SHOWN_PAIR_BYTES, UNVERIFIED, rivals
from varient.report.cells import NORMAL_95
from varient.report.needs import Needs, needs
from varient.report.rivals import compared_systems, converted_mib, front, memory_and_fid, printed_by_the_paper
from varient.report.style import (
    BETTER,
    GREY,
    ORANGE,
    PAGE_IN,
    PointLabel,
    colour_of,
    label_points,
    log_scale,
    missing_records,
    new_figure,
    note_below,
)
from varient.results import Results
from varient.systems.ids import VarId


class Published(NamedTuple):
    """A published FID over a published cache, converted to the common convention."""

    name: str
    kv_mib: float
    fid: float
    verified: bool


def draw_rivals(config: ExperimentConfig, results: Results, _run_dir: Path) -> Figure:
    """FID over the size of the cache: measured, and as published."""
    figure = new_figure(PAGE_IN, 7.2)
    above, below = figure.subplots(2, 1, height_ratios=(3, 2))  # the labels of the measured systems need the width
    labels = {above: _draw_measured(above, config, results), below: _draw_published(below)}
    above.set_title(f"(a) measured ({config.name})")
    below.set_title("(b) published, VAR-d30")
    note_below(figure, "(a): line: what no other system beats; bars: 95 % over redraws of the images; squares: CoDe, "
                       "triangles: another cache or guidance, crosses: untrained subnets.\n(b): all entries that a "
                       f"method keeps, {SHOWN_PAIR_BYTES} bytes for a key and a value channel, batch "
                       f"{SHOWN_BATCH_SIZE}; hollow: {UNVERIFIED}.  d2 to d16: VARiant", results)
    label_points({axis: points for axis, points in labels.items() if points})
    return figure


def needs_of_rivals(config: ExperimentConfig) -> Needs:
    """The systems of the table, scored and profiled."""
    names = [system.name for system in compared_systems(config)]
    return needs(score=names, profile=names)


def _draw_measured(axis: Axes, config: ExperimentConfig, results: Results) -> list[PointLabel]:
    systems = {system.name: system for system in compared_systems(config)}
    points = memory_and_fid(results, systems)
    if not points:
        missing_records(axis, "scores and profiles", list(systems))
        return []
    line = [points[name] for name in front(points)]
    axis.step([x for x, _ in line], [y for _, y in line], where="post", color=GREY, linewidth=0.8, zorder=1)
    for name, (kv_mib, fid) in points.items():
        sd = results.scores[name].fid_sd
        axis.errorbar(kv_mib, fid, yerr=None if sd is None else NORMAL_95 * sd, fmt=_marker(name), elinewidth=0.8,
                      color=colour_of(systems[name].published_as))
    _scale(axis, "KV cache (MiB)")
    return [(*point, _label(name)) for name, point in points.items()]


def _draw_published(axis: Axes) -> list[PointLabel]:
    found = published_points()
    for point in found:
        colour = colour_of(point.name) if VarId.parse(point.name) else ORANGE
        axis.plot(point.kv_mib, point.fid, "o", color=colour, markerfacecolor=colour if point.verified else "white")
    _scale(axis, "KV cache (MiB)")
    return [(point.kv_mib, point.fid, _label(point.name)) for point in found]


def published_points() -> list[Published]:
    """VAR and VARiant as the paper prints them, and the rivals on VAR-d30 whose FID and cache are printed together."""
    points = []
    for published_as, kv, row in printed_by_the_paper():
        points.append(Published(published_as, converted_mib(kv), float(row["fid"]), True))
    for rival in rivals():
        points += [Published(f"{found.source}, {found.setting}", converted_mib(found.kv), float(found.fid),
                             not found.unverified)
                   for found in rival.numbers if found.fid and found.kv and found.protocol is None]
    return points


def _scale(axis: Axes, label: str) -> None:
    log_scale(axis, "x")
    log_scale(axis, "y")
    axis.margins(0.12)
    axis.set_xlabel(f"{label} {BETTER}")
    axis.set_ylabel(f"FID {BETTER}")


def _marker(name: str) -> str:
    found = VarId.parse(name)
    if found is None:
        return "s"
    if not found.kv.is_plain:
        return "^"
    return "x" if found.free else "o"


def _label(name: str) -> str:
    """Short: "d8 w1" for `variant-d8-w1`."""
    found = VarId.parse(name)
    if found is None:
        return name
    return str(found).partition("-")[2].replace("-", " ")
