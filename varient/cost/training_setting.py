"""Hardware and parallelism of a training of the VAR transformer, for which its cost is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from varient.config import BaseTraining, SupernetTraining
from varient.cost.gpus import Device, device
from varient.cost.quantities import PRECISIONS, NumberFormats
from varient.training.hardware import Hardware

TRAINING_PRECISIONS = {name: PRECISIONS[form] for name, form in (
    ("fp32", "fp32"), ("fp16", "fp16-autocast"), ("bf16", "bf16-autocast"))}
"""Formats of matrix products; weights, gradients and optimizer moments are always float32
(`varient.training.loop`)."""

_MOST_DEVICES = 10 ** 6

ASSUMED_UTILISATION = 0.35
"""Model FLOPs utilisation: an assumption, not a measurement.  Tuned trainings of language models report 0.35 to 0.55;
eager PyTorch with adaLN, masked attention and float32 element-wise work may stay below."""


@dataclass(frozen=True)
class TrainingSetting:
    """Hardware of a training and how it is used.

    Attributes:
        device: the GPU of each process.
        devices: number of processes.
        micro_batch: rows of one forward pass in a process; None: all rows of the process.
        precision: of matrix products.
        strategy: ddp keeps the whole network on each device, fsdp a shard of weights, gradients and moments.
        recompute: activation checkpointing: keep the inputs of blocks only, run the blocks again in the backward pass.
        token_cache: tokens come from a token cache; otherwise images are encoded whenever they are read (digits: once).

    Raises:
        ValueError: a value that no training could have.
    """

    device: Device
    devices: int = 8
    micro_batch: int | None = None
    precision: str = "fp16"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    recompute: bool = False
    token_cache: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.devices <= _MOST_DEVICES:
            raise ValueError(f"{self.devices} devices: a training needs at least 1, and at most {_MOST_DEVICES:,}")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro-batch {self.micro_batch} is below 1")
        for name, value, known in (("precision", self.precision, tuple(TRAINING_PRECISIONS)),
                                   ("strategy", self.strategy, ("ddp", "fsdp"))):
            if value not in known:
                raise ValueError(f"{name} {value!r} is unknown; known: {', '.join(known)}")
        if self.strategy == "fsdp" and self.devices == 1:
            raise ValueError("strategy fsdp needs at least 2 devices")

    @property
    def formats(self) -> NumberFormats:
        """Number formats."""
        return TRAINING_PRECISIONS[self.precision]

    @property
    def peak_flops(self) -> float:
        """Of all devices together, FLOP/s in the training's precision; float32 stays outside the tensor cores."""
        tflops = self.device.fp32_tflops if self.precision == "fp32" else self.device.tensor_tflops
        return self.devices * tflops * 1e12


def setting_of(devices: str, training: BaseTraining | SupernetTraining | None, *,
               token_cache: bool = False) -> TrainingSetting:
    """The setting of a training started now: precision from the config, the rest from the environment of the run.

    Args:
        devices: device and count, as in "h100:8"; the count may be left out.

    Raises:
        ValueError: an unknown device, a count that is no number, or an environment that cannot be used.
    """
    name, _, count = devices.partition(":")
    if count and not count.isdecimal():
        raise ValueError(f"devices {devices!r}: expected a device and how many, as in h100:8")
    hardware = Hardware.from_environment()
    return TrainingSetting(device(name), int(count or 1), hardware.micro_batch,
                           training.precision if training else "fp32", hardware.strategy, hardware.recompute,
                           token_cache)
