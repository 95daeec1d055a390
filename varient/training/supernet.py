"""Training of the VAR transformer on tokens: the full network from nothing, then supernets from the full network.

Both are one loop; a schedule says how often the subnet takes the place of the full network (Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import ExperimentConfig, Optimizer
from varient.files import sha256_of
from varient.models.build import build_transformer
from varient.models.checkpoint import load_weights, save_weights
from varient.models.transformer import VAR, initialize
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.training.curves import Curves
from varient.training.distributed import Part
from varient.training.loop import fit
from varient.training.schedule import FixedRatioSchedule, ProgressiveSchedule, Schedule
from varient.training.tokens import TokenBatches, token_loss


def train_base(config: ExperimentConfig, tokenizer: Path, output: Path) -> None:
    """Train the full network from nothing."""
    settings = config.base.training
    torch.manual_seed(config.seed)
    model = build_transformer(config)
    initialize(model)
    identity = ":".join([config.digest("data", "patch_nums", "tokenizer", "transformer", "base"), sha256_of(tokenizer)])
    _train(model, config, tokenizer, settings, FixedRatioSchedule(settings.epochs, 0.0), subnet=None,
           batches_per_epoch=None, identity=identity, work_dir=output.parent / "training-base", title="base",
           finish=lambda losses: save_weights(output, model, {"kind": "base", "settings": identity,
                                                              "final_loss": losses[-1]}))


def train_supernet(config: ExperimentConfig, subnet_depth: int, tokenizer: Path, base: Path, output: Path) -> None:
    """Fine-tune the full network together with its subnet of depth d in three phases (Sec. 3.3).

    Raises:
        ValueError: a depth without phases in the config.
        CheckpointError: a base checkpoint of another shape.
    """
    if subnet_depth not in config.supernet.phases:
        raise ValueError(f"supernet.phases has no entry for depth {subnet_depth}")
    settings = config.supernet.training
    model = build_transformer(config)
    load_weights(base, model)
    identity = ":".join([config.digest("data", "patch_nums", "tokenizer", "transformer", "base", "supernet"),
                         f"d{subnet_depth}", sha256_of(tokenizer), sha256_of(base)])
    _train(model, config, tokenizer, settings, ProgressiveSchedule(config.supernet.phases[subnet_depth]),
           subnet=config.plan(subnet_depth), batches_per_epoch=settings.batches_per_epoch, identity=identity,
           work_dir=output.parent / f"training-supernet-d{subnet_depth}", title=f"supernet d{subnet_depth}",
           finish=lambda losses: save_weights(output, model, {"kind": "supernet", "settings": identity,
                                                              "subnet_depth": subnet_depth, "final_loss": losses[-1]}))


def _train(model: VAR, config: ExperimentConfig, tokenizer_path: Path, settings: Optimizer, schedule: Schedule, *,
           subnet: DepthPlan | None, batches_per_epoch: int | None, identity: str, work_dir: Path, title: str,
           finish: Callable[[list[float]], None]) -> None:
    """Teacher-forced training; each batch runs the subnet's plan with the probability of its epoch, else all layers."""
    tokens = TokenBatches(config, tokenizer_path, settings.batch_size)
    full = config.plan()
    per_epoch = batches_per_epoch or tokens.per_epoch

    def forward(step: int, part: Part) -> tuple[str, Tensor, Tensor]:
        use_subnet = torch.rand(()).item() < schedule.subnet_probability(step // per_epoch + 1)
        label_B, x_BLv, idx_BL = part.rows(*tokens.batch(step))
        return "subnet" if use_subnet else "full", model(label_B, x_BLv, subnet if use_subnet else full), idx_BL

    def loss_of_part(step: int, part: Part) -> Tensor:
        name, logits_BLV, idx_BL = forward(step, part)
        loss = token_loss(logits_BLV, idx_BL)
        curves.record(f"loss/{name}", loss)
        for k, scale_loss in scale_losses(logits_BLV.detach(), idx_BL, model.pyramid).items():
            curves.record(f"loss/{name}/r{k}", scale_loss)
        return loss

    def zone_losses(step: int, part: Part) -> dict[str, Tensor]:
        """The two zones' shares of the loss: their gradients add up to the step's (Fig. 3b)."""
        _, logits_BLV, idx_BL = forward(step, part)
        end = model.pyramid.end(config.supernet.bridge)
        return {"bridge": token_loss(logits_BLV[:, :end], idx_BL[:, :end]) * (end / idx_BL.shape[1]),
                "flexible": token_loss(logits_BLV[:, end:], idx_BL[:, end:]) * (1 - end / idx_BL.shape[1])}

    curves = Curves()
    if subnet:
        kept = set(subnet.layers(subnet.num_scales))
        groups = {"shared": [f"blocks.{layer}." for layer in range(model.spec.depth) if layer in kept],
                  "full_only": [f"blocks.{layer}." for layer in range(model.spec.depth) if layer not in kept]}
        curves = Curves(groups, probe=zone_losses, probe_every=per_epoch)
    fit(model, loss_of_part=loss_of_part, steps=schedule.epochs * per_epoch, settings=settings, seed=config.seed,
        work_dir=work_dir, identity=identity, title=title, curves=curves, finish=finish)


def scale_losses(logits_BLV: Tensor, idx_BL: Tensor, pyramid: Pyramid) -> dict[int, Tensor]:
    """Mean cross-entropy of each scale 1..K."""
    loss_BL = F.cross_entropy(logits_BLV.flatten(0, 1), idx_BL.flatten(), reduction="none").view_as(idx_BL)
    return {k: loss_BL[:, pyramid.begin(k):pyramid.end(k)].mean() for k in pyramid.scales}
