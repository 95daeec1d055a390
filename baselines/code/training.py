"""Training of CoDe's networks on tokens, or their import from released files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from varient.config import ExperimentConfig
from varient.files import sha256_of
from varient.models.build import build_transformer, load_transformer
from varient.models.checkpoint import load_weights, save_weights
from varient.models.official import describe_import, load_var, read_state_dict
from varient.models.transformer import VAR, initialize
from varient.plan import DepthPlan
from varient.training.loop import fit
from varient.training.tokens import Batch, TokenBatches, mixed_classes, prediction_divergence, token_loss

if TYPE_CHECKING:
    from varient.baselines.code import CodeNetwork, Settings


def make_network(config: ExperimentConfig, settings: Settings, part: CodeNetwork, run_dir: Path, output: Path) -> None:
    """Train one of CoDe's networks, or import it where the config names a released file.

    Raises:
        CheckpointError: a file that cannot be read or does not fit.
    """
    model = build_transformer(config, part.spec(config, settings))
    if released := part.source.weights:
        tensors = read_state_dict(released)
        load_var(model, tensors, str(released))
        save_weights(output, model, {"kind": part.name, **describe_import(released, tensors)})
        return
    needed = [run_dir / f"{name}.safetensors" for name in part.needs]
    if part.role == "small":
        torch.manual_seed(config.seed)
        initialize(model)
    else:
        load_weights(needed[-1], model)
    optimizer = part.source.training
    assert optimizer is not None  # a source without weights has a training
    tokens = TokenBatches(config, needed[0], optimizer.batch_size)
    if part.role == "refiner":
        loss = _distillation(model, load_transformer(config, needed[1]), part.drafted)
    else:
        loss = _prediction(model, DepthPlan.full(model.spec.depth, part.drafted))
    identity = ":".join([part.name, config.digest(*part.depends), *map(sha256_of, needed), *tokens.digests()])

    def finish(losses: list[float]) -> None:
        save_weights(output, model, {"kind": part.name, "settings": identity, "final_loss": losses[-1]})

    fit(model, lambda step: loss(tokens.batch(step)), steps=optimizer.epochs * tokens.per_epoch, settings=optimizer,
        seed=config.seed, work_dir=output.parent / f"training-{part.name}", identity=identity, title=part.name,
        precision=optimizer.precision, output=output, finish=finish)


def _prediction(model: VAR, plan: DepthPlan) -> Callable[[Batch], Tensor]:
    """Cross-entropy over the scales of the plan."""

    def loss(batch: Batch) -> Tensor:
        label_B, x_BLv, idx_BL, mix = batch
        logits_BlV = model(label_B, x_BLv, plan, mixed_classes(model, label_B, mix))
        return token_loss(logits_BlV, idx_BL[:, :model.pyramid.end(plan.num_scales)])

    return loss


def _distillation(student: VAR, teacher: VAR, drafted: int) -> Callable[[Batch], Tensor]:
    """KL(teacher || student) averaged over the tokens of the scales N+1..K, both reading the same true tokens."""
    begin = student.pyramid.end(drafted)

    def logits(model: VAR, batch: Batch) -> Tensor:
        class_BC = mixed_classes(model, batch.label_B, batch.mix)
        return model(batch.label_B, batch.x_BLv, class_BC=class_BC)[:, begin:]

    def loss(batch: Batch) -> Tensor:
        with torch.no_grad():
            wanted_BlV = logits(teacher, batch)
        return prediction_divergence(wanted_BlV, logits(student, batch))

    return loss
