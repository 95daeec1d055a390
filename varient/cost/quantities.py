"""What costs are counted in: the formats of numbers, and work."""

from __future__ import annotations

from dataclasses import astuple, dataclass

from varient.config import CachePolicy

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class NumberFormats:
    """Number formats in which images are generated.

    Attributes:
        name: as on the command line.
        weight_bytes: bytes of a stored parameter.
        compute_bytes: bytes of each operand of a matrix product.

    The residual stream, all norms and the logits are float32 in every format, as in `varient.models.transformer` and in
    the released code under autocast.  Under autocast each weight is cast at every use, because torch caches casts only
    for parameters that require gradients.
    """

    name: str
    weight_bytes: int
    compute_bytes: int

    @property
    def autocast(self) -> bool:
        """Whether stored weights and operands of products have different formats."""
        return self.weight_bytes != self.compute_bytes

    @property
    def weight_traffic_bytes(self) -> int:
        """Bytes moved for one use of one parameter: read, and under autocast written and read again."""
        return self.weight_bytes + (2 * self.compute_bytes if self.autocast else 0)

    def key_bytes(self, policy: CachePolicy, l2_norm: bool = True) -> int:
        """Bytes of one cached key channel: the reference cache keeps normalised keys as they come, in float32."""
        return FLOAT32_BYTES if policy == "reference" and l2_norm else self.compute_bytes

    def value_bytes(self) -> int:
        """Bytes of one cached value channel."""
        return self.compute_bytes


PRECISIONS = {precision.name: precision for precision in (
    NumberFormats("fp16-autocast", 4, 2), NumberFormats("bf16-autocast", 4, 2), NumberFormats("fp32", 4, 4),
    NumberFormats("fp16", 2, 2), NumberFormats("bf16", 2, 2))}
"""Formats by name.  The paper's is `fp16-autocast`: its 8085 MB of parameters are float32, and its KV cache has float16
values."""


@dataclass(frozen=True)
class Work:
    """FLOPs, and bytes moved between device memory and the chip."""

    flops: int = 0
    weight_bytes: int = 0
    kv_read_bytes: int = 0
    kv_written_bytes: int = 0
    activation_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> Work:
        return Work(*(count * times for count in astuple(self)))

    @property
    def moved_bytes(self) -> int:
        """All bytes read and written."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_written_bytes + self.activation_bytes
