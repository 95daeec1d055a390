"""Checks of the experiment's run folder and of the disk space."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from varient.config import ExperimentConfig
from varient.cost.sizes import GIB
from varient.doctor.findings import Finding, fine, problem
from varient.doctor.outlook import Target
from varient.json_file import read_model
from varient.yaml_file import ConfigError, shortened

MADE_BY = ("data", "patch_nums", "tokenizer", "transformer", "base", "supernet", "systems", "seed")
"""Sections of a config that determine the networks."""


class _Kept(BaseModel):
    """A config that was kept, perhaps by another version: only its name has to be there."""

    model_config = ConfigDict(extra="allow")

    name: str


def check_run_folder(config: ExperimentConfig, run_dir: Path) -> Iterator[Finding]:
    """Check whether a run folder belongs to this config, by the configs kept in it."""
    subject, own = "run folder", json.loads(config.model_dump_json())
    kept = sorted(run_dir.glob("config-*.json"), key=lambda path: path.stat().st_mtime)
    if not kept:
        yield fine(subject, f"{run_dir}: nothing there yet")
        return
    try:
        newest = read_model(kept[-1], _Kept, ConfigError, "a config").model_dump()
    except ConfigError as error:
        yield problem(subject, f"{error}: damaged; remove it")
        return
    name, differing = newest["name"], [key for key in MADE_BY if newest.get(key) != own[key]]
    if name != config.name:
        yield problem(subject, f"{run_dir} belongs to another experiment, {shortened(name)} ({kept[-1].name}): use "
                               "another folder, or move that one away")
    elif differing:
        yield problem(subject, f"{run_dir} was made with other settings of {', '.join(differing)} ({kept[-1].name}): "
                               "results that depend on them are made again; to keep them, rename the experiment")
    else:
        yield fine(subject, f"{run_dir}: belongs to this experiment")


def check_disk(run_dir: Path, everything: Target) -> Iterator[Finding]:
    """Check whether there is enough disk space for the remaining files of the experiment."""
    place = next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    parts = {"samples and features": everything.sample_bytes, "networks": everything.weight_bytes,
             "states of a training": everything.state_bytes}
    needed = ", ".join(f"{what} {size / GIB:.1f} GiB" for what, size in parts.items() if size)
    text = f"{free / GIB:.1f} GiB free below {run_dir}; the remaining files need {everything.disk_bytes / GIB:.1f} GiB"
    text += f" ({needed})" if needed else ""
    yield fine("disk", text) if everything.disk_bytes <= free else problem("disk", f"too small: {text}")
