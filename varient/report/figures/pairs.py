"""Pairs of pictures: the full network's beside a subnet's of the same seed, from the most to the least alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.config import ExperimentConfig
from varient.records import Fidelity
from varient.report.fidelity_columns import INFINITE
from varient.report.figures.pictures import pictures
from varient.report.needs import Needs, needs, shown_depths
from varient.report.style import (
    GREY,
    PAGE_IN,
    colour_in,
    missing,
    new_figure,
    note_height_in,
    note_lines,
    note_source,
)
from varient.results import Results
from varient.systems.ids import VarId, base_system

_MARGIN_IN, _NAME_IN, _HEAD_IN, _BELOW_IN = 0.08, 1.0, 0.4, 0.2
_WHICH = ("smallest", "median", "largest")
_BETWEEN = 0.3
"""Cells between two pairs."""
_PICTURE = 0.94


def draw_pairs(config: ExperimentConfig, results: Results, run_dir: Path) -> Figure:
    """For each subnet the pair with the smallest, the median and the largest squared error."""
    subnets = _subnets(config)
    note = _note(config, results)
    width = 2 * len(_WHICH) + _BETWEEN * (len(_WHICH) - 1)
    cell_in = (PAGE_IN - 2 * _MARGIN_IN - _NAME_IN) / width
    rows_in = (cell_in + _BELOW_IN) * len(subnets)
    height_in = _HEAD_IN + rows_in + note_height_in(note)
    figure = new_figure(PAGE_IN, height_in)
    figure.set_layout_engine("none")  # axes are placed in inches
    axis = figure.add_axes(((_MARGIN_IN + _NAME_IN) / PAGE_IN, note_height_in(note) / height_in,
                            cell_in * width / PAGE_IN, rows_in / height_in))
    axis.set_axis_off()
    row = 1 + _BELOW_IN / cell_in
    axis.set(xlim=(0, width), ylim=(row * len(subnets), 0), autoscale_on=False)
    for group, which in enumerate(_WHICH):
        axis.text(group * (2 + _BETWEEN) + 1, -0.12 / cell_in, f"{which} error: full | subnet", ha="center", color=GREY,
                  size=7)
    for at, system in enumerate(subnets):
        _draw_row(axis, config, results, run_dir, system, at * row, cell_in)
    note_source(figure, "\n".join(note))
    return figure


def needs_of_pairs(config: ExperimentConfig) -> Needs:
    """The full network and its subnets, compared, with their pictures."""
    subnets = _subnets(config)
    return needs(samples=[base_system(config), *subnets], fidelity=subnets)


def _subnets(config: ExperimentConfig) -> list[str]:
    return [str(VarId("variant", depth)) for depth in shown_depths(config)]


def _draw_row(axis: Axes, config: ExperimentConfig, results: Results, run_dir: Path, system: str, top: float,
              cell_in: float) -> None:
    axis.text(-_NAME_IN / cell_in, top + _PICTURE / 2, system, color=colour_in(config, system), weight="bold",
              va="center", size=7.5)
    fidelity = results.fidelities.get(system)
    full, subnet = (pictures(run_dir, name, fidelity.examples) if fidelity else None
                    for name in (base_system(config), system))
    if fidelity is None or full is None or subnet is None:
        lacks = "samples" if fidelity else "fidelity"
        missing(axis.inset_axes((0, top, axis.get_xlim()[1], _PICTURE), transform=axis.transData),
                f"{lacks} of {system}")
        return
    for group, pair in enumerate(zip(full, subnet, strict=True)):
        left = group * (2 + _BETWEEN)
        for side, image in enumerate(pair):
            _show(axis, image, left + side, top)
        axis.text(left + 1, top + _PICTURE + 0.09 / cell_in, _told(fidelity, group), ha="center", va="center",
                  size=6.8)


def _told(fidelity: Fidelity, group: int) -> str:
    psnr = fidelity.examples_psnr_db[group]
    return f"image {fidelity.examples[group]}, PSNR {INFINITE if psnr is None else f'{psnr:.1f}'} dB"


def _show(axis: Axes, image: np.ndarray, left: float, top: float) -> None:
    axis.imshow(image.transpose(1, 2, 0), interpolation="antialiased", aspect="auto",
                extent=(left, left + _PICTURE, top + _PICTURE, top))


def _note(config: ExperimentConfig, results: Results) -> list[str]:
    counts = {record.num_images for record in results.fidelity}
    of = f" of {max(counts):,}" if counts else ""
    return note_lines([f"Pairs{of}: measured ({config.name}), the same seed and class for {base_system(config)} and "
                       "the subnet, by mean squared error of the pixels.", *results.marks], results.remarks)
