"""The command that shows two plans of one network side by side."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from varient.cli.app import ASK, app
from varient.cli.guard import command, load_experiment
from varient.cli.options import RunDir, config_file, run_folder, wrote
from varient.shipped import ACCEPTED_SUPERNET, shipped
from varient.systems.names import SupernetId

PAGE = "index.html"
"""The file that web servers show for a folder."""


@command(app, panel=ASK, device="auto", writes=lambda output, **_: [output and output / PAGE])
def demo(output: Annotated[Path | None, typer.Option("--static", metavar="DIR", help=f"instead: write {PAGE} there, "
                                                                                     "about a minute")] = None,
         config: Annotated[Path | None, typer.Option("--config", parser=config_file, metavar="FILE",
                                                     help="config of the network; default: the shipped baseline, a "
                                                          "supernet of d = 4 on digits")] = None,
         run_dir: RunDir = None,
         checkpoint: Annotated[Path | None, typer.Option(help="weights; default: the supernet of the config's first "
                                                              "depth")] = None,
         port: Annotated[int | None, typer.Option(help="of the page on this machine; default: a free one")] = None,
         device: Annotated[str | None, typer.Option(help="auto, cpu or cuda; default: VARIENT_DEVICE")]
         = None) -> None:
    """Show two plans of one network side by side: pictures, KV cache, cost; a live page on this machine alone.

    With --static DIR it is one page that needs no server, with the pictures of every d and N.
    """
    if output and (config or run_dir or checkpoint or port):
        raise ValueError("--static is of the shipped networks and needs no server; leave out --config, --run-dir, "
                         "--checkpoint and --port")
    if not output and find_spec("gradio") is None:
        raise ValueError("the live page needs gradio: pip install 'varient[demo]'; --static needs nothing more")
    from varient.demo.engine import Engine

    baseline = shipped("baseline")
    experiment = load_experiment(config or baseline / "config.json")
    folder = run_folder(experiment, run_dir) if config else run_dir or baseline
    own = str(SupernetId(experiment.supernet.depths[0])) if config else ACCEPTED_SUPERNET
    engine = Engine.load(experiment, folder / "tokenizer.safetensors", checkpoint or folder / f"{own}.safetensors")
    if output:
        from varient.demo.page import write_page

        write_page(engine, output / PAGE, [*experiment.supernet.depths, experiment.transformer.depth])
        wrote(output / PAGE)
        return
    from varient.demo.app import launch
    from varient.demo.live import Live

    launch(Live(engine), port)
