"""Peak memory of VAR-d30 and its subnets from torch's own CUDA allocator on a simulated GPU (docs/cuda.md).

Recorded at the paper's size by `python tests/nullgpu/simulate.py`, which writes simulated_memory.json.  It includes
every allocation of the real code, and nothing is fitted.  cuDNN's workspaces and the CUDA context are not included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class SimulatedMemory:
    """Peak of the memory allocated at once, weights included, MiB.

    Attributes:
        transformer_mib: while latents are generated.
        transformer_reserved_mib: peak of the memory reserved from the device until then, with expandable segments.
        decoder_mib: while latents are decoded, 16 images at once.
        decoder_whole_batch_mib: the same, all images at once.
    """

    transformer_mib: float
    transformer_reserved_mib: float
    decoder_mib: float
    decoder_whole_batch_mib: float

    def peak_mib(self, *, whole_batch: bool) -> float:
        """The larger phase, with the whole batch decoded at once or not."""
        return max(self.transformer_mib, self.decoder_whole_batch_mib if whole_batch else self.decoder_mib)


def simulated_memory(system: str, batch_size: int, policy: str, precision: str) -> SimulatedMemory | None:
    """The record of a setting, None where there is none."""
    return _records().get((system, batch_size, policy, precision))


@cache
def _records() -> dict[tuple[str, int, str, str], SimulatedMemory]:
    document = json.loads((files("varient") / "cost" / "simulated_memory.json").read_text("utf-8"))
    keys = "system", "batch_size", "cache_policy", "precision"
    return {tuple(row.pop(key) for key in keys): SimulatedMemory(**row) for row in document["rows"]}
