"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from varient.config import ExperimentConfig
from varient.files import shown
from varient.shipped import shipped


def config_file(text: str | Path) -> Path:
    """The config of that path, or a shipped one of that name ("digits", or as it is called in the project)."""
    path = Path(text)
    named = shipped("config") / path.with_suffix(".yaml").name
    is_name = path.parent in (Path(), Path("workflow/config"))
    return named if is_name and not path.exists() and named.exists() else path


DIGITS = Path("digits")
Config = Annotated[Path, typer.Option("--config", parser=config_file, metavar="FILE",
                                      help="experiment config, YAML or JSON, or the name of a shipped one")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="where the networks are; default runs/<experiment>")]
Output = Annotated[Path, typer.Option("--output", "-o", help="file to write")]
DryRun = Annotated[str | None, typer.Option("--dry-run", help="print steps, FLOPs, memory and hours on so many devices "
                                                              "and start nothing, e.g. h100:8")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document, units in the keys")]
Tokens = Annotated[Path | None, typer.Option("--tokens", help="folder that cache-tokens filled; default: images are "
                                                              "encoded when they are visited")]

Scores = Annotated[list[Path] | None, typer.Option("--score", help="score record; repeat for several")]
Profiles = Annotated[list[Path] | None, typer.Option("--profile", help="profile record; repeat for several")]
Reconstruction = Annotated[Path | None, typer.Option("--reconstruction", help="record of `reconstruct`")]
FoundIn = Annotated[Path | None, typer.Option("--found-in", help="run folder: whatever records it holds, besides "
                                                                 "those named one by one")]


def run_folder(experiment: ExperimentConfig, run_dir: Path | None) -> Path:
    """The folder of an experiment's networks."""
    return run_dir or Path("runs") / experiment.name


def wrote(path: Path) -> None:
    """Say which file was written."""
    print(f"wrote {shown(path)}")
