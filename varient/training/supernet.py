"""Training of the VAR transformer on tokens: the full network from nothing, then supernets from the full network.

Both are one loop; a schedule says how often a subnet takes the place of the full network (Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import BaseTraining, ExperimentConfig, SupernetTraining
from varient.files import link_or_copy, sha256_of
from varient.models.build import build_transformer
from varient.models.checkpoint import CheckpointError, load_weights, read_description, save_tensors, save_weights
from varient.models.transformer import VAR, initialize
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.training.curves import Curves
from varient.training.distributed import Part, is_main_process, sum_over_processes, whole
from varient.training.loop import fit
from varient.training.recipes import Supernet, schedule_of
from varient.training.schedule import FixedRatioSchedule, Schedule, Validation
from varient.training.tokens import Batch, TokenBatches, mixed_classes, prediction_divergence, token_loss

_SECTIONS = ("data", "patch_nums", "tokenizer", "transformer", "base")


def train_base(config: ExperimentConfig, tokenizer: Path, output: Path, cache: Path | None = None) -> None:
    """Train the full network from nothing, on images or on a cache of their tokens."""
    settings = config.base.training
    torch.manual_seed(config.seed)
    model = build_transformer(config)
    initialize(model)
    training = _TokenTraining(model, TokenBatches(config, tokenizer, settings.batch_size, cache=cache), settings,
                              FixedRatioSchedule(settings.epochs, 0.0))
    training.run(output, "base", config.seed, {"kind": "base"}, [config.digest(*_SECTIONS), sha256_of(tokenizer)])


def train_supernet(config: ExperimentConfig, supernet: Supernet, tokenizer: Path, base: Path, output: Path,
                   cache: Path | None = None) -> None:
    """Fine-tune the full network together with its subnet of depth d in three phases (Sec. 3.3), or as a recipe says.

    Raises:
        ValueError: a depth without phases in the config, or a recipe that it does not have.
        CheckpointError: a base checkpoint of another shape.
    """
    recipe = config.recipe(supernet.recipe)
    depths = config.supernet.depths if recipe.shared else (supernet.depth,)
    for depth in depths:
        if depth not in config.supernet.phases:
            raise ValueError(f"supernet.phases has no entry for depth {depth}")
    settings, seed = config.supernet.training, config.seed + supernet.seed
    model = build_transformer(config)
    load_weights(base, model)
    tokens = TokenBatches(config, tokenizer, settings.batch_size, seed, cache)
    schedule = schedule_of(recipe, config.supernet.phases_of(supernet.depth, recipe))
    training = _TokenTraining(model, tokens, settings, schedule, [config.plan(d, recipe.bridge) for d in depths],
                              settings.batches_per_epoch, recipe.distillation,
                              validate_every=1 if recipe.automatic else recipe.validate_every,
                              keep_after=config.supernet.kept_epochs(supernet.depth, recipe))
    name = supernet.weights(config)
    training.run(output, name, seed, {"kind": "supernet", "subnet_depths": depths, "recipe": supernet.recipe},
                 [config.digest(*supernet.depends(config)), name, sha256_of(tokenizer), sha256_of(base)])


def copy_kept_weights(supernet: Path, epoch: int, output: Path) -> None:
    """The weights that the training of a supernet kept after an epoch, under the name of a network of their own.

    Raises:
        CheckpointError: it kept none, or those that lie there are another training's.
    """
    kept = supernet.parent / f"training-{supernet.stem}" / f"epoch-{epoch}.safetensors"
    if not kept.exists():
        raise CheckpointError(f"{kept}: the training of {supernet} keeps its weights there, and they are gone; delete "
                              f"{supernet} to train it again")
    if read_description(kept).get("settings") != read_description(supernet).get("settings"):
        raise CheckpointError(f"{kept} is of another training than {supernet}; delete both to train again")
    link_or_copy(kept, output)


@dataclass
class _TokenTraining:
    """Teacher-forced training; each batch runs a subnet's plan with the probability of its epoch, else all layers.

    Attributes:
        subnets: plans that a subnet batch draws from; none for plain training.
        batches_per_epoch: None passes over all data.
        distillation: weight of the full network's prediction as target of subnet batches.
        validate_every: epochs between validations; an automatic schedule needs 1.
        keep_after: epochs after which the weights are kept beside the curves, as ``epoch-<n>.safetensors``.
    """

    model: VAR
    tokens: TokenBatches
    settings: BaseTraining | SupernetTraining
    schedule: Schedule
    subnets: Sequence[DepthPlan] = ()
    batches_per_epoch: int | None = None
    distillation: float = 0.0
    validate_every: int = 0
    keep_after: Sequence[int] = ()
    curves: Curves = field(init=False)
    pending: list[Validation] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        model = self.model
        self.full = DepthPlan.full(model.spec.depth, model.pyramid.num_scales)
        self.per_epoch = self.batches_per_epoch or self.tokens.per_epoch
        self.curves = Curves()
        kept = {layer for plan in self.subnets for layer in plan.layers(plan.num_scales)}
        rest = set(range(model.spec.depth)) - kept
        if kept and rest:
            groups = {"shared": [f"blocks.{layer}." for layer in sorted(kept)],
                      "full_only": [f"blocks.{layer}." for layer in sorted(rest)]}
            probe = self._zone_losses if self._bridge_tokens else None
            self.curves = Curves(groups, probe=probe, probe_every=self.per_epoch)

    def run(self, output: Path, name: str, seed: int, description: dict, inputs: Sequence[str]) -> None:
        """Train and write the weights; a stopped training goes on where it was.

        Args:
            inputs: digests of all that the result depends on, but for the images of a folder.
        """
        identity = ":".join([*inputs, *self.tokens.digests(held_out=self.validate_every > 0)])
        work_dir = output.parent / f"training-{name}"

        def finish(losses: list[float]) -> None:
            save_weights(output, self.model, description | {"settings": identity, "final_loss": losses[-1]})

        def before_step(step: int) -> None:
            epoch, begun = divmod(step, self.per_epoch)
            if begun == 0 and epoch in self.keep_after:
                state = whole(self.model.state_dict())
                if is_main_process():
                    save_tensors(work_dir / f"epoch-{epoch}.safetensors", state,
                                 description | {"settings": identity, "epoch": epoch})
            self._validate(step)

        fit(self.model, loss_of_part=self._loss, steps=self.schedule.epochs * self.per_epoch, settings=self.settings,
            seed=seed, work_dir=work_dir, identity=identity, title=name, curves=self.curves, finish=finish,
            before_step=before_step, precision=self.settings.precision)

    def _loss(self, step: int, part: Part) -> Tensor:
        plan, (label_B, x_BLv, idx_BL, mix) = self._batch(step, part)
        class_BC = mixed_classes(self.model, label_B, mix)
        logits_BLV = self.model(label_B, x_BLv, plan, class_BC)
        loss = token_loss(logits_BLV, idx_BL)
        name = "full" if plan is self.full else "subnet"
        self.curves.record(f"loss/{name}", loss)
        for k, scale_loss in scale_losses(logits_BLV.detach(), idx_BL, self.model.pyramid).items():
            self.curves.record(f"loss/{name}/r{k}", scale_loss)
        if self.distillation and plan is not self.full:
            with torch.no_grad():
                wanted_BLV = self.model(label_B, x_BLv, self.full, class_BC)
            divergence = prediction_divergence(wanted_BLV, logits_BLV)
            self.curves.record("loss/distillation", divergence)
            loss = (1 - self.distillation) * loss + self.distillation * divergence
        return loss

    def _batch(self, step: int, part: Part) -> tuple[DepthPlan, Batch]:
        """Plan and rows of a part; plan and dropped labels are drawn for the whole batch."""
        probability = self.schedule.subnet_probability(step // self.per_epoch + 1, self._validation())
        plan = self.full
        if torch.rand(()).item() < probability:
            # A single subnet takes no draw: the stream is that of a training that has only one.
            chosen = int(torch.randint(len(self.subnets), ())) if len(self.subnets) > 1 else 0
            plan = self.subnets[chosen]
        return plan, self.tokens.batch(step, part)

    @property
    def _bridge_tokens(self) -> int:
        """Tokens of the scales before the subnets begin; 0 where there is no such zone, or nothing but it."""
        plan = self.subnets[0]
        scales = [k for k in range(1, plan.num_scales + 1) if len(plan.layers(k)) == plan.depth]
        return self.model.pyramid.end(len(scales)) if 0 < len(scales) < plan.num_scales else 0

    def _zone_losses(self, step: int, part: Part) -> dict[str, Tensor]:
        """The two zones' shares of the loss: their gradients add up to the step's (Fig. 3b)."""
        plan, (label_B, x_BLv, idx_BL, mix) = self._batch(step, part)
        class_BC, end = mixed_classes(self.model, label_B, mix), self._bridge_tokens
        logits_BLV = self.model(label_B, x_BLv, plan, class_BC)
        return {"bridge": token_loss(logits_BLV[:, :end], idx_BL[:, :end]) * (end / idx_BL.shape[1]),
                "flexible": token_loss(logits_BLV[:, end:], idx_BL[:, end:]) * (1 - end / idx_BL.shape[1])}

    def _validate(self, step: int) -> None:
        """Every so many epochs: losses on images not trained on, for schedules that look at them, and for figures."""
        self.pending = []
        if not self.validate_every or step == 0 or step % (self.validate_every * self.per_epoch):
            return
        self.model.eval()
        plans, device = (*self.subnets, self.full), next(self.model.parameters()).device
        sums = torch.zeros(len(plans) + 1, dtype=torch.float64)  # of the losses, and of the images
        with torch.no_grad():
            for label_B, x_BLv, idx_BL, _ in self.tokens.held_out(device):
                sums[:-1] += len(idx_BL) * torch.tensor([token_loss(self.model(label_B, x_BLv, plan), idx_BL).item()
                                                         for plan in plans], dtype=torch.float64)
                sums[-1] += len(idx_BL)
        self.model.train()
        sums = sum_over_processes(sums)  # each has a share of the images, and all must find the same
        losses = (sums[:-1] / sums[-1]).tolist()
        # Rounded as the curves keep them, so that a resumed run reads the same.
        found = Validation(*(float(np.float32(loss)) for loss in (sum(losses[:-1]) / len(losses[:-1]), losses[-1])))
        self.pending = [found]
        for name, value in found._asdict().items():
            self.curves.record(f"validation/{name}", value)

    def _validation(self) -> list[Validation]:
        """Of all epochs before this one: the curves', and what this step has found, which they get at its end."""
        series = (self.curves.series(f"validation/{name}") for name in Validation._fields)
        return [*map(Validation, *series), *self.pending]


def scale_losses(logits_BLV: Tensor, idx_BL: Tensor, pyramid: Pyramid) -> dict[int, Tensor]:
    """Mean cross-entropy of each scale 1..K."""
    loss_BL = F.cross_entropy(logits_BLV.flatten(0, 1), idx_BL.flatten(), reduction="none").view_as(idx_BL)
    return {k: loss_BL[:, pyramid.begin(k):pyramid.end(k)].mean() for k in pyramid.scales}
