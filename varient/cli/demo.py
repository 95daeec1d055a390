"""The command that shows two plans of one network side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from varient.cli.app import ASK, app
from varient.cli.guard import command, load_experiment
from varient.cli.options import wrote
from varient.shipped import ACCEPTED_SUPERNET, shipped

PAGE = "index.html"
"""The file that web servers show for a folder."""


@command(app, panel=ASK, device="auto", writes=lambda output, **_: [output / PAGE])
def demo(output: Annotated[Path, typer.Option("--static", metavar="DIR", help=f"folder for the page, {PAGE}")],
         device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VARIENT_DEVICE")]
         = None) -> None:
    """Write a page on which d and N move two plans of the shipped baseline: pictures, KV cache, cost; about a minute.

    It needs no server: open it from the disk, or put it on any web space.
    """
    from varient.demo.engine import Engine
    from varient.demo.page import write_page

    baseline = shipped("baseline")
    experiment = load_experiment(baseline / "config.json")
    engine = Engine.load(experiment, baseline / "tokenizer.safetensors", baseline / f"{ACCEPTED_SUPERNET}.safetensors")
    write_page(engine, output / PAGE, [*experiment.supernet.depths, experiment.transformer.depth])
    wrote(output / PAGE)
