"""Paths of the results of an experiment, and the commands that produce them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

DEFAULT_EXPERIMENT = "digits"
"""Its results are directly in results/ and figures/; those of other experiments are in subfolders."""
PAPER_EXPERIMENT = "imagenet256"
"""The paper's own experiment."""

Folder = Literal["results", "figures"]


def folder_of(folder: Folder, experiment: str) -> str:
    """Folder of an experiment's results or figures."""
    return folder if experiment == DEFAULT_EXPERIMENT else f"{folder}/{experiment}"


def make_command(folder: Folder, name: str, experiment: str) -> str:
    """Command line that produces a file of an experiment's results or figures and everything it depends on."""
    target = f"snakemake --cores all {folder_of(folder, experiment)}/{name}"
    return target if experiment == DEFAULT_EXPERIMENT else f"{target} --configfile workflow/config/{experiment}.yaml"


def table_files(stem: Path) -> list[Path]:
    """The files of a table; a suffix of ``stem`` is replaced."""
    return [stem.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]


def figure_files(stem: Path) -> list[Path]:
    """The files of a figure."""
    return [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]


def sweep_folder(run_dir: Path, system: str) -> Path:
    """The folder of a system's sweep over batch sizes."""
    return run_dir / "sweeps" / system


def sweep_records(folder: Path, most: int) -> dict[Path, int]:
    """The records of a sweep, from small to large: path -> batch size 1, 2, 4, ... up to ``most``."""
    return {folder / f"profile-b{2 ** power}.json": 2 ** power for power in range(most.bit_length())}


def ablation_files(output: Path) -> list[Path]:
    """The files of the ablations: all arms as CSV, and beside them their means."""
    return [output, output.with_suffix(".md")]


def claims_files(stem: Path) -> list[Path]:
    """The files of the verdicts on the claims."""
    return [stem.with_name(stem.name + suffix) for suffix in (".csv", ".md")]
