"""The loss on held-out images: teacher-forced, without stochastic depth or dropped labels.

Trainings validate with it, and `varient.evaluation.held_out` makes a record of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.training.distributed import sum_over_processes
from varient.training.loop import Evaluate
from varient.training.tokens import Batch, losses_of_tokens


class PlanLoss(NamedTuple):
    """Cross-entropy of a network under one plan, in nats per token.

    Attributes:
        mean: over images and tokens.
        sd: standard error of that mean, over images; None for a single image.
        scales: mean of each scale 1..K.
        images: number of images.
    """

    mean: float
    sd: float | None
    scales: tuple[float, ...]
    images: int


def without_gradients(function: Callable[[], Tensor]) -> Tensor:
    """An `Evaluate` for a network that is in evaluation mode."""
    with torch.no_grad():
        return function()


def held_out_losses(model: VAR, batches: Iterable[tuple[Batch, int]], plans: Sequence[DepthPlan],
                    evaluate: Evaluate = without_gradients) -> list[PlanLoss]:
    """The loss under each plan over all images of all processes.

    Args:
        batches: `HeldOutTokens.batches` on the device of the network.
        evaluate: runs a function of the network without gradients and in evaluation mode.

    Raises:
        ValueError: there are no images.
    """
    pyramid, count = model.pyramid, 0
    spans = [slice(pyramid.begin(k), pyramid.end(k)) for k in pyramid.scales]
    sums = torch.zeros(len(plans), 2 + len(spans), dtype=torch.float64)
    for batch, images in batches:
        loss_PBL = evaluate(partial(_losses, model, batch, plans))[:, :images].cpu().double()
        loss_PB = loss_PBL.mean(dim=2)
        scales = (loss_PBL[:, :, span].mean(dim=2) for span in spans)
        sums += torch.stack([loss_PB, loss_PB.square(), *scales], dim=1).sum(dim=2)
        count += images
    everything = sum_over_processes(torch.cat([sums.flatten(), torch.tensor([count], dtype=torch.float64)]))
    if not (total := int(everything[-1])):
        raise ValueError("there are no held-out images")
    return [PlanLoss(mean, _standard_error(mean, square, total), tuple(scales), total)
            for mean, square, *scales in (everything[:-1] / total).view_as(sums).tolist()]


def _losses(model: VAR, batch: Batch, plans: Sequence[DepthPlan]) -> Tensor:
    """Losses of the tokens of a batch under each plan, (P, B, L)."""
    return torch.stack([losses_of_tokens(model(batch.label_B, batch.x_BLv, plan), batch.idx_BL) for plan in plans])


def _standard_error(mean: float, square: float, count: int) -> float | None:
    """Standard error of the mean of ``count`` values, from it and the mean of their squares."""
    return math.sqrt(max(square - mean ** 2, 0.0) / (count - 1)) if count > 1 else None
