"""Where the results of an experiment lie, and the commands that make them."""

from __future__ import annotations

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
