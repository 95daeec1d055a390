"""What a training may change without changing the experiment: the VARIENT_ variables.  Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

PREFIX = "VARIENT_"
Device = Literal["cpu", "cuda"]
Strategy = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Hardware:
    """What a run may change without changing the experiment.

    Attributes:
        device: of each process.
        micro_batch: most rows of the global batch that a process puts through the network at once; None: all its rows.
        strategy: ddp keeps the whole network in each process, fsdp (FSDP2) a slice of it.
        recompute: keep only the inputs of the network's blocks and compute the rest again on the way back.
        workers: processes beside each training process that read and augment images; 0: it does so itself.
        save_every: steps between saved states.

    Raises:
        ValueError: a value that cannot be.
    """

    device: Device = "cpu"
    micro_batch: int | None = None
    strategy: Strategy = "ddp"
    recompute: bool = False
    workers: int = 0
    save_every: int = 200

    def __post_init__(self) -> None:
        for name, known in (("device", Device), ("strategy", Strategy)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} = {getattr(self, name)!r} is unknown; known: {', '.join(get_args(known))}")
        for name in ("micro_batch", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} must be at least 1")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Hardware:
        """Read VARIENT_DEVICE, VARIENT_MICRO_BATCH, and so on; recompute is 1 or 0.

        Raises:
            ValueError: a value that cannot be used.
        """
        found: dict[str, str | int | bool] = {}
        for field in fields(cls):
            variable = PREFIX + field.name.upper()
            value = environment.get(variable)
            if not value or (field.name == "device" and value == "auto"):
                continue
            if field.name in ("device", "strategy"):
                found[field.name] = value
            elif not value.isdecimal():
                raise ValueError(f"{variable} = {value!r} is no whole number")
            elif field.name != "recompute":
                found[field.name] = int(value)
            elif value not in ("0", "1"):
                raise ValueError(f"{variable} = {value!r} is neither 0 nor 1")
            else:
                found[field.name] = value == "1"
        return cls(**found)


def accumulation_steps(batch_size: int, processes: int, micro_batch: int | None, title: str) -> int:
    """The fewest equal parts of a process's share of the batch that have at most ``micro_batch`` rows.

    Raises:
        ValueError: the processes do not divide the batch.
    """
    share, rest = divmod(batch_size, processes)
    if rest or share == 0:
        usable = max(count for count in range(1, processes) if batch_size % count == 0)
        raise ValueError(f"{title}: a batch of {batch_size} cannot be shared equally by {processes} processes; "
                         f"start {usable} of them, or change batch_size in the config")
    most = micro_batch or share
    return next(count for count in range(1, share + 1) if share % count == 0 and share // count <= most)
