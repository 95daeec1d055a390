"""Generation of sample archives, one shard of a system at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from glob import escape
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from varient.archive import Archive, write_archive
from varient.config import ExperimentConfig
from varient.files import atomic_path, remove_unfinished, sha256_kept, write_text
from varient.npz import SampleError, small_array
from varient.records import device_name
from varient.systems.lineage import imported_sha256
from varient.systems.pipeline import default_device, named_device
from varient.systems.protocol import Sampler, System
from varient.systems.registry import family_of, resolve_system, user_files


def images(sampler: Sampler, labels: Sequence[int], indices: Sequence[int], seed: int) -> np.ndarray:
    """uint8 images (B, 3, S, S) of the given classes; each depends on its (seed, index) and label alone."""
    return sampler.decode(sampler.latents(labels, indices, seed)).cpu().numpy()


def label_of(index: int, num_classes: int) -> int:
    """The class of image ``index``: classes alternate, so that all have the same number of images."""
    return index % num_classes


def shard_indices(shard: int, *, shards: int, num_images: int) -> range:
    """Image indices of one shard; shards are contiguous and together cover 0..num_images-1.

    Raises:
        ValueError: ``shard`` is outside 0..shards-1.
    """
    if not 0 <= shard < shards:
        raise ValueError(f"shard {shard} is outside 0..{shards - 1}")
    return range(shard * num_images // shards, (shard + 1) * num_images // shards)


def generate_shard(config: ExperimentConfig, system: str, shard: int, run_dir: Path, output: Path) -> None:
    """Generate one shard of a system's images and write it to ``output``.

    Finished batches are kept on disk until the shard is complete, so that a killed job can be resumed; the result has
    the same bytes.

    Raises:
        ValueError: unknown system or shard, unusable weights, or 16-bit precision without a GPU (VARIENT_DEVICE=cpu
            allows it).
    """
    device = default_device(config.sampling.precision)
    print(f"{system}, shard {shard}, on {named_device(device)}", flush=True)
    resolved = resolve_system(system, config)
    indices = shard_indices(shard, shards=config.sampling.shards, num_images=config.sampling.num_images)
    sampler = resolved.load(run_dir, config.sampling.precision)
    labels = [label_of(i, config.data.num_classes) for i in indices]
    size, origin = config.sampling.batch_size, _origin(config, resolved, run_dir)
    remove_unfinished(output.parent, escape(output.stem), escape(output.suffix))
    if used := getattr(sampler, "acceleration", ()):
        origin["acceleration"] = list(used)
    finished = FinishedBatches(output.parent / f".unfinished-{output.stem}",
                               {"origin": origin, "batch_size": size, "images": [indices.start, indices.stop]})
    batches = []
    for at in tqdm(range(0, len(indices), size), desc=f"{system} shard {shard}", mininterval=2):
        batch = finished.read(at, min(size, len(indices) - at), config.data.image_size)
        if batch is None:
            batch = images(sampler, labels[at:at + size], indices[at:at + size], config.seed)
            finished.keep(at, batch)
        batches.append(batch)
    write_archive(output, Archive(np.concatenate(batches), np.array(labels), np.array(indices), origin))
    finished.remove()


class FinishedBatches:
    """The finished batches of a shard on disk, from which a killed job is resumed.

    Args:
        folder: for these batches alone; its name begins with a dot, so that it is not read as samples.
        made_by: everything that the batches depend on, JSON-serializable.  Batches made by anything else are removed.
    """

    def __init__(self, folder: Path, made_by: dict) -> None:
        self._folder, text, note = folder, json.dumps(made_by, sort_keys=True), folder / "made_by.json"
        if not note.exists() or note.read_bytes() != text.encode():
            self.remove()
            write_text(note, text)

    def read(self, at: int, count: int, side: int) -> np.ndarray | None:
        """The batch whose first image is number ``at``, uint8 (count, 3, side, side); None if it is missing or damaged.
        """
        try:
            images_B3SS = small_array(self._path(at), "images")
        except SampleError:
            return None
        is_right = images_B3SS.shape == (count, 3, side, side) and images_B3SS.dtype == np.uint8
        return images_B3SS if is_right else None

    def keep(self, at: int, images_B3SS: np.ndarray) -> None:
        """Write a batch atomically, with a checksum."""
        with atomic_path(self._path(at)) as temporary, temporary.open("wb") as file:
            np.savez(file, images=images_B3SS)

    def remove(self) -> None:
        """Remove all batches.  Another process that generates the same shard may be removing them at the same time."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, at: int) -> Path:
        return self._folder / f"{at}.npz"


def _origin(config: ExperimentConfig, system: System, run_dir: Path) -> dict:
    weights = {name: sha256_kept(run_dir / f"{name}.safetensors") for name in system.weights}
    weights |= {path.name: sha256_kept(path) for path in user_files(system)}
    settings = config.digest(*config.sampling.image_sections, f"systems.{family_of(system.name, config)}")
    return {"system": system.name, "experiment": config.name, "seed": config.seed, "protocol": system.protocol(),
            "sampling": config.sampling.of_images(), "settings": settings, "weights_sha256": weights,
            "imported_sha256": imported_sha256(system, config, run_dir),
            "device": device_name(default_device(config.sampling.precision).type),
            "torch": version("torch")}
