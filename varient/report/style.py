"""A common style for all plots, readable in print, in greyscale and with colour blindness: each system has one colour.

Colours are Okabe and Ito's (https://jfly.uni-koeln.de/color/); the subnets, which have an order, are one blue from dark
(deep) to light (shallow).  Lines are labelled directly where possible, else by a legend.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np

from varient.config import ExperimentConfig
from varient.files import atomic_path
from varient.results import Results
from varient.systems.ids import VarId, parse
from varient.systems.registry import resolve_system
from varient.targets import figure_files

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.text import Annotation
from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

INK = "#222222"
GREY = "#8A8A8A"
LIGHT_GREY = "#D9D9D9"
ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE = "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"

BRIDGE_ZONE, FLEXIBLE_ZONE = BLUE, VERMILLION
"""Blue and red, as in the paper's Figures 1 and 3."""

COLUMN_IN, PAGE_IN = 3.35, 6.9
"""Widths of one and of two columns of a paper, inches."""

PointLabel = tuple[float, float, str]
"""x, y and what is written beside that point."""

STAR: dict[str, Any] = {"marker": "*", "color": VERMILLION, "markersize": 11, "markeredgecolor": "white",
                        "linestyle": "none"}
"""What the paper recommends: its red star in Figures 2 and 5."""

BETTER = "(← better)"
"""For labels of axes on which less is better; on an upright axis the arrow turns with the text."""

SMALL_PT = 7
"""Size of labels beside points and lines."""

_BY_DEPTH = {30: INK, 16: "#08306B", 8: "#2171B5", 4: "#4A9BCF", 2: "#86C0E3"}
_BY_FAMILY = {"code": VERMILLION, "dit": GREEN, "llamagen": PURPLE}

_SETTINGS = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8, "legend.fontsize": 7.5,
    "xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "axes.titlelocation": "left", "axes.titleweight": "bold",
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "lines.linewidth": 1.4,
    "lines.markersize": 4.5, "legend.frameon": False, "grid.color": LIGHT_GREY, "grid.linewidth": 0.5,
    "figure.constrained_layout.use": True, "savefig.dpi": 200, "pdf.fonttype": 42, "svg.hashsalt": "varient",
}


def colour_of_depth(paper_depth: int) -> str:
    """Colour of a subnet by the paper's depth that it stands for; 30 is the full network."""
    return _BY_DEPTH[paper_depth]


def colour_of(published_as: str) -> str:
    """Colour of a system by its id at the paper's size (`System.published_as`)."""
    system = parse(published_as)
    if isinstance(system, VarId):
        return _BY_DEPTH.get(system.depth, BLUE)
    return _BY_FAMILY.get(system.family, ORANGE) if system else ORANGE


def colour_in(config: ExperimentConfig, system: str) -> str:
    """Colour of a system of an experiment, whatever its depth is called there."""
    return colour_of(resolve_system(system, config).published_as)


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure in the common style; draw on it inside `styled`."""
    return plt.figure(figsize=(width_in, height_in))


def styled() -> plt.rc_context:
    """Context in which figures are drawn and saved."""
    return plt.rc_context(_SETTINGS)


def missing(axis: plt.Axes, what: str) -> None:
    """Name the missing records in an empty panel."""
    axis.set_axis_off()
    axis.text(0.5, 0.5, f"not measured here:\n{what}", ha="center", va="center", color=GREY, fontsize=7.5,
              transform=axis.transAxes, wrap=True)


def missing_records(axis: plt.Axes, kind: str, names: Sequence[str]) -> None:
    """`missing`, for a panel that lacks files of several systems or networks: the first are named."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    missing(axis, textwrap.fill(f"{kind} of {', '.join(names[:4])}{more}", 32, break_on_hyphens=False))


