"""Images of some classes under several depths, for `varient sample`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from varient.config import ExperimentConfig
from varient.generation import images
from varient.report.grids import check_size, write_grid
from varient.systems.names import SupernetId
from varient.systems.pipeline import load_pipeline


def sample_grid(config: ExperimentConfig, run_dir: Path, output: Path, *, labels: Sequence[int], depths: Sequence[int],
                bridge: int | None, checkpoint: Path | None, count: int, seed: int) -> None:
    """Draw ``count`` images of each class for each depth with the same seeds and write them as rows of a PNG.

    Args:
        labels: classes, in the order of the columns.
        depths: d of each row; D means the full network.
        bridge: N; None means the config's.
        checkpoint: weights for all rows; None means the supernet of each depth, and the base for depth D.

    Raises:
        ValueError: a class or depth the experiment does not have, N above K, or more images than a picture holds.
        CheckpointError: weights that are missing or of another shape.
    """
    for label in labels:
        if not 0 <= label < config.data.num_classes:
            raise ValueError(f"class {label} is outside 0..{config.data.num_classes - 1}")
    check_size(len(labels) * count, len(depths), config.data.image_size)
    columns = [label for label in labels for _ in range(count)]
    plans = [(depth, config.plan(depth, bridge)) for depth in depths]
    zone = config.supernet.bridge if bridge is None else bridge
    rows = []
    for depth, plan in plans:
        own = "base" if depth == config.transformer.depth else str(SupernetId(depth))
        pipeline = load_pipeline(config, run_dir / "tokenizer.safetensors",
                                 checkpoint or run_dir / f"{own}.safetensors", plan, config.sampling.precision)
        row = images(pipeline, columns, range(len(columns)), seed)
        rows.append((f"d = {depth}, N = {zone}" if not plan.is_full else f"full, d = {depth}", row))
    write_grid(output, rows, f"{config.name}: class {', '.join(map(str, labels))}; the same seed down each column")
