"""The VARIENT_ environment variables, which set where and how to compute.  Imports no torch.

They are read again at each use, because `varient` changes them for child processes.
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
Switch = Literal["0", "1"]
_PREFIX, _INTERNAL = "VARIENT_", "VARIENT_GPUS_TAKEN"


class Settings(BaseSettings):
    """One field for each variable (VARIENT_DEVICE, ...); an empty variable counts as not set.

    Attributes:
        device: device to compute on.
        launch: command line of a launcher such as torchrun; empty: no launcher.
        micro_batch: largest number of rows of a forward pass in a process; larger batches use gradient accumulation.
            None: no accumulation.
        strategy: ddp replicates the network in each process, fsdp (FSDP2) shards it.
        recompute: 1 enables activation checkpointing of the network's blocks.
        workers: data-loading worker processes of each training process; 0: the training process loads the images.
        save_every: steps between saved training states.
        graphs, compile, decoder_channels_last, decoder_half: 1 turns on the switch of this name
            (`varient.models.acceleration.Acceleration`).
        gpus_taken: 1 in child processes of a process that locked GPUs; set by `varient.devices`, not by users.
    """

    model_config = SettingsConfigDict(alias_generator=lambda name: _PREFIX + name.upper(), case_sensitive=True,
                                      env_ignore_empty=True, frozen=True)

    device: Wanted = "auto"
    launch: str = ""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    strategy: Strategy = "ddp"
    recompute: Switch = "0"
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    save_every: Annotated[int, Field(ge=1)] = 200
    graphs: Switch = "0"
    compile: Switch = "0"
    decoder_channels_last: Switch = "0"
    decoder_half: Switch = "0"
    gpus_taken: Switch = "0"


def read_settings() -> Settings:
    """Read and validate the VARIENT_ variables of this process.

    Raises:
        ConfigError: one line for each invalid value and each unknown VARIENT_ variable.
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
    words = [variable.removeprefix(_PREFIX) for variable in public]
    if close := get_close_matches(name.upper().removeprefix(_PREFIX), words, n=1, cutoff=0.8):
        return f"did you mean {_PREFIX}{close[0]}?"
    return f"known are {', '.join(public)}"