def log_scale(axis: plt.Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis with plain numbers at 1, 2, 5, 10, ..., or at more of them where the data span little."""
    axis.set(**{f"{which}scale": "log"})
    along = getattr(axis, f"{which}axis")
    low, high = sorted(along.get_view_interval())
    if high / low < _NARROW_SPAN:
        along.set_major_locator(AutoLocator())
    else:
        subs = (1, 2, 5) if high / low > _WIDE_SPAN[which] else (1, 1.5, 2, 3, 4, 5, 7)
        along.set_major_locator(LogLocator(subs=subs))
    along.set_major_formatter(StrMethodFormatter("{x:g}"))
    along.set_minor_formatter(NullFormatter())


_NARROW_SPAN, _WIDE_SPAN = 3, {"x": 5, "y": 20}
"""Ratios of largest to smallest value: below the first the ticks are equally spaced, above the second they are fewer.
"""


def corner_note(axis: plt.Axes, text: str, *, right: bool = False, top: bool = False) -> None:
    """A small grey remark in a corner of a panel."""
    axis.annotate(text, (float(right), float(top)), xycoords="axes fraction", textcoords="offset points",
                  xytext=(-3 if right else 3, -3 if top else 3), ha="right" if right else "left",
                  va="top" if top else "bottom", fontsize=6.5, color=GREY)


def label_points(panels: Mapping[plt.Axes, Sequence[PointLabel]]) -> None:
    """Write texts beside points where they cover no point, no other text and preferably no line.

    To be called after all panels of a figure are drawn, because it needs their limits and layout.
    """
    for figure in {axis.figure for axis in panels}:
        figure.draw_without_rendering()
    for axis, labels in panels.items():
        obstacles = _Obstacles(axis)
        for x, y, text in labels:
            obstacles.others = [axis.transData.transform(other[:2]) for other in labels if other[:2] != (x, y)]
            label = axis.annotate(text, (x, y), (0, 0), textcoords="offset points", fontsize=SMALL_PT)
            label.set_in_layout(False)  # it follows the layout, and must not move it
            costs = {place: obstacles.cost(_box(label, place)) for place in _PLACES}
            best = min(costs, key=costs.__getitem__)
            obstacles.boxes.append(_box(label, best).padded(_BETWEEN_PT * obstacles.point))
            if max(map(abs, best[:2])) > _BESIDE_PT:
                _draw_leader(axis, (x, y), best)


class _Obstacles:
    """What labels of a panel should not cover, in pixels.

    Attributes:
        others: points with labels of their own, from which other labels keep a distance.
    """

    def __init__(self, axis: plt.Axes) -> None:
        renderer = axis.figure.canvas.get_renderer()
        self.point = axis.figure.dpi / 72
        self.inside = axis.get_window_extent().padded(-_EDGE_PT * self.point)
        self.boxes = [text.get_window_extent(renderer) for text in axis.texts]
        self.paths: list[Outline] = []
        self.others: list[np.ndarray] = []
        for line in axis.lines:
            path = line.get_path().transformed(line.get_transform())
            self.paths.append(path)
            if line.get_marker() not in ("None", None, ""):
                self.boxes += [self._around(vertex, _POINT_PT) for vertex in path.vertices]
        for drawn in axis.collections:
            if isinstance(drawn, LineCollection):  # error bars
                self.paths += [path.transformed(drawn.get_transform()) for path in drawn.get_paths()]
            elif isinstance(drawn, PathCollection):  # scattered points
                self.boxes += [self._around(at, _POINT_PT)
                               for at in drawn.get_offset_transform().transform(drawn.get_offsets())]

    def cost(self, box: Bbox) -> int:
        """Cost of a label in a box: highest outside the panel, lowest over a line."""
        inside = self.inside
        outside = box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1
        return (8 * outside + 4 * sum(box.overlaps(other) for other in self.boxes)
                + 2 * sum(box.overlaps(self._around(other, _APART_PT)) for other in self.others)
                + sum(path.intersects_bbox(box, filled=False) for path in self.paths if len(path) > 1))

    def _around(self, centre: np.ndarray, reach_pt: float) -> Bbox:
        (x, y), reach = centre, reach_pt * self.point
        return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


_POINT_PT = 3
"""Half the side of the square around a point that stays free of text."""

_EDGE_PT = 2
"""Least distance of text from the edge of its panel."""

_BETWEEN_PT = 5
"""Least distance between two labels."""

_APART_PT = 4.5
"""Least distance between a point and the label of another point."""

_BESIDE_PT = 7
"""A label further away than this is joined to its point by a line."""

_Place = tuple[float, float, str, str]
"""Offset in points, alignment of the text."""

_PLACES: tuple[_Place, ...] = tuple(
    (x * (d if y == 0 else 0.7 * d), y * (d if x == 0 else 0.7 * d),
     {1: "left", 0: "center", -1: "right"}[x], {1: "bottom", 0: "center", -1: "top"}[y])
    for d in (5, 9, 14, 20, 27)
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)))
"""Nearest first, and at one distance the right side first."""


def _draw_leader(axis: plt.Axes, point: tuple[float, float], place: _Place) -> None:
    """A thin line from a point to its label, drawn below everything else.

    Its ends are given exactly.  matplotlib would find the edges of text and marker by bisection, where differences in
    the last bit of a logarithm change pixels.
    """
    x, y, *_ = place
    leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
    line = axis.annotate("", point, (0.85 * x, 0.85 * y), textcoords="offset points", arrowprops=leader, zorder=0.9)
    line.set_in_layout(False)


def _box(label: Annotation, place: _Place) -> Bbox:
    """Move a label to a place; return the box that it covers there, in pixels."""
    x, y, horizontal, vertical = place
    label.set_position((x, y))
    label.set(ha=horizontal, va=vertical if y else "center_baseline")
    return label.get_window_extent()


def note_source(figure: Figure, text: str) -> None:
    """Write the sources of a figure at its foot, small and grey."""
    width_in, height_in = figure.get_size_inches()
    figure.text(0.08 / width_in, 0.06 / height_in, text, color=GREY, fontsize=6.3, va="bottom", linespacing=1.3)


def note_below(figure: Figure, text: str, results: Results | None = None) -> None:
    """`note_source` in lines of the page's width, below panels that leave them room.

    Args:
        text: its paragraphs, a line each.
        results: whose marks are said, and the first of whose remarks.
    """
    lines = note_lines([*text.splitlines(), *(results.marks if results else ())], results.remarks if results else ())
    free = note_height_in(lines) / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, free, 1, 1 - free))
    note_source(figure, "\n".join(lines))


def note_lines(paragraphs: Iterable[str], remarks: Sequence[str] = ()) -> list[str]:
    """A note in lines of the page's width, with the first of what is left out at its end."""
    more = f"; and {len(remarks) - _NAMED_REMARKS} more" if len(remarks) > _NAMED_REMARKS else ""
    left_out = [f"Left out: {'; '.join(remarks[:_NAMED_REMARKS])}{more}."] if remarks else []
    return [line for text in (*paragraphs, *left_out)
            for line in textwrap.wrap(text, _NOTE_CHARACTERS, break_on_hyphens=False)]


def note_height_in(lines: Sequence[str]) -> float:
    """Height of a note at the foot of a figure, inches."""
    return 0.1 + 0.12 * len(lines)


_NOTE_CHARACTERS = 152
"""Characters of a note that fit on a line of PAGE_IN."""

_NAMED_REMARKS = 2
"""Number of omitted records that a figure names; the tables name all."""


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write <stem>.png and <stem>.pdf atomically, without time stamps; close the figure."""
    paths = figure_files(stem)
    for path, stamp in zip(paths, ("Software", "CreationDate"), strict=True):
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata={stamp: None})
    plt.close(figure)
    return paths
