"""Execution settings of a training, which do not change the experiment.  Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from varient.devices import wanted_device
from varient.settings import Strategy, read_settings

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Hardware:
    """Execution settings of a training; the fields are those of `varient.settings.Settings`, except for ``device``."""

    device: Device = "cpu"
    micro_batch: int | None = None
    strategy: Strategy = "ddp"
    recompute: bool = False
    workers: int = 0
    save_every: int = 200

    @classmethod
    def from_environment(cls) -> Hardware:
        """Read the VARIENT_ variables; the default device of a training is the CPU.

        Raises:
            ConfigError: as `varient.settings.read_settings`.
        """
        said = read_settings()
        device: Device = "cuda" if wanted_device("cpu") == "cuda" else "cpu"
        return cls(device, said.micro_batch, said.strategy, said.recompute == "1", said.workers,
                   said.save_every)


def accumulation_steps(batch_size: int, processes: int, micro_batch: int | None, title: str) -> int:
    """Gradient accumulation steps: the smallest number of equal parts with at most ``micro_batch`` rows each.

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
