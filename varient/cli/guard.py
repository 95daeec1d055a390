"""What every command is registered by: foreseeable errors are one line, and results replace nothing that is read."""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import typer

from varient.cli.app import MAKE
from varient.cli.options import run_folder
from varient.devices import VARIABLE, settle_device
from varient.experiment import load_experiment as read_experiment
from varient.experiment import named_files
from varient.files import check_outputs
from varient.settings import Wanted, read_settings
from varient.yaml_file import shortened

Paths = Callable[..., Iterable[Path | None]]
"""What a command reads or writes, from its arguments by name."""

_RESULTS = ("output", "summary")
_READ_IN = {"update": "*.safetensors", "found_in": "records/*.json"}
"""What is read of folders that results lie in too; of other folders it is everything."""

load_experiment = functools.cache(read_experiment)
"""Read once in a command: a pipe can give a config too."""


_LEAST = {"count": 1, "seed": 0, "shard": 0, "workers": 0, "runners_up": 0}
"""Of the numbers among arguments; the others are told by the library, which knows what they are of."""
_MOST = {"batch": 2 ** 20, "count": 10_000, "depth": 1000, "workers": 1024}
"""Of numbers that things are counted out by; the others are held to 31 bits."""


def _check_numbers(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        least, most = _LEAST.get(name, -2 ** 31), _MOST.get(name, 2 ** 31 - 1)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and not least <= number <= most:
                bound = f"below {least}" if number < least else f"above {most}"
                raise ValueError(f"{name.replace('_', '-')} {shortened(number)} is {bound}")


def _run_weights(**arguments: Any) -> list[Path]:
    folder, config = arguments.get("run_dir"), arguments.get("config")
    if "run_dir" in arguments and config and config.exists():
        folder = run_folder(load_experiment(config), folder)
    return list(folder.glob("*.safetensors")) if folder else []


def verb(group: typer.Typer, name: str | None = None, *, panel: str = MAKE, hidden: bool = False,
         device: Wanted | None = None,
         writes: Paths | None = None, fills: Paths | None = None,
         reads: Paths = _run_weights) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command whose foreseeable errors end in one line on stderr and exit code 1, and whose results take the
    place of nothing that it reads (`varient.files.check_outputs`): every path among its arguments that is no result,
    and all that its config names.

    Args:
        panel: of `--help`.
        device: what it computes on where neither its option `--device` nor VARIENT_DEVICE says; None: on nothing.
        writes: files; default its arguments `output` and `summary`.
        fills: folders; default none.
        reads: besides its arguments; default the weights in its run folder.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(**kwargs: Any) -> None:
            load_experiment.cache_clear()
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="replace")  # a terminal that has no ± is no reason to fail
            try:
                if kwargs.get("device") and device:
                    os.environ[VARIABLE] = kwargs["device"]
                read_settings()
                _check_numbers(kwargs)
                if not kwargs.get("dry_run"):
                    files = _given(writes(**kwargs) if writes else map(kwargs.get, _RESULTS))
                    folders = _given(fills(**kwargs) if fills else ())
                    if files or folders:
                        check_outputs(files, _inputs(kwargs, reads), folders)
                    if device:
                        settle_device(device)
                function(**kwargs)
            except (ValueError, OSError) as error:
                sys.exit(f"varient: {error}")
            except MemoryError as error:
                sys.exit(_out_of_memory(error))
            except RuntimeError as error:
                from varient.profiling.memory import is_out_of_memory

                if is_out_of_memory(error):
                    sys.exit(_out_of_memory(error))
                if type(error).__name__ != "DivergedError":
                    raise
                sys.exit(f"varient: {error}")

        return group.command(name, hidden=hidden, rich_help_panel=panel)(guarded)

    return decorate


def _out_of_memory(error: BaseException) -> str:
    told = " ".join(str(error).split())[:200]
    return f"varient: memory ran out{f' ({told})' if told else ''}; a smaller batch needs less"


def _given(paths: Iterable[Path | None]) -> list[Path]:
    return [path for path in paths if path is not None]


def _inputs(arguments: dict[str, Any], reads: Paths) -> list[Path]:
    """All files and folders that a command with these arguments reads."""
    found = _given(reads(**arguments))
    for name in arguments.keys() - {*_RESULTS, "run_dir"}:
        value = arguments[name]
        paths = [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, Path)]
        pattern = _READ_IN.get(name)
        found += [file for folder in paths for file in folder.glob(pattern)] if pattern else paths
    config = arguments.get("config")
    return [*found, *named_files(load_experiment(config))] if config and config.exists() else found
