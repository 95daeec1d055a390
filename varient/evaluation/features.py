"""Features of a set of images: computed by an extractor, and kept in files, whole or in parts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from varient.archive import whole_numbers
from varient.evaluation.extractors import Extractor
from varient.evaluation.image_source import ImageSource, content_hash, digests_of, repeated_images
from varient.evaluation.moments import FeatureError
from varient.files import atomic_path
from varient.npz import json_value, member_names, small_array


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a set of images or of a part of it.

    Attributes:
        extractor: name of what computed them.
        layers: (N, F), float32, by layer.
        indices: (N,), int64, ascending without gaps.
        labels: (N,), int64, or None.
        digests: (N, 32), uint8, SHA-256 of each image's pixels.
        source: `ImageSource.describe` of the images.
    """

    extractor: str
    layers: dict[str, np.ndarray]
    indices: np.ndarray
    labels: np.ndarray | None
    digests: np.ndarray
    source: dict

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sha256(self) -> str:
        """Hash of the images, in order: `ImageSource.sha256` of what they were computed from."""
        return content_hash(self.digests)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Images that occur more than once."""
        copies = repeated_images(self.digests)
        return (f"{self.source['place']}: {copies} of {len(self)} images are copies of another",) if copies else ()


def extract(source: ImageSource, extractor: Extractor, output: Path, batch_size: int = 64) -> Features:
    """Features of all images of a source, written to ``output`` (.npz), or read from it if they are there.

    All features are in memory (20 kB an image for Inception's three layers), images a batch at a time.  On a CPU
    features do not depend on the batch size.

    Raises:
        SampleError: a damaged image.
        FeatureError: features that are not finite; or ``output`` exists and is damaged, of another extractor or of
            other images (it is left alone: delete it to compute again).
        OutputError: the file could not be written.
    """
    if output.exists():
        return _kept(read_features(output), source, extractor, output)
    result = extract_in_memory(source, extractor, batch_size)
    write_features(output, result)
    return result


def extract_in_memory(source: ImageSource, extractor: Extractor, batch_size: int = 64) -> Features:
    """Features of all images of a source, nothing written.

    Raises:
        SampleError: a damaged image.
        FeatureError: features that are not finite.
    """
    batches: dict[str, list[np.ndarray]] = {layer: [] for layer in extractor.layers}
    digests: list[np.ndarray] = []
    bar = tqdm(total=len(source), desc=f"features of {Path(source.place).name}", unit="image", mininterval=2)
    with bar:
        for images in source.batches(batch_size):
            features = extractor(images)
            for layer in extractor.layers:
                if not np.isfinite(features[layer]).all():
                    raise FeatureError(f"{source.place}: {layer} features of {extractor.name} are not finite")
                batches[layer].append(features[layer])
            digests.append(digests_of(images))
            bar.update(len(images))
    return Features(extractor.name, {layer: np.concatenate(parts) for layer, parts in batches.items()},
                    source.indices, source.labels, np.concatenate(digests), source.describe())


def extract_in_parts(source: ImageSource, extractor: Extractor, folder: Path, part_size: int = 5000) -> Features:
    """Features of all images of a source, written to ``folder`` in parts; a stopped extraction continues there.

    Raises:
        SampleError, FeatureError, OutputError: as `extract`.
    """
    paths = []
    for begin in range(0, len(source), part_size):
        paths.append(folder / f"{extractor.name}-{begin:08d}.npz")
        extract(source.part(begin, begin + part_size), extractor, paths[-1])
    return merge_features(paths)


def write_features(path: Path, features: Features) -> None:
    """Write atomically, uncompressed.

    Raises:
        OutputError: the file could not be written.
    """
    meta = {"extractor": features.extractor, "layers": list(features.layers), "source": features.source,
            "images_sha256": features.sha256, "versions": {name: version(name) for name in ("torch", "numpy")}}
    arrays: dict[str, Any] = {f"layer.{layer}": values for layer, values in features.layers.items()}
    if features.labels is not None:
        arrays["labels"] = features.labels
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, indices=features.indices, digests=features.digests, **arrays,
                 meta=np.array(json.dumps(meta, sort_keys=True)))


def read_features(path: Path) -> Features:
    """Read features that `extract` wrote.

    Raises:
        FeatureError: no such file, truncated or damaged, or something else.
    """
    try:
        meta = _Meta.model_validate(json_value(path, "meta"))
        features = Features(
            meta.extractor, {layer: small_array(path, f"layer.{layer}") for layer in meta.layers},
            whole_numbers(path, "indices", small_array(path, "indices")),
            whole_numbers(path, "labels", small_array(path, "labels")) if "labels" in member_names(path) else None,
            small_array(path, "digests"), meta.source.model_dump())
    except ValueError as error:
        raise FeatureError(f"{path}: not a file of features, or a damaged one ({' '.join(str(error).split())[:300]}); "
                           "delete it and extract again") from None
    count = len(features)
    fits = [count > 0, features.digests.dtype == np.uint8, features.digests.shape == (count, 32),
            features.labels is None or len(features.labels) == count,
            *(array.dtype == np.float32 and array.ndim == 2 and len(array) == count
              for array in features.layers.values())]
    if not all(fits) or features.sha256 != meta.images_sha256:
        raise FeatureError(f"{path}: its arrays do not fit each other; delete it and extract again")
    return features


class _Source(BaseModel):
    """The fields of `ImageSource.describe` that are used."""

    model_config = ConfigDict(extra="allow", strict=True)

    place: str
    total: int | None


class _Meta(BaseModel):
    """What a file of features says about its arrays."""

    model_config = ConfigDict(strict=True)

    extractor: str
    layers: list[str]
    source: _Source
    images_sha256: str


def merge_features(paths: Sequence[Path]) -> Features:
    """Features of the whole set from those of its parts, in any order.

    Raises:
        FeatureError: as `read_features`, parts by different extractors or of different sets, or parts that overlap,
            leave gaps or do not make up the whole.
    """
    if not paths:
        raise FeatureError("no features were given")
    parts = sorted(((read_features(path), path) for path in paths), key=lambda part: int(part[0].indices[0]))
    first, first_path = parts[0]
    expected = 0
    for part, path in parts:
        if (part.extractor, set(part.layers)) != (first.extractor, set(first.layers)):
            raise FeatureError(f"{path} is of {part.extractor} {sorted(part.layers)}, {first_path} of "
                               f"{first.extractor} {sorted(first.layers)}: features of two extractors do not mix")
        differing = [key for key in first.source if key != "place" and part.source.get(key) != first.source[key]]
        if differing or (part.labels is None) != (first.labels is None):
            raise FeatureError(f"{path} and {first_path} differ in {', '.join(differing or ['labels'])}: not parts of "
                               "one set of images")
        if part.indices[0] != expected or (np.diff(part.indices) != 1).any():
            raise FeatureError(f"{path}: starts at image {part.indices[0]}, expected {expected} (a part is missing or "
                               "doubled)")
        expected = int(part.indices[-1]) + 1
    total = first.source["total"]
    if total is not None and expected != total:
        raise FeatureError(f"{parts[-1][1]}: ends at image {expected - 1} of {total}: a part is missing")

    def joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate(list(arrays))

    labels = [part.labels for part, _ in parts if part.labels is not None]  # of all parts or of none
    return Features(
        first.extractor, {layer: joined(part.layers[layer] for part, _ in parts) for layer in first.layers},
        joined(part.indices for part, _ in parts), joined(labels) if labels else None,
        joined(part.digests for part, _ in parts), first.source)


def _kept(features: Features, source: ImageSource, extractor: Extractor, output: Path) -> Features:
    """Features found at ``output``, if they are of this extractor and these images."""
    if (features.extractor, set(features.layers)) != (extractor.name, set(extractor.layers)):
        raise FeatureError(f"{output}: holds features of {features.extractor} {sorted(features.layers)}, asked for is "
                           f"{extractor.name} {sorted(extractor.layers)}; delete it to compute again")
    if not np.array_equal(features.indices, source.indices) or features.sha256 != source.sha256:
        raise FeatureError(f"{output}: holds features of other images than {source.place}; delete it to compute again")
    return features
