"""Pictures of the same seeds: depths (Fig. 4), depths and bridges (Fig. 6), stages of training (Fig. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.ablations import Arm, arms_of
from varient.archive import open_shard
from varient.config import ExperimentConfig
from varient.cost.kv_accounting import kv_peak_bytes
from varient.cost.quantities import PRECISIONS
from varient.cost.sizes import MIB
from varient.plan import DepthPlan
from varient.report.figures.framework import scale_range, zones
from varient.report.needs import Needs, arm_systems, needs, shown_depths
from varient.report.style import (
    GREY,
    LIGHT_GREY,
    PAGE_IN,
    colour_in,
    missing,
    new_figure,
    note_height_in,
    note_lines,
    note_source,
)
from varient.results import Results
from varient.spread import with_spread
from varient.systems import var
from varient.systems.ids import VarId, base_system
from varient.training.schedule import ProgressiveSchedule

_MARGIN_IN, _HEAD_IN, _BETWEEN_IN = 0.08, 0.42, 0.12
_NAME_IN = 1.22
_NUMBER_IN = {"FID": 0.76, "KV cache": 0.76, "of full": 0.46}
"""Widths of the columns of numbers beside the images, by heading."""
_PICTURE = 0.94
"""Side of a picture in its cell; the rest is the white line between two."""
_MOST_CLASSES = 10
_SEVERAL = 6
"""Images of each class in Fig. 7."""
_EVOLUTION_CLASSES = {"digits": (2, 7), "fashion-mnist": (1, 9), "imagenet": (281, 1)}
"""Two digits; trousers and ankle boot; tabby cat and goldfish for the paper's cat and fish."""


@dataclass(frozen=True)
class _Columns:
    """Which images stand in a row and where, in cells from the left.

    Attributes:
        indices: of the images in their archive, which are seeds too.
        lefts: where each image begins.
        headings: centre and text.
        lead: what the headings are, said once at the left.
    """

    indices: tuple[int, ...]
    lefts: tuple[float, ...]
    headings: tuple[tuple[float, str], ...]
    lead: str = ""

    @property
    def width(self) -> float:
        """Of all, in cells."""
        return self.lefts[-1] + _PICTURE


@dataclass(frozen=True)
class _Row:
    """One system: its name, a line below it, its numbers and its images, None where there are none."""

    system: str
    name: str
    below: str
    colour: str
    numbers: dict[str, str]
    images: np.ndarray | None


@dataclass(frozen=True)
class _Panel:
    """Rows under one title; ``lacks`` is what is missing where there are no rows."""

    title: str
    columns: _Columns
    rows: Sequence[_Row]
    lacks: str = ""

    @property
    def cells_high(self) -> int:
        """Height in cells; a missing panel keeps room for its words."""
        return len(self.rows) or 2


def draw_depths(config: ExperimentConfig, results: Results, run_dir: Path) -> Figure:
    """Fig. 4: an image of each class under each depth, with FID and the memory of the KV cache."""
    artist = _Artist(config, results, run_dir, _one_of_each_class(config))
    title = "The same seeds under each depth, with a supernet for each d"
    return _sheet(config, results, [_Panel(title, artist.columns, artist.depths())])


def needs_of_depths(config: ExperimentConfig) -> Needs:
    """VAR and its subnets."""
    shown = [base_system(config), *(VarId("variant", depth) for depth in shown_depths(config))]
    return needs(score=shown, samples=shown)


def draw_depths_and_bridges(config: ExperimentConfig, results: Results, run_dir: Path) -> Figure:
    """Fig. 6: (a) depth at the config's N; (b) bridge size N at the largest subnet."""
    artist = _Artist(config, results, run_dir, _one_of_each_class(config))
    depth = shown_depths(config)[0]
    bridges = sorted((arm for arm in arms_of(config, "grid") if arm.depth == depth),
                     key=lambda arm: len(zones(_plan(config, arm.system))["bridge"]), reverse=True)
    trained = config.supernet.bridge
    panels = [_Panel(f"(a) Subnet depth d at N = {trained}, with a supernet for each d", artist.columns,
                     artist.depths()),
              _Panel(f"(b) Bridge size N at d = {depth}, in one supernet trained with N = {trained}", artist.columns,
                     [artist.bridge(arm) for arm in bridges], lacks="the ablation 'grid'")]
    return _sheet(config, results, panels)


