"""The paper's figures and six of ours, drawn from records, training curves and sample archives.

Each module draws some of them.  A drawing function takes the config, the records and the run folder and returns a
figure; a function beside it returns the figure's inputs.  A panel whose inputs are missing names them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from varient.config import ExperimentConfig
from varient.paper_size import marks
from varient.report.needs import Needs
from varient.results import Results, comparable


class Source(NamedTuple):
    """Where a figure is drawn: a module, its function (config, results, run_dir) -> Figure, and (config) -> Needs."""

    module: str
    draw: str
    needs: str


def _source(module: str, subject: str) -> Source:
    return Source(f"{__name__}.{module}", f"draw_{subject}", f"needs_of_{subject}")


FIGURES = {
    "fig1": _source("framework", "framework"),
    "fig2": _source("ratios", "ratios"),
    "fig3": _source("schedule", "schedule"),
    "fig4": _source("pictures", "depths"),
    "fig5": _source("configurations", "configurations"),
    "fig6": _source("pictures", "depths_and_bridges"),
    "fig7": _source("pictures", "evolution"),
    "quality-cost": _source("frontier", "frontier"),
    "kv-live": _source("kv_live", "kv_live"),
    "latency-by-scale": _source("scales", "scales"),
    "throughput": _source("throughput", "throughput"),
    "rivals": _source("rivals", "rivals"),
    "fidelity": _source("pairs", "pairs"),
}


def figure_needs(name: str, config: ExperimentConfig) -> Needs:
    """The inputs of a figure.

    Raises:
        ValueError: no such figure.
    """
    if name not in FIGURES:
        raise ValueError(f"figure {name!r} is not one of {', '.join(FIGURES)}")
    return getattr(import_module(FIGURES[name].module), FIGURES[name].needs)(config)


def render(name: str, config: ExperimentConfig, results: Results, run_dir: Path, stem: Path) -> Sequence[Path]:
    """Draw a figure and write <stem>.png and <stem>.pdf; return the paths.

    Records of another experiment or not comparable with the rest are not drawn; the figure's note names them.

    Raises:
        ValueError: no such figure.
    """
    from varient.report.style import save, styled

    wanted = figure_needs(name, config)
    draw = getattr(import_module(FIGURES[name].module), FIGURES[name].draw)
    with styled():
        return save(draw(config, _drawn(wanted, config, results), run_dir), stem)


def _drawn(wanted: Needs, config: ExperimentConfig, results: Results) -> Results:
    """The records that a figure is drawn from, without those that are not comparable with the rest.

    Records that it does not show are dropped first, so that further records in a run folder do not change the figure.
    """
    shown = comparable(config.name, Results(
        {system: record for system, record in results.scores.items() if system in wanted.score},
        {system: record for system, record in results.profiles.items() if system in wanted.profile},
        tuple(record for record in results.all_profiles if record.system in wanted.profile),
        fidelity=tuple(record for record in results.fidelity
                       if {found.system for found in record.systems} & set(wanted.fidelity)),
        sweeps=results.sweeps,
        remarks=results.remarks if wanted.score else ()))
    said = "; ".join(marks(config, shown))
    return replace(shown, marks=(f"{said} (the tables' notes say why).",) if said else ())
