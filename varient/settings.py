"""The VARIENT_ variables: what the environment says of where and how to compute.  Imports no torch.

They are read anew each time, because processes are started, and tests run, with others than these.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from varient.config import ConfigError, error_lines
from varient.yaml_file import shortened

Wanted = Literal["auto", "cpu", "cuda"]
Strategy = Literal["ddp", "fsdp"]
_PREFIX, _INTERNAL = "VARIENT_", "VARIENT_GPUS_TAKEN"


class Settings(BaseSettings):
    """One field for each variable, VARIENT_DEVICE and so on; an empty one counts as not set.

    Attributes:
        device: where to compute.
        launch: command line of a launcher of several processes; empty: none.
        micro_batch: most rows of the global batch that a process puts through the network at once; None: all its rows.
        strategy: ddp keeps the whole network in each process, fsdp (FSDP2) a slice of it.
        recompute: 1 keeps only the inputs of the network's blocks and computes the rest again on the way back.
        workers: processes beside each training process that read and augment images; 0: it does so itself.
        save_every: steps between saved states.
        gpus_taken: 1 in processes that one with GPUs started; set by `varient.devices`, not by people.
    """

    model_config = SettingsConfigDict(alias_generator=lambda name: _PREFIX + name.upper(), case_sensitive=True,
                                      env_ignore_empty=True, frozen=True)

    device: Wanted = "auto"
    launch: str = ""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    strategy: Strategy = "ddp"
    recompute: Literal["0", "1"] = "0"
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    save_every: Annotated[int, Field(ge=1)] = 200
    gpus_taken: Literal["0", "1"] = "0"


def read_settings() -> Settings:
    """What the environment of this process says.

    Raises:
        ConfigError: a value that a variable cannot have, or a variable of ours that there is not; a line for each.
    """
    known = [field.alias for field in Settings.model_fields.values() if field.alias]
    lines = [f"{shortened(name)[1:-1]}: there is no such variable; {_meant(name, known)}" for name in sorted(os.environ)
             if name.upper().startswith(_PREFIX) and name not in known]
    try:
        settings = Settings()
    except ValidationError as error:
        lines += error_lines(error)
    if lines:
        raise ConfigError("\n".join(lines))
    return settings


def _meant(name: str, known: list[str]) -> str:
    public = [variable for variable in known if variable != _INTERNAL]
    if close := get_close_matches(name.upper(), public, n=1, cutoff=0.8):
        return f"did you mean {close[0]}?"
    return f"known are {', '.join(public)}"
