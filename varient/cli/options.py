"""Options that several commands share, and what they print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from varient.config import ExperimentConfig
from varient.files import shown
from varient.shipped import shipped

if TYPE_CHECKING:
    from varient.records import FidelityRecord


def config_file(text: str | Path) -> Path:
    """The config at a path, or a shipped one by its name ("digits") or its path in the project."""
    path = Path(text)
    named = shipped("config") / path.with_suffix(".yaml").name
    is_name = path.parent in (Path(), Path("workflow/config"))
    return named if is_name and not os.path.exists(path) and os.path.exists(named) else path


DIGITS = Path("digits")
Config = Annotated[Path, typer.Option("--config", parser=config_file, metavar="FILE",
                                      help="experiment config, YAML or JSON, or the name of a shipped one")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="folder of the networks; default: runs/<experiment>")]
Output = Annotated[Path, typer.Option("--output", "-o", help="file to write")]
DryRun = Annotated[str | None, typer.Option("--dry-run", help="only print steps, FLOPs, memory and hours for these "
                                                              "GPUs, e.g. h100:8")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document, with units in the keys")]
Tokens = Annotated[Path | None, typer.Option("--tokens", help="folder made by cache-tokens; default: images are "
                                                              "encoded on the fly")]

Scores = Annotated[list[Path] | None, typer.Option("--score", help="score record; repeat for several")]
Profiles = Annotated[list[Path] | None, typer.Option("--profile", help="profile record; repeat for several")]
Benchmarks = Annotated[list[Path] | None, typer.Option(
    "--benchmark", help="profile of the paper's networks with random weights (benchmarks/records); repeat for several")]
Reconstruction = Annotated[Path | None, typer.Option("--reconstruction", help="record of `reconstruct`")]
HeldOut = Annotated[list[Path] | None, typer.Option("--held-out", help="record of `held-out`; repeat for several")]
FidelityRecords = Annotated[list[Path] | None, typer.Option("--fidelity", help="record of `fidelity`; repeat for "
                                                                               "several")]
Sweeps = Annotated[list[Path] | None, typer.Option("--sweep", help="folder of `sweep`; repeat for several")]
FoundIn = Annotated[Path | None, typer.Option("--found-in", help="run folder; all its records are read in addition "
                                                                 "to the named ones")]


def run_folder(experiment: ExperimentConfig, run_dir: Path | None) -> Path:
    """The folder of an experiment's networks."""
    return run_dir or Path("runs") / experiment.name


def wrote(path: Path) -> None:
    """Print which file was written."""
    print(f"wrote {shown(path)}")


def tell_fidelity(record: FidelityRecord) -> None:
    """Print a comparison, and its warnings to stderr."""
    for warning in record.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for found in record.systems:
        print(f"{found.system} and {record.reference}, {record.num_images} pairs: {found.summary()}")
        if found.tokens_by_scale:
            print(f"equal tokens by scale: {' '.join(f'{share:.3f}' for share in found.tokens_by_scale)}")
