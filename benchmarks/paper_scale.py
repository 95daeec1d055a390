"""Profile the rows of the paper's Tables 2 and 3 at their own size, with seeded random weights, on the GPU at hand.

    python benchmarks/paper_scale.py                        # lean and reference cache, held to an L20's memory
    python benchmarks/paper_scale.py --batch 64 --no-cap    # the whole card

Each configuration is a process of its own and leaves one record in benchmarks/records; one that is there is not made
again.  A configuration that does not fit leaves a record that says so.  `results/table3.csv` shows the records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from varient.cost.gpus import device
from varient.cost.sizes import MIB
from varient.experiment import load_experiment
from varient.profiling.profiler import Configuration, profile_in_fresh_process

SYSTEMS = ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2")


def main(
    config: Path = Path("workflow/config/imagenet256.yaml"),
    systems: Annotated[list[str] | None, typer.Option("--system")] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="default 64, 128 and 256")] = None,
    precision: str = "fp16",
    cap: Annotated[bool, typer.Option(help="hold the allocator to the memory of an L20")] = True,
    output: Path = Path("benchmarks/records"),
) -> None:
    """Profile and write one record a configuration."""
    experiment = load_experiment(config)
    cap_bytes = device("l20").memory_mib * MIB if cap else None
    for system in systems or SYSTEMS:
        for batch in batches or (64, 128, 256):
            for cache in ("reference", "lean"):
                path = output / f"profile-{system}-b{batch}-{cache}-{precision}{'-l20' if cap else ''}.json"
                if path.exists():
                    continue
                wanted = Configuration.of(experiment, system, batch_size=batch, precision=precision, cache_policy=cache,
                                          random_weights=True, memory_cap_bytes=cap_bytes)
                record = profile_in_fresh_process(config, experiment, wanted, Path("runs") / experiment.name, path)
                print(f"{path}: {record.status}" + (f", {record.latency.median_s:.3f} s, peak "
                                                    f"{record.memory.peak_mib:.0f} MiB" if record.latency else ""))


if __name__ == "__main__":
    typer.run(main)
