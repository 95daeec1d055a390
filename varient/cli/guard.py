"""Registration of commands: expected errors are reported in one line, and outputs must not overwrite inputs."""

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
"""Function of a command's keyword arguments that returns paths it reads or writes."""

_RESULTS = ("output", "summary")
_TOLD_BY_READS = ("run_dir", "baseline")
"""Arguments that name a folder of which the function `reads` returns the files that are read."""
_READ_IN = {"update": "*.safetensors", "found_in": "records/*.json"}
"""Arguments that name a folder which may also receive results: pattern of the files read there (else all)."""

load_experiment = functools.cache(read_experiment)
"""Cached for the duration of a command, because a config from a pipe can be read only once."""


_LEAST = {"count": 1, "most": 1, "seed": 0, "base_seed": 0, "shard": 0, "workers": 0, "runners_up": 0, "port": 1}
"""Lower bounds of numeric arguments; bounds that depend on more than the argument are checked by the library."""
_MOST = {"batch": 2 ** 20, "most": 2 ** 20, "count": 10_000, "depth": 1000, "workers": 1024, "port": 65535}
"""Upper bounds of numeric arguments that become lengths of loops or lists; for the others, 31 bits."""


_MOST_LINES, _MOST_CHARACTERS = 5, 1900
"""Limits of a message."""


def _check_numbers(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        least, most = _LEAST.get(name, -2 ** 31), _MOST.get(name, 2 ** 31 - 1)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and not least <= number <= most:
                bound = f"below {least}" if number < least else f"above {most}"
                raise ValueError(f"{name.replace('_', '-')} {shortened(number)} is {bound}")


def run_weights(**arguments: Any) -> list[Path]:
    """The weights in the run folder of a command with these arguments."""
    folder, config = arguments.get("run_dir"), arguments.get("config")
    if "run_dir" in arguments and config and config.exists():
        folder = run_folder(load_experiment(config), folder)
    return list(folder.glob("*.safetensors")) if folder else []


def command(group: typer.Typer, name: str | None = None, *, panel: str = MAKE, hidden: bool = False,
         device: Wanted | None = None,
         writes: Paths | None = None, fills: Paths | None = None,
         reads: Paths = run_weights) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a command: expected errors become one line on stderr and exit code 1, and its outputs are checked first.

    Outputs must not overwrite inputs (`varient.files.check_outputs`).  Inputs are all paths among the arguments that
    are not outputs, and all files that the config names.

    Args:
        panel: panel of `--help`.
        device: default device if neither the option `--device` nor VARIENT_DEVICE is set; None: the command does not
            compute.
        writes: returns the output files; default: the arguments `output` and `summary`.
        fills: returns the output folders; default: none.
        reads: returns further inputs; default: the weights in the run folder.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def guarded(**kwargs: Any) -> None:
            load_experiment.cache_clear()
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="replace")  # the terminal's encoding may lack "±"
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
                sys.exit(f"varient: {_in_few_lines(error)}")
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


def _in_few_lines(error: BaseException) -> str:
    """A message whose parts may come from a hostile file, cut to what a reader takes in."""
    lines = str(error).splitlines()
    more = [f"(and {len(lines) - _MOST_LINES + 1} more lines)"] if len(lines) > _MOST_LINES else []
    kept = lines[:_MOST_LINES - len(more)] + more
    longest = _MOST_CHARACTERS // max(len(kept), 1)
    return "\n".join(line if len(line) <= longest else f"{line[:longest]}..." for line in kept)


def _out_of_memory(error: BaseException) -> str:
    told = " ".join(str(error).split())[:200]
    return f"varient: out of memory{f' ({told})' if told else ''}; a smaller batch needs less"


def _given(paths: Iterable[Path | None]) -> list[Path]:
    return [path for path in paths if path is not None]


def _inputs(arguments: dict[str, Any], reads: Paths) -> list[Path]:
    """All files and folders that a command with these arguments reads."""
    found = _given(reads(**arguments))
    for name in arguments.keys() - {*_RESULTS, *_TOLD_BY_READS}:
        value = arguments[name]
        paths = [path for path in (value if isinstance(value, list) else [value]) if isinstance(path, Path)]
        pattern = _READ_IN.get(name)
        found += [file for folder in paths for file in folder.glob(pattern)] if pattern else paths
    config = arguments.get("config")
    return [*found, *named_files(load_experiment(config))] if config and config.exists() else found
