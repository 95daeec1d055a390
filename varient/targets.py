"""Where the results of an experiment lie, and the commands that make them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

DEFAULT_EXPERIMENT = "digits"
"""Its results lie in results/ and figures/ themselves, those of others in a folder of their own there."""
PAPER_EXPERIMENT = "imagenet256"
"""The paper's own."""

Folder = Literal["results", "figures"]


def folder_of(folder: Folder, experiment: str) -> str:
    """Where an experiment's results or figures lie."""
    return folder if experiment == DEFAULT_EXPERIMENT else f"{folder}/{experiment}"


def make_command(folder: Folder, name: str, experiment: str) -> str:
    """Makes a file of an experiment's results or figures, and whatever it needs."""
    target = f"snakemake --cores all {folder_of(folder, experiment)}/{name}"
    return target if experiment == DEFAULT_EXPERIMENT else f"{target} --configfile workflow/config/{experiment}.yaml"


def table_files(stem: Path) -> list[Path]:
    """What a table is written to; ``stem`` may have a suffix, which these take the place of."""
    return [stem.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]


def figure_files(stem: Path) -> list[Path]:
    """What a figure is written to."""
    return [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]


def claims_files(stem: Path) -> list[Path]:
    """What the verdicts are written to."""
    return [stem.with_name(stem.name + suffix) for suffix in (".csv", ".md")]