def needs_of_depths_and_bridges(config: ExperimentConfig) -> Needs:
    """VAR, its subnets, and the deepest of them with each N."""
    bridges = [arm.id for arm in arms_of(config, "grid") if arm.depth == shown_depths(config)[0]]
    shown = [*needs_of_depths(config).samples, *bridges]
    return needs(score=shown, samples=shown)


def draw_evolution(config: ExperimentConfig, results: Results, run_dir: Path) -> Figure:
    """Fig. 7: a subnet before training and at the end of each phase, below the full network as reference."""
    artist = _Artist(config, results, run_dir, _several_of_each(config, _EVOLUTION_CLASSES[config.data.source]))
    found = arms_of(config, "evolution")
    stages = [arm for arm in found if arm.depth == found[0].depth]
    subnet = f"The subnet d = {stages[0].depth}" if stages else "A subnet"
    rows = artist.evolution(stages) if stages else ()
    return _sheet(config, results, [_Panel(f"{subnet} before training and at the end of each phase", artist.columns,
                                           rows, lacks="the ablation 'evolution'")])


def needs_of_evolution(config: ExperimentConfig) -> Needs:
    """VAR, and subnets before their training and at the end of each phase."""
    depths = config.ablations.evolution if config.ablations else ()
    shown = [base_system(config), *(VarId("free", depth) for depth in depths), *arm_systems(config, "evolution")]
    return needs(score=shown, samples=shown)


@dataclass(frozen=True)
class _Artist:
    """Builds rows of images of systems, all with the same columns."""

    config: ExperimentConfig
    results: Results
    run_dir: Path
    columns: _Columns

    def depths(self) -> list[_Row]:
        """The full network, then the subnets from deep to shallow."""
        subnets = [(str(VarId("variant", depth)), f"VARiant-d{depth}") for depth in shown_depths(self.config)]
        return [self._costed(system, name) for system, name in (self._full, *subnets)]

    def bridge(self, arm: Arm) -> _Row:
        """An arm of the grid, called by its N."""
        return self._costed(arm.system, arm.arm)

    def evolution(self, stages: Sequence[Arm]) -> list[_Row]:
        """Reference, the subnet before training, and the stages; FID below each name."""
        depth = stages[0].depth
        recipe = self.config.recipe(None)
        schedule = ProgressiveSchedule(self.config.supernet.phases_of(depth, recipe))
        epochs = (*self.config.supernet.kept_epochs(depth, recipe), schedule.epochs)
        named = [self._full, (str(VarId("free", depth)), "before training"),
                 *((arm.system, f"phase {schedule.phase(epoch)}, epoch {epoch}")
                   for arm, epoch in zip(stages, epochs, strict=True))]
        return [self._row(system, name, f"FID {self._fid(system)}") for system, name in named]

    @property
    def _full(self) -> tuple[str, str]:
        """Id and name of the full network."""
        depth = self.config.transformer.depth
        return str(VarId("var", depth)), f"VAR-d{depth}"

    def _costed(self, system: str, name: str) -> _Row:
        """A row with its layers below the name, and FID and memory beside the pictures."""
        plan = _plan(self.config, system)
        kv_bytes, full_bytes = (_kv_bytes(self.config, each) for each in (plan, self.config.plan()))
        return self._row(system, name, _layers(plan), {
            "FID": self._fid(system), "KV cache": f"{kv_bytes / MIB:,.1f} MiB",
            "of full": f"{kv_bytes / full_bytes:.0%}"})

    def _row(self, system: str, name: str, below: str, numbers: dict[str, str] | None = None) -> _Row:
        return _Row(system, name, below, colour_in(self.config, system), numbers or {},
                    pictures(self.run_dir, system, self.columns.indices))

    def _fid(self, system: str) -> str:
        record = self.results.scores.get(system)
        if record is None or record.fid is None:
            return "–"
        return with_spread(record.fid, record.fid_sd, 2 if record.fid < 100 else 0)  # the column has room for so many


