"""The paper's figures and two of ours, drawn from records, training curves and sample archives.

Each module draws some of them; a drawing function takes the config, the records and the run folder and returns a
figure.  What is not there leaves a panel that says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from varient.config import ExperimentConfig
from varient.report.inputs import FIGURES
from varient.report.results import Results


def render(name: str, config: ExperimentConfig, results: Results, run_dir: Path, stem: Path) -> Sequence[Path]:
    """Draw a figure and write <stem>.png and <stem>.pdf; return the paths.

    Raises:
        ValueError: no such figure.
    """
    from varient.report.style import save, styled

    if name not in FIGURES:
        raise ValueError(f"figure {name!r} is not one of {', '.join(FIGURES)}")
    module, function = FIGURES[name]
    draw = getattr(import_module(module), function)
    with styled():
        return save(draw(config, results, run_dir), stem)
