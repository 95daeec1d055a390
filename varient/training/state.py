"""Saved states for resuming a killed training; the newest undamaged one is used.

The states of a training are in a folder named after its identity.  A run with other settings, data or tokenizer
therefore does not use them, and they are found again when the former settings are restored.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn

from varient.files import atomic_path, remove_unfinished, write_text
from varient.models.checkpoint import CheckpointError, check_fit, is_plain
from varient.models.torch_file import read_torch_file

log = logging.getLogger(__name__)

_FOLDERS = "states-"


class OptimizerState(BaseModel):
    """The state of AdamW; its settings are those of the training that resumes it."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    state: dict[int, dict[str, Tensor]]
    """Of each parameter by its number: ``step``, ``exp_avg`` and ``exp_avg_sq``."""


class TrainingState(BaseModel):
    """Everything that a training resumes from after ``step`` steps."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    identity: str
    code: str
    step: Annotated[int, Field(ge=1)]
    losses: Tensor
    """Of each step, float64 (step,)."""
    curves: dict[str, list[Tensor]]
    """Name -> steps, int32, and values, float32."""
    skips_in_a_row: Annotated[int, Field(ge=0)]
    model: dict[str, Tensor]
    optimizer: OptimizerState
    scaler: dict[str, int | float]
    """Of fp16; empty otherwise."""

    @model_validator(mode="after")
    def _is_whole(self) -> TrainingState:
        if not is_plain(self.losses) or (self.losses.dtype, self.losses.shape) != (torch.float64, (self.step,)):
            raise ValueError(f"losses {self.losses.dtype} {tuple(self.losses.shape)} of {self.step} steps")
        for name, pair in self.curves.items():
            if [(part.dtype, part.ndim) for part in pair if is_plain(part)] != [(torch.int32, 1), (torch.float32, 1)] \
                    or len(pair[0]) != len(pair[1]):
                raise ValueError(f"curve {name:.60} is no pair of steps and values")
        return self

    def check_fits(self, model: nn.Module, parameters: list[nn.Parameter], *, is_scaled: bool) -> None:
        """Check that a training can resume from this state.

        Args:
            parameters: the parameters of the optimizer in its order.
            is_scaled: whether the training scales its losses.

        Raises:
            CheckpointError: tensors of the model or the optimizer have other names, shapes or kinds, or values that
                are not finite.
        """
        check_fit(self.model, model.state_dict(), "its model", type(model).__name__)
        if strangers := self.optimizer.state.keys() - set(range(len(parameters))):
            raise CheckpointError(f"its optimizer has a parameter {min(strangers)}, of {len(parameters)}")
        own = {f"{number}.{name}": like for number, parameter in enumerate(parameters)
               if number in self.optimizer.state
               for name, like in (("step", torch.zeros(())), ("exp_avg", parameter), ("exp_avg_sq", parameter))}
        found = {f"{number}.{name}": value for number, entries in self.optimizer.state.items()
                 for name, value in entries.items()}
        check_fit(found, own, "its optimizer", "AdamW")
        if bool(self.scaler) != is_scaled:
            raise CheckpointError(f"its training {'scaled' if self.scaler else 'did not scale'} losses")


def states_folder(work_dir: Path, identity: str) -> Path:
    """Folder of the states of an identity."""
    return work_dir / (_FOLDERS + hashlib.sha256(identity.encode()).hexdigest()[:12])


def save_training_state(folder: Path, state: Mapping[str, Any], keep: int) -> Path:
    """Write the fields of a `TrainingState` and drop all but the newest ``keep``.

    Raises:
        OutputError: the file could not be written; the states before it stay.
    """
    path = _path_of(folder, state["step"])
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # raised by torch if the disk is full
            raise OSError(str(error).splitlines()[0]) from None
    write_text(folder / "identity", state["identity"])
    for old in _newest_first(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


Check = Callable[[TrainingState], None]
"""Raises CheckpointError if the training cannot resume from a state."""


def newest_training_state(folder: Path, check: Check) -> TrainingState | None:
    """The newest undamaged state, or None; damaged states are reported and skipped."""
    for path in _newest_first(folder):
        state = read_training_state(path, check)
        if state is not None:
            return state
    return None


def read_training_state(path: Path, check: Check) -> TrainingState | None:
    """One state, or None (and a warning) where the file is damaged or does not fit."""
    try:
        state = _parsed(read_torch_file(path, mapped=True))  # a copy for each of a node's processes is too much
        if path != _path_of(path.parent, state.step):
            raise CheckpointError(f"is of step {state.step}")
        check(state)
        return state
    except CheckpointError as error:
        log.warning("%s is damaged (%s); going back to the state before it", path, error)
        return None


def _parsed(content: object) -> TrainingState:
    try:
        return TrainingState.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"])) or "file"
        raise CheckpointError(f"not a training state: {key:.60}: {first['msg']:.200}") from None


def report_other_states(work_dir: Path, identity: str, title: str) -> None:
    """Say which folders hold states of other settings; they are neither resumed nor removed."""
    own = states_folder(work_dir, identity)
    for folder in sorted(work_dir.glob(_FOLDERS + "*")):
        if folder == own or not _newest_first(folder):
            continue
        name = folder / "identity"
        theirs = name.read_text("utf-8", errors="replace")[:10_000] if name.is_file() else ""
        difference = _difference(theirs, identity)
        log.warning("%s: %s holds states of a training with other settings or inputs (%s); not resumed. "
                    "Delete the folder if they are not wanted.", title, folder, difference)


def remove_training_states(folder: Path) -> None:
    """Remove the states of a finished training, and temporary files of interrupted writes."""
    remove_unfinished(folder)
    for path in [*_newest_first(folder), *folder.glob("identity")]:
        path.unlink(missing_ok=True)
    if folder.exists() and not any(folder.iterdir()):
        folder.rmdir()


def _path_of(folder: Path, step: int) -> Path:
    return folder / f"state-{step:08d}.pt"


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.pt"), reverse=True)


def _difference(theirs: str, ours: str) -> str:
    """Which of the colon-separated parts of two identities differ."""
    old, new = theirs.split(":"), ours.split(":")
    if len(old) != len(new):
        return "another kind of training"
    return ", ".join(f"{a[:16]} there, {b[:16]} here" for a, b in zip(old, new, strict=True) if a != b)
