"""Saved states for resuming a killed training; the newest undamaged one is used.

The states of a training are in a folder named after its identity.  A run with other settings, data or tokenizer
therefore does not use them, and they are found again when the former settings are restored.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch

from varient.files import atomic_path, remove_unfinished, write_text
from varient.models.checkpoint import CheckpointError
from varient.models.torch_file import read_torch_file

log = logging.getLogger(__name__)

_FOLDERS = "states-"


def states_folder(work_dir: Path, identity: str) -> Path:
    """Folder of the states of an identity."""
    return work_dir / (_FOLDERS + hashlib.sha256(identity.encode()).hexdigest()[:12])


def save_training_state(folder: Path, state: dict, keep: int) -> Path:
    """Write ``state`` (plain values and tensors, with ``identity`` and ``step``) and drop all but the newest ``keep``.

    Raises:
        OutputError: the file could not be written; the states before it stay.
    """
    path = folder / f"state-{state['step']:08d}.pt"
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # raised by torch if the disk is full
            raise OSError(str(error).splitlines()[0]) from None
    write_text(folder / "identity", state["identity"])
    for old in _newest_first(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def newest_training_state(folder: Path) -> dict | None:
    """The newest undamaged state, or None; damaged states are reported and skipped."""
    for path in _newest_first(folder):
        state = read_training_state(path)
        if state is not None:
            return state
    return None


def read_training_state(path: Path) -> dict | None:
    """One state, or None (and a warning) where the file is damaged."""
    try:
        state = read_torch_file(path)
        if not isinstance(state, dict):
            raise CheckpointError(f"{path}: expected a dict, found {type(state).__name__}")
        return state
    except CheckpointError as error:
        log.warning("%s is damaged (%s); going back to the state before it", path, error)
        return None


def report_other_states(work_dir: Path, identity: str, title: str) -> None:
    """Say which folders hold states of other settings; they are neither resumed nor removed."""
    own = states_folder(work_dir, identity)
    for folder in sorted(work_dir.glob(_FOLDERS + "*")):
        if folder == own or not _newest_first(folder):
            continue
        name = folder / "identity"
        difference = _difference(name.read_text("utf-8") if name.exists() else "", identity)
        log.warning("%s: %s holds states of a training with other settings or inputs (%s); not resumed. "
                    "Delete the folder if they are not wanted.", title, folder, difference)


def remove_training_states(folder: Path) -> None:
    """Remove the states of a finished training, and temporary files of interrupted writes."""
    remove_unfinished(folder)
    for path in [*_newest_first(folder), *folder.glob("identity")]:
        path.unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.pt"), reverse=True)


def _difference(theirs: str, ours: str) -> str:
    """Which of the colon-separated parts of two identities differ."""
    old, new = theirs.split(":"), ours.split(":")
    if len(old) != len(new):
        return "another kind of training"
    return ", ".join(f"{a[:16]} there, {b[:16]} here" for a, b in zip(old, new, strict=True) if a != b)
