"""Class labels read from file names, and warnings about orders and counts of classes that change scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from varient.image_tree import class_numbers

_PAIR = re.compile(r"([0-9]{1,18})_([0-9]{1,18})")
_LAST_NUMBER = re.compile(r".*?([0-9]{1,18})")


class NamedLabels(NamedTuple):
    """What the names of a set of images say about classes.

    Attributes:
        labels: (N,), int64, or None where names are ambiguous.
        remark: what was taken for a class, or was not although it looks like one; None where nothing is unusual.
    """

    labels: np.ndarray | None
    remark: str | None


def labels_from_names(names: Sequence[str], *, exported: bool) -> NamedLabels:
    """Classes by the names of images, relative to their folder.

    Names ``{class}_{index}`` are believed where our manifest says that we wrote them (``exported``).  Without it, as
    ``{batch}_{index}`` and ``{process}_{index}`` look the same, the second numbers must be 0..N-1, each once, and the
    first must not simply count blocks of them.  Else class folders count: what an image's path begins with, unless
    they are such blocks.

    Raises:
        ImageTreeError: class folders of one number, as 1 and 01.
    """
    stems = [name.rpartition("/")[2].rpartition(".")[0] for name in names]
    pairs = [pair for stem in stems if (pair := _PAIR.fullmatch(stem))]
    if len(pairs) == len(stems):
        firsts, indices = ([int(pair[part]) for pair in pairs] for part in (1, 2))
        if exported:
            return NamedLabels(np.array(firsts, np.int64), None)
        if _is_running(indices) and not _are_blocks(firsts, indices):
            return NamedLabels(np.array(firsts, np.int64), "classes are taken from names {class}_{index}")
        return NamedLabels(None, "names {a}_{b} may be {class}_{number} or {batch}_{number}: no classes are taken from "
                                 "them; put each class into a folder of its own to give them")
    folders = [name.partition("/")[0] for name in names]
    if not all("/" in name for name in names) or len(set(folders)) < 2:
        return NamedLabels(None, None)
    numbers = class_numbers(set(folders))
    labels = [numbers[folder] for folder in folders]
    indices = [int(last[1]) for stem in stems if (last := _LAST_NUMBER.fullmatch(stem))]
    if len(indices) == len(stems) and _is_running(indices) and _are_blocks(labels, indices):
        return NamedLabels(None, f"its {len(numbers)} folders hold images numbered one after the other, as batches do: "
                                 "they are not taken for classes")
    return NamedLabels(np.array(labels, np.int64), f"classes are taken from its {len(numbers)} folders")


def _is_running(indices: Sequence[int]) -> bool:
    return sorted(indices) == list(range(len(indices)))


def _are_blocks(groups: Sequence[int], indices: Sequence[int]) -> bool:
    """Whether each group is one block of consecutive indices."""
    by_index = np.array(groups)[np.argsort(indices)]
    return 1 + np.count_nonzero(np.diff(by_index)) == len(set(groups))


def count_warnings(labels: np.ndarray) -> list[str]:
    """A warning where classes have unequal numbers of images."""
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.min() == counts.max():
        return []
    return [f"{counts.min()} to {counts.max()} images a class; published scores have equal counts"]


def order_warnings(labels: np.ndarray) -> list[str]:
    """A warning about an order for which ADM's evaluator, whose blocks are in stored order, gives another IS."""
    classes = len(np.unique(labels))
    if not 1 < classes < len(labels):
        return []
    if 1 + np.count_nonzero(np.diff(labels)) == classes:
        return ["sorted by class: ADM's evaluator would give several times too low an IS (62 for about 300, "
                "guided-diffusion#165); the protocols here permute"]
    if np.array_equal(labels[classes:], labels[:-classes]):
        return ["classes take turns: ADM's evaluator would give an IS some percent too high; the protocols here "
                "permute"]
    return []
