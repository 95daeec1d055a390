"""From labels to sample archives, one shard of a system at a time."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from varient.archive import Archive, write_archive
from varient.config import ExperimentConfig
from varient.files import sha256_of
from varient.systems.pipeline import default_device, named_device
from varient.systems.protocol import Sampler, System
from varient.systems.registry import family_of, resolve_system, user_files


def images(sampler: Sampler, labels: Sequence[int], indices: Sequence[int], seed: int) -> np.ndarray:
    """uint8 images (B, 3, S, S) of the given classes; each depends on its (seed, index) and label alone."""
    return sampler.decode(sampler.latents(labels, indices, seed)).cpu().numpy()


def label_of(index: int, num_classes: int) -> int:
    """The class of image ``index``: classes take turns, so counts are equal."""
    return index % num_classes


def shard_indices(shard: int, *, shards: int, num_images: int) -> range:
    """Indices of shard 0..shards-1: contiguous, together 0..num_images-1.

    Raises:
        ValueError: a shard outside 0..shards-1.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"shard {shard} is outside 0..{shards - 1}")
    return range(shard * num_images // shards, (shard + 1) * num_images // shards)


def generate_shard(config: ExperimentConfig, system: str, shard: int, run_dir: Path, output: Path) -> None:
    """Generate one shard of a system's images and write it to ``output``.

    Raises:
        ValueError: an unknown system or shard, unusable weights, or 16 bits on a CPU that nobody asked for.
    """
    print(f"{system}, shard {shard}, on {named_device(default_device(config.sampling.precision))}", flush=True)
    resolved = resolve_system(system, config)
    indices = shard_indices(shard, shards=config.sampling.shards, num_images=config.sampling.num_images)
    sampler = resolved.load(run_dir, config.sampling.precision)
    labels = [label_of(i, config.data.num_classes) for i in indices]
    size = config.sampling.batch_size
    batches = [images(sampler, labels[at:at + size], indices[at:at + size], config.seed)
               for at in tqdm(range(0, len(indices), size), desc=f"{system} shard {shard}", mininterval=2)]
    weights = {name: sha256_of(run_dir / f"{name}.safetensors") for name in resolved.weights}
    weights |= {path.name: sha256_of(path) for path in user_files(resolved)}
    origin = _origin(config, resolved, weights)
    write_archive(output, Archive(np.concatenate(batches), np.array(labels), np.array(indices), origin))


def _origin(config: ExperimentConfig, system: System, weights: dict[str, str]) -> dict:
    settings = config.digest(*config.sampling.image_sections, f"systems.{family_of(system.name, config)}")
    return {"system": system.name, "experiment": config.name, "seed": config.seed, "protocol": system.protocol(),
            "sampling": config.sampling.of_images(), "settings": settings, "weights_sha256": weights,
            "torch": version("torch")}
