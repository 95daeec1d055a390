"""Real images as sample archives, so that they are read and scored like generated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from varient.archive import Archive, write_archive
from varient.config import ExperimentConfig
from varient.training.data import load_images


def archive_real_images(config: ExperimentConfig, split: str, output: Path) -> None:
    """Write the real images of a split."""
    real = load_images(config.data, split)
    origin = {"system": f"real-{split}", "experiment": config.name, "settings": config.digest("data")}
    write_archive(output, Archive(real.images.numpy(), real.labels.numpy(), np.arange(len(real)), origin))
