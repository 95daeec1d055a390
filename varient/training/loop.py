"""The one optimisation loop: AdamW, clipping, learning rate over time, progress, exact resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from varient.config import Optimizer
from varient.training.state import load_training_state, save_training_state

LossOfStep = Callable[[int], Tensor]


class DivergedError(RuntimeError):
    """The loss is no finite number."""


def learning_rate(step: int, total_steps: int, settings: Optimizer) -> float:
    """Learning rate of step 0..total_steps-1: linear warm-up, then constant or a half cosine down to zero."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / max(total_steps - settings.warmup_steps, 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def fit(model: nn.Module, loss_of_step: LossOfStep, *, steps: int, settings: Optimizer, seed: int, work_dir: Path,
        identity: str, title: str, save_every: int = 200,
        before_step: Callable[[int], None] | None = None) -> list[float]:
    """Minimise ``loss_of_step(step)`` over the parameters of ``model``, in place.

    All randomness of a step is drawn from torch's global generator, seeded with (seed, step) beforehand: a run that
    was killed and started again ends with the same weights as an unbroken one.

    Args:
        work_dir: where the resumable state lives; it is removed at the end.
        identity: digest of everything the run depends on; a state of another identity is not resumed.
        before_step: called before each step, for work outside the gradient.

    Returns:
        The loss of each step.

    Raises:
        ValueError: nothing to do: a training of no steps would pass initial weights off as trained.
        DivergedError: a loss that is not finite; the last saved state stays.
    """
    if steps < 1:
        raise ValueError(f"{title}: no training step; epochs times batches is 0 (is batch_size above the images?)")
    optimizer = torch.optim.AdamW(_decay_groups(model, settings.weight_decay), lr=settings.learning_rate,
                                  betas=settings.betas)
    work_dir.mkdir(parents=True, exist_ok=True)
    state_path = work_dir / "state.pt"
    first_step, losses = load_training_state(state_path, model, optimizer, identity)
    model.train()
    progress = tqdm(range(first_step, steps), initial=first_step, total=steps, desc=title, mininterval=2)
    for step in progress:
        torch.manual_seed((seed << 32) + step)
        if before_step:
            before_step(step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, settings)
        loss = loss_of_step(step)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        # Parameters without a gradient are then skipped by AdamW: layers that a subnet leaves out neither decay
        # nor coast on old momentum.
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise DivergedError(f"{title}: loss is {losses[-1]} at step {step}; lower the learning rate")
        progress.set_postfix(loss=f"{losses[-1]:.4f}", refresh=False)
        if (step + 1) % save_every == 0 and step + 1 < steps:
            save_training_state(state_path, model, optimizer, identity, step + 1, losses)
    model.eval()
    (work_dir / "losses.json").write_text(json.dumps(losses))
    state_path.unlink(missing_ok=True)
    return losses


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; biases, norms and what the model lists in ``no_weight_decay`` (parts of names) do not."""
    exempt = getattr(model, "no_weight_decay", ())
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        small = parameter.ndim < 2 or any(part in name for part in exempt)
        (plain if small else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
