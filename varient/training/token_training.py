"""Teacher-forced training of the VAR transformer on tokens: the full network and its subnets, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from varient.models.checkpoint import save_tensors, save_weights
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.training.course import PROBED_ROWS, Course
from varient.training.curves import Curves
from varient.training.distributed import Part, is_main_process, whole
from varient.training.loop import Evaluate, fit
from varient.training.schedule import Validation
from varient.training.tokens import (
    Batch,
    TokenBatches,
    mixed_classes,
    prediction_divergence,
    scale_losses,
    token_loss,
)
from varient.training.validation import held_out_losses


@dataclass
class TokenTraining:
    """Training whose batches run a subnet with the probability of the epoch, else the full network (Algorithm 1).

    Attributes:
        model: the transformer with its initial weights.
        tokens: the training data.
        course: plans, schedule and optimizer settings.
    """

    model: VAR
    tokens: TokenBatches
    course: Course
    curves: Curves = field(init=False)
    pending: list[Validation] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        course = self.course
        self.full, self.subnets = course.full, tuple(course.subnets.values())
        self.per_epoch = course.batches_per_epoch or self.tokens.per_epoch
        groups = {name: [f"blocks.{layer}." for layer in layers] for name, layers in course.layers.items()}
        self.curves = Curves(groups, probe=self._zone_losses if course.probed else None, probe_every=self.per_epoch)

    def run(self, output: Path, seed: int, description: dict, inputs: Sequence[str]) -> None:
        """Train and write the weights; an interrupted training is resumed, a finished one is not repeated.

        Args:
            output: the weight file.
            seed: seed of the training.
            description: description of the weight file.
            inputs: digests of everything that the result depends on, except the images of a folder.
        """
        course = self.course
        identity = ":".join([*inputs, *self.tokens.digests(held_out=course.validate_every > 0)])
        work_dir = output.parent / f"training-{course.name}"

        def finish(losses: list[float]) -> None:
            save_weights(output, self.model, description | {"settings": identity, "final_loss": losses[-1]})

        def before_step(step: int) -> None:
            epoch, begun = divmod(step, self.per_epoch)
            if begun == 0 and epoch in course.keep_after:
                state = whole(self.model.state_dict())
                if is_main_process():
                    save_tensors(work_dir / f"epoch-{epoch}.safetensors", state,
                                 description | {"settings": identity, "epoch": epoch})

        fit(self.model, loss_of_part=self._loss, steps=course.schedule.epochs * self.per_epoch,
            settings=course.settings, seed=seed, work_dir=work_dir, identity=identity, title=course.name,
            curves=self.curves, output=output, finish=finish, before_step=before_step, validate=self._validate,
            precision=course.settings.precision)

    def _loss(self, step: int, part: Part) -> Tensor:
        plan, (label_B, x_BLv, idx_BL, mix) = self._batch(step, part)
        class_BC = mixed_classes(self.model, label_B, mix)
        logits_BLV = self.model(label_B, x_BLv, plan, class_BC)
        loss = token_loss(logits_BLV, idx_BL)
        name = "full" if plan is self.full else "subnet"
        self.curves.record(f"loss/{name}", loss)
        for k, scale_loss in scale_losses(logits_BLV.detach(), idx_BL, self.model.pyramid).items():
            self.curves.record(f"loss/{name}/r{k}", scale_loss)
        weight = self.course.distillation
        if weight and plan is not self.full:
            # After the student's forward pass: autocast caches 16-bit copies of the weights, and copies made under
            # no_grad would not pass gradients to the weights.
            divergence = prediction_divergence(self._target(label_B, x_BLv, class_BC), logits_BLV)
            self.curves.record("loss/distillation", divergence)
            loss = (1 - weight) * loss + weight * divergence
        return loss

    @torch.no_grad()
    def _target(self, label_B: Tensor, x_BLv: Tensor, class_BC: Tensor | None) -> Tensor:
        """Logits of the full network in eval mode, that is, without stochastic depth."""
        self.model.eval()
        logits_BLV = self.model(label_B, x_BLv, self.full, class_BC)
        self.model.train()
        return logits_BLV

    def _batch(self, step: int, part: Part) -> tuple[DepthPlan, Batch]:
        """Plan and rows of a part; plan and dropped labels are drawn for the whole batch."""
        probability = self.course.schedule.subnet_probability(step // self.per_epoch + 1, self._validation())
        plan = self.full
        if torch.rand(()).item() < probability:
            # No random number is used for a single subnet, so that its training is the same as without this choice.
            chosen = int(torch.randint(len(self.subnets), ())) if len(self.subnets) > 1 else 0
            plan = self.subnets[chosen]
        return plan, self.tokens.batch(step, part)

    def _zone_losses(self, step: int, part: Part) -> Iterator[dict[str, Tensor]]:
        """The loss of a part's first rows under both plans, each split into the sums over the two zones (Fig. 3b).

        Both plans are measured whichever of them the step trains, so that epochs can be compared.  Where several
        subnets are trained together, the subnet is the shallowest: it leaves out the most layers.
        """
        _, batch = self._batch(step, part)
        rows = batch.first(PROBED_ROWS)
        for name, plan in (("full", self.full), ("subnet", self.course.subnets[min(self.course.subnets)])):
            yield {f"{name}/{zone}": loss for zone, loss in self._losses_by_zone(plan, rows).items()}

    def _losses_by_zone(self, plan: DepthPlan, batch: Batch) -> dict[str, Tensor]:
        """The two zones' shares of the loss of a batch."""
        label_B, x_BLv, idx_BL, mix = batch
        class_BC, end = mixed_classes(self.model, label_B, mix), self.model.pyramid.end(self.course.bridge)
        logits_BLV = self.model(label_B, x_BLv, plan, class_BC)
        return {"bridge": token_loss(logits_BLV[:, :end], idx_BL[:, :end]) * (end / idx_BL.shape[1]),
                "flexible": token_loss(logits_BLV[:, end:], idx_BL[:, end:]) * (1 - end / idx_BL.shape[1])}

    def _validate(self, step: int, evaluate: Evaluate) -> None:
        """Every ``validate_every`` epochs, compute validation losses for automatic schedules and for figures."""
        self.pending = []
        every = self.course.validate_every
        if not every or step == 0 or step % (every * self.per_epoch):
            return
        batches = self.tokens.held_out(next(self.model.parameters()).device)
        losses = [loss.mean for loss in held_out_losses(self.model, batches, (*self.subnets, self.full), evaluate)]
        # Rounded to float32 as in the curves, so that a resumed run uses the same values.
        found = Validation(*(float(np.float32(loss)) for loss in (sum(losses[:-1]) / len(losses[:-1]), losses[-1])))
        self.pending = [found]
        for name, value in found._asdict().items():
            self.curves.record(f"validation/{name}", value)

    def _validation(self) -> list[Validation]:
        """Validation losses of all earlier epochs: those in the curves and those of this step."""
        series = (self.curves.series(f"validation/{name}") for name in Validation._fields)
        return [*map(Validation, *series), *self.pending]