def _plan(config: ExperimentConfig, system: str) -> DepthPlan:
    """The layers that a system of VAR's family runs at each scale."""
    found = var.resolve(system, config, None)
    assert found is not None  # the figures show VAR and its subnets alone
    return found.plan


def _layers(plan: DepthPlan) -> str:
    """How many layers run, and where they are fewer."""
    if plan.is_full:
        return f"all {plan.depth} layers"
    flexible = zones(plan)["flexible"]
    return f"{len(plan.layers(flexible[0]))} layers at {scale_range(flexible)}"


def _kv_bytes(config: ExperimentConfig, plan: DepthPlan) -> int:
    """Peak of the lean cache for a batch of the profiler, which guidance doubles."""
    channel_bytes = PRECISIONS[config.profiling.precision].compute_bytes
    return kv_peak_bytes(plan, config.pyramid, 2 * config.profiling.batch_size, config.transformer.embed_dim, "lean",
                         channel_bytes, channel_bytes)


def _sources(config: ExperimentConfig, results: Results, panels: Sequence[_Panel]) -> list[str]:
    """Where images and numbers of the panels come from: a paragraph for what was made, one for arithmetic."""
    rows = [row for panel in panels for row in panel.rows]
    made, counted = [], []
    if any(row.images is not None for row in rows):
        made.append(f"Images: generated ({config.name}), the same seed down each column.")
    if counts := sorted({results.scores[row.system].num_images for row in rows if row.system in results.scores}):
        made.append(f"FID: measured ({config.name}) of {' or '.join(f'{count:,}' for count in counts)} images, ± half "
                    "the width of a 95 % interval over redraws of them.")
    if any("KV cache" in row.numbers for row in rows):
        settings = config.profiling
        counted.append(f"KV cache: arithmetic from the plan ({config.name}; peak, lean cache, batch "
                       f"{settings.batch_size}, {settings.precision}).")
    return [" ".join(sentences) for sentences in (made, counted) if sentences]


