"""Generations of VAR-d30 as CUDA graphs on a null GPU, as JSON: launches, waits and replays of each call.

Runs in a process of a `machine.NullMachine`:  replays.py <batch> ...
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch
from counters import MIB, counts, peak_mib, reset
from generations import var_d30

from varient.models.graphs import Replays


def main(*batches: str) -> None:
    pipeline = replace(var_d30("fp16"), replays=Replays(torch.device("cuda", 0)))
    rows = []
    for batch_size in map(int, batches):
        reset()
        images = range(batch_size)
        pipeline.latents(list(images), images, 0)
        rows.append({"batch_size": batch_size, "graphs": len(pipeline.replays), "peak_mib": peak_mib(),
                     "live_mib": torch.cuda.memory_allocated() / MIB, **counts()._asdict()})
    print(json.dumps(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
