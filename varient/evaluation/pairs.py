"""Pairs of images: the same picture, a function of (seed, index, class), drawn by two systems.

Images are paired by their index: that of an archive, the number in a file's name, or the place in an ADM batch.  Sets
that do not show the same pictures are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from varient.evaluation.image_source import ImageSource
from varient.evaluation.scores import fixed_permutation
from varient.yaml_file import shortened

_LAST_NUMBER = re.compile(r".*?([0-9]{1,18})")
_SAME = ("experiment", "seed")
"""Fields of the origins that have to be equal."""
_MAY_DIFFER: dict[str, Callable[[dict], Any]] = {
    "sampling": lambda origin: origin.get("sampling"),
    "tokenizer": lambda origin: origin.get("weights_sha256", {}).get("tokenizer")}
"""What may be compared on purpose, and what of the origins tells it."""


class PairError(ValueError):
    """Two sets of images that do not show the same pictures; one line that names both sets and the difference."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs, in order of their index.

    Attributes:
        samples, reference: the two sets.
        indices: (N,), int64, ascending.
        places, reference_places: (N,), int64, place of each pair's image in its set.
        labels: (N,), int64, the classes; None where neither set says.
        warnings: what could not be checked.
    """

    samples: ImageSource
    reference: ImageSource
    indices: np.ndarray
    places: np.ndarray
    reference_places: np.ndarray
    labels: np.ndarray | None
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.places)

    def batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All pairs in order, at most ``size`` at once: uint8 (B, 3, S, S) of both sets.

        Raises:
            SampleError: a damaged image.
        """
        for at in range(0, len(self), size):
            yield (images_at(self.samples, self.places[at:at + size]),
                   images_at(self.reference, self.reference_places[at:at + size]))


def paired(samples: ImageSource, reference: ImageSource) -> Pairs:
    """Pair two sets of images.  No image is read.

    Raises:
        PairError: sets of different experiments, seeds, sizes, numbers of images, indices or classes, or a set without
            an order.
    """
    both = f"{samples.place} and {reference.place}"
    for key in _SAME:
        ours, theirs = samples.origin.get(key), reference.origin.get(key)
        if None not in (ours, theirs) and ours != theirs:
            raise PairError(f"{both} differ in their {key}, {shortened(ours)} and {shortened(theirs)}: only images of "
                            "one experiment and seed are the same pictures")
    if samples.side != reference.side:
        raise PairError(f"{both} differ in the side of their images, {samples.side} and {reference.side} pixels")
    if len(samples) != len(reference):
        raise PairError(f"{both} differ in the number of images, {len(samples)} and {len(reference)}")
    if (unordered := _is_unordered(samples)) != _is_unordered(reference):
        place = samples.place if unordered else reference.place
        raise PairError(f"{place}: without an order: no manifest of `varient export` beside it says which image is "
                        "which")
    indices, their_indices = _indices(samples), _indices(reference)
    places, their_places = np.argsort(indices), np.argsort(their_indices)
    differ = np.flatnonzero(indices[places] != their_indices[their_places])
    if len(differ):
        raise PairError(f"{both} hold different images: where the first has index {indices[places][differ[0]]}, the "
                        f"second has {their_indices[their_places][differ[0]]}")
    for images, order in ((samples, places), (reference, their_places)):
        if images.sequential and (np.diff(order) < 0).any():
            raise PairError(f"{images.place}: its images are compressed and in another order than their indices; save "
                            "it uncompressed (np.savez), or each picture is unpacked with all before it")
    labels = None if samples.labels is None else samples.labels[places]
    their_labels = None if reference.labels is None else reference.labels[their_places]
    warnings = [f"{both} differ in their {what}" for what, of in _MAY_DIFFER.items()
                if None not in (ours := of(samples.origin), theirs := of(reference.origin)) and ours != theirs]
    if labels is not None and their_labels is not None and (labels != their_labels).any():
        at = int((labels != their_labels).argmax())
        differ_in = (f"{both} differ in the class of image {indices[places][at]}, {labels[at]} and {their_labels[at]}")
        guessed = [images.place for images in (samples, reference) if images.labels_guessed]
        if not guessed:
            raise PairError(differ_in)
        warnings.append(f"{differ_in}; those of {' and '.join(guessed)} are guessed from names")
        labels, their_labels = (None if images.labels_guessed else found
                                for images, found in ((samples, labels), (reference, their_labels)))
    unknown = [key for key in _SAME if None in (samples.origin.get(key), reference.origin.get(key))]
    unknown += ["classes"] if labels is None or their_labels is None else []
    if unknown:
        warnings.append(f"{both}: nothing says whether they agree in {', '.join(unknown)}; pairs are formed by "
                        f"{'place' if unordered else 'index'} alone")
    return Pairs(samples, reference, indices[places], places, their_places,
                 their_labels if labels is None else labels, tuple(warnings))


def images_at(source: ImageSource, places: np.ndarray) -> np.ndarray:
    """The images at some places of a set, uint8 (B, 3, S, S); neighbours are read together.

    Raises:
        SampleError: a damaged image.
    """
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    return np.concatenate([source.batch(int(run[0]), int(run[-1]) + 1) for run in runs])


def _is_unordered(source: ImageSource) -> bool:
    """Whether a set has places but no indices: two such sets of one writer can be paired, one and an archive cannot."""
    return source.kind == "adm" and source.permutation_seed is None


def _indices(source: ImageSource) -> np.ndarray:
    """The index of each image of a set, int64 (N,).

    Raises:
        PairError: names without a number of their own.
    """
    if source.kind == "adm" and source.permutation_seed is not None:
        return fixed_permutation(source.total or len(source), source.permutation_seed)[source.indices]
    if source.kind != "folder":
        return source.indices
    found = [_LAST_NUMBER.fullmatch(path.stem) for path in source.files]
    for path, last in zip(source.files, found, strict=True):
        if last is None:
            raise PairError(f"{source.place}: without an order: {Path(path).name} ends in no number, as {{index}}.png "
                            "or {class}_{index}.png do, so nothing says which picture it is")
    indices = np.array([int(last[1]) for last in found if last], np.int64)
    numbers, counts = np.unique(indices, return_counts=True)
    if len(numbers) < len(indices):
        raise PairError(f"{source.place}: without an order: {counts.max()} of its images end in the number "
                        f"{numbers[counts.argmax()]}; each needs an index of its own")
    return indices
