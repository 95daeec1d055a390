"""The paper's figures and two of ours, drawn from records, training curves and sample archives.

Each module draws some of them; a drawing function takes the config, the records and the run folder and returns a
figure.  What is not there leaves a panel that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from varient.config import ExperimentConfig
from varient.report.inputs import FIGURES, figure_inputs
from varient.report.results import Results, comparable


def render(name: str, config: ExperimentConfig, results: Results, run_dir: Path, stem: Path) -> Sequence[Path]:
    """Draw a figure and write <stem>.png and <stem>.pdf; return the paths.

    Records of another experiment or not comparable with the rest are not drawn; the figure's note names them.

    Raises:
        ValueError: no such figure.
    """
    from varient.report.style import save, styled

    if name not in FIGURES:
        raise ValueError(f"figure {name!r} is not one of {', '.join(FIGURES)}")
    module, function = FIGURES[name]
    draw = getattr(import_module(module), function)
    with styled():
        return save(draw(config, _drawn(name, config, results), run_dir), stem)


def _drawn(name: str, config: ExperimentConfig, results: Results) -> Results:
    """The records that a figure is drawn from, without those that may not stand beside the rest.

    What it does not show is dropped first: a figure is the same given its own records or all of a run folder.
    """
    wanted = figure_inputs(name, config)
    return comparable(config.name, Results(
        {system: record for system, record in results.scores.items() if system in wanted["score"]},
        {system: record for system, record in results.profiles.items() if system in wanted["profile"]},
        tuple(record for record in results.all_profiles if record.system in wanted["profile"]),
        remarks=results.remarks if wanted["score"] else ()))
