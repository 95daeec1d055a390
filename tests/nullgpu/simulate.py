"""Writes varient/cost/simulated_memory.json: the allocator's peaks of Tables 2 and 3, simulated on a null GPU.

    python tests/nullgpu/simulate.py [FILE]
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory

from machine import HERE, ROOT, NullMachine, what_is_missing

from varient.config import load_config
from varient.cost.simulated_memory import SimulatedMemory
from varient.files import write_text
from varient.records import provenance

BATCHES = (64, 128, 256)
KEPT = ("system", "batch_size", "cache_policy", "precision", *(field.name for field in fields(SimulatedMemory)))
ROOMY = {"NULLGPU_MEMORY_MIB": "1000000", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}


def main(output: str | Path = ROOT / "varient/cost/simulated_memory.json") -> None:
    if reason := what_is_missing():
        sys.exit(f"a GPU that does nothing {reason}")
    rows = []
    with TemporaryDirectory() as folder:
        machine = NullMachine.build(Path(folder))
        for precision in ("fp16-autocast", "fp16"):
            done = machine.start(HERE / "generations.py", precision, *BATCHES, **ROOMY)
            if done.returncode:
                sys.exit(done.stderr)
            rows += [{key: round(row[key], 1) if key.endswith("mib") else row[key] for key in KEPT}
                     for row in json.loads(done.stdout)["rows"]]
    config = load_config(ROOT / "workflow/config/imagenet256.yaml")
    origin = provenance(experiment=config.name, seed=None, settings=config.digest("transformer", "sampling"),
                        weights_sha256={}, on="cpu").model_copy(update={"device": "a GPU that does nothing"})
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    write_text(Path(output), f'{{"provenance": {origin.model_dump_json()},\n "rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main(*sys.argv[1:])
