"""What a killed training needs to go on where it was."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from varient.files import atomic_path
from varient.models.checkpoint import load_strictly


def save_training_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, identity: str, step: int,
                        losses: list[float]) -> None:
    """Write what a killed run needs to go on after ``step`` finished steps."""
    state = {"identity": identity, "step": step, "losses": losses, "model": model.state_dict(),
             "optimizer": optimizer.state_dict()}
    with atomic_path(path) as temporary:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:  # how torch tells of a full disk
            raise OSError(str(error).splitlines()[0]) from None


def load_training_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer,
                        identity: str) -> tuple[int, list[float]]:
    """Restore model and optimizer; return the finished steps and their losses: (0, []) where nothing fits.

    A state of other settings or other inputs (another ``identity``) is not resumed.
    """
    if not path.exists():
        return 0, []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["identity"] != identity:
        return 0, []
    load_strictly(model, state["model"], str(path))
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["losses"]
