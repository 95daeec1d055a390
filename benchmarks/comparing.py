"""What `varient compare` costs on pairs of images, without features: squared error, SSIM and hashes.

    OMP_NUM_THREADS=2 python benchmarks/comparing.py -o benchmarks/records/comparing-50k.json

Seeded noise of the paper's size in shards, and the same with other noise on it, of which only the time is of interest;
two sets of 50,000 images take 20 GB in --folder while it runs.  Seconds are by the wall clock, of a whole process,
CPU seconds those of all its threads.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from varient.archive import Archive, write_archive
from varient.files import write_text
from varient.records import FidelityRecord, provenance, read_record

SHARD = 5000
NOISE = 16
"""Grey levels that the second set differs by, at most."""


def main(
    output: Annotated[Path, typer.Option("--output", "-o")],
    pairs: int = 50_000,
    side: int = 256,
    threads: Annotated[int, typer.Option(help="CPU threads; set OMP_NUM_THREADS to the same")] = 2,
    folder: Annotated[Path | None, typer.Option(help="for the images; default: a temporary one")] = None,
) -> None:
    """Write two sets, compare them in a process of its own, and write one record."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        samples, reference = _write_sets(Path(place), pairs, side)
        record, load_before, wall = Path(place) / "record.json", os.getloadavg(), time.perf_counter()
        options = [word for path in reference for word in ("--reference", path)]
        command = [sys.executable, "-m", "varient", "compare", *samples, *options, "-o", record, "--device", "cpu"]
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
        wall, used = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_CHILDREN)
        (found,) = read_record(record, FidelityRecord).systems
    write_text(output, json.dumps({
        "kind": "comparing-benchmark", "pairs": pairs, "side": side, "threads": threads, "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime, "psnr_db": found.psnr_db,
        "ssim": found.ssim, "load_before": load_before, "load_after": os.getloadavg(),
        "provenance": provenance(experiment="comparing-benchmark", seed=0, settings="", weights_sha256={}).model_dump(),
    }, indent=2) + "\n")
    print(f"{pairs} pairs of {side} x {side}: {wall:.1f} s; wrote {output}")


def _write_sets(folder: Path, pairs: int, side: int) -> tuple[list[Path], list[Path]]:
    """The shards of both sets."""
    draw, sets = np.random.default_rng(0), ([], [])
    for at in range(0, pairs, SHARD):
        shape = (min(SHARD, pairs - at), 3, side, side)
        images = draw.integers(0, 256 - NOISE, shape, np.uint8)
        for shards, system in zip(sets, ("subnet", "full"), strict=True):
            shards.append(folder / f"{system}-{at}.npz")
            indices = np.arange(at, at + len(images))
            write_archive(shards[-1], Archive(images, indices % 1000, indices, {"system": system}))
            images = images + draw.integers(0, NOISE, shape, np.uint8)
    return sets


if __name__ == "__main__":
    typer.run(main)