def _one_of_each_class(config: ExperimentConfig) -> _Columns:
    """The first image of each class, or of some evenly apart where there are many."""
    classes = config.data.num_classes
    count = min(classes, _MOST_CLASSES)
    labels = [at * classes // count for at in range(count)]
    return _Columns(tuple(_index(config, label, 0) for label in labels), tuple(map(float, range(count))),
                    tuple((at + _PICTURE / 2, str(label)) for at, label in enumerate(labels)), lead="class")


def _several_of_each(config: ExperimentConfig, labels: Sequence[int]) -> _Columns:
    """The first images of some classes, half a cell between one class and the next."""
    labels = [label % config.data.num_classes for label in labels]  # a part of ImageNet has fewer
    starts = [group * (_SEVERAL + 0.5) for group in range(len(labels))]
    return _Columns(tuple(_index(config, label, turn) for label in labels for turn in range(_SEVERAL)),
                    tuple(start + turn for start in starts for turn in range(_SEVERAL)),
                    tuple((start + (_SEVERAL - 1 + _PICTURE) / 2, f"class {label}")
                          for start, label in zip(starts, labels, strict=True)))


def _index(config: ExperimentConfig, label: int, turn: int) -> int:
    """Index of an image of a class: classes take turns (`varient.generation.label_of`)."""
    return turn * config.data.num_classes + label


def pictures(run_dir: Path, system: str, indices: Sequence[int]) -> np.ndarray | None:
    """Images of a system by index; None unless all are there.  Of the shards these images alone are read."""
    found: dict[int, np.ndarray] = {}
    for path in sorted((run_dir / "samples" / system).glob("shard-*.npz"), key=lambda path: int(path.stem[6:])):
        shard = open_shard(path)
        found |= {int(shard.indices[at]): np.array(shard.images[at:at + 1])[0]
                  for at in np.flatnonzero(np.isin(shard.indices, indices)).tolist()}
        if found.keys() >= set(indices):
            return np.stack([found[index] for index in indices])
    return None


def _sheet(config: ExperimentConfig, results: Results, panels: Sequence[_Panel]) -> Figure:
    """A page-wide figure of panels one below the other, all cells of one size."""
    note = note_lines([*_sources(config, results, panels), *results.marks], results.remarks)
    numbers_in = max(sum(_NUMBER_IN[heading] for heading in _headings(panel)) for panel in panels)
    cell_in = (PAGE_IN - 2 * _MARGIN_IN - _NAME_IN - numbers_in) / max(panel.columns.width for panel in panels)
    heights_in = [_HEAD_IN + cell_in * panel.cells_high for panel in panels]
    height_in = sum(heights_in) + _BETWEEN_IN * (len(panels) - 1) + note_height_in(note)
    figure = new_figure(PAGE_IN, height_in)
    figure.set_layout_engine("none")  # axes are placed in inches
    bottom_in = height_in
    for panel, panel_in in zip(panels, heights_in, strict=True):
        bottom_in -= panel_in
        width_in = cell_in * panel.columns.width
        axis = figure.add_axes(((_MARGIN_IN + _NAME_IN) / PAGE_IN, bottom_in / height_in, width_in / PAGE_IN,
                                cell_in * panel.cells_high / height_in))
        _draw_panel(axis, panel, 1 / cell_in)
        bottom_in -= _BETWEEN_IN
    note_source(figure, "\n".join(note))
    return figure


def _headings(panel: _Panel) -> list[str]:
    return list(panel.rows[0].numbers) if panel.rows else []


def _draw_panel(axis: Axes, panel: _Panel, inch: float) -> None:
    """Fill an axis whose unit is a cell; ``inch`` cells are an inch."""
    axis.set_label(panel.title)
    if not panel.rows:
        missing(axis, panel.lacks)
    axis.set_axis_off()
    axis.set(xlim=(0, panel.columns.width), ylim=(panel.cells_high, 0), autoscale_on=False)
    axis.text(-_NAME_IN * inch, -0.3 * inch, panel.title, weight="bold", size=8.5, va="center")
    if not panel.rows:
        return
    heading: dict[str, Any] = {"va": "center", "color": GREY, "size": 7}
    axis.text(-0.08 * inch, -0.09 * inch, panel.columns.lead, ha="right", **heading)
    for centre, text in panel.columns.headings:
        axis.text(centre, -0.09 * inch, text, ha="center", **heading)
    for text, right in zip(_headings(panel), _right_edges(panel, inch), strict=True):
        axis.text(right, -0.09 * inch, text, ha="right", **heading)
    for top, row in enumerate(panel.rows):
        _draw_row(axis, panel, row, top, inch)


def _right_edges(panel: _Panel, inch: float) -> list[float]:
    """Where the columns of numbers end."""
    widths = [_NUMBER_IN[heading] * inch for heading in _headings(panel)]
    return [panel.columns.width + sum(widths[:at + 1]) for at in range(len(widths))]


def _draw_row(axis: Axes, panel: _Panel, row: _Row, top: int, inch: float) -> None:
    middle, columns = top + _PICTURE / 2, panel.columns
    axis.text(-_NAME_IN * inch, middle - 0.075 * inch, row.name, color=row.colour, weight="bold", va="center", size=7.5)
    axis.text(-_NAME_IN * inch, middle + 0.075 * inch, row.below, color=GREY, va="center", size=6.8)
    for text, right in zip(row.numbers.values(), _right_edges(panel, inch), strict=True):
        axis.text(right, middle, text, ha="right", va="center", size=7.2)
    if row.images is None:
        axis.axhspan(top, top + _PICTURE, facecolor=LIGHT_GREY, alpha=0.35)
        axis.text(columns.width / 2, middle, f"no samples of {row.system} here", ha="center", va="center", color=GREY,
                  size=7)
        return
    for left, image in zip(columns.lefts, row.images, strict=True):
        # Sharp squares where it is enlarged, an average over pixels where it is reduced.
        axis.imshow(image.transpose(1, 2, 0), interpolation="antialiased", aspect="auto",
                    extent=(left, left + _PICTURE, top + _PICTURE, top))
