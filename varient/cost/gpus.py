"""Peak rates and memory of GPUs by name, read from `gpus.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from varient.yaml_file import parse_yaml


@dataclass(frozen=True)
class Device:
    """Peak rates and memory of a GPU.

    Attributes:
        name: as the vendor calls it.
        tensor_tflops: dense fp16 and bf16 tensor cores, TFLOP/s.
        fp32_tflops: fp32 outside the tensor cores, TFLOP/s.
        bandwidth_gb_s: device memory, GB/s (decimal).
        memory_mib: device memory that the driver reports as the total, MiB.
        source: where the figures come from and what they were checked against.
    """

    name: str
    tensor_tflops: float
    fp32_tflops: float
    bandwidth_gb_s: float
    memory_mib: int
    source: str


@cache
def known_devices() -> dict[str, Device]:
    """Devices by their id."""
    sheets = parse_yaml((files(__package__) / "gpus.yaml").read_text("utf-8"), "gpus.yaml")
    return {key: Device(**sheet) for key, sheet in sheets.items()}


def key_of(name: str) -> str | None:
    """The id of a device by the name that its driver gives; None if it is none of those."""
    words = "".join(name.lower().split()).replace("-", "")
    return next((key for key in known_devices() if key in words), None)


def device(key: str) -> Device:
    """The device of that id, upper or lower case.

    Raises:
        ValueError: unknown id.
    """
    devices = known_devices()
    if key.lower() not in devices:
        raise ValueError(f"device {key!r} is unknown; known: {', '.join(devices)}")
    return devices[key.lower()]
