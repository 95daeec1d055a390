"""What a training of the VAR transformer runs, and when: plans, schedule, epochs.

Trainings follow it and the costs of trainings are counted from it; imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from varient.config import BaseTraining, ExperimentConfig, SupernetTraining
from varient.plan import DepthPlan
from varient.training.recipes import Supernet, schedule_of
from varient.training.schedule import FixedRatioSchedule, Schedule

PROBED_ROWS = 32
"""Most rows of a part that a probe should differentiate: its graph outlives a backward, a training's does not."""


@dataclass(frozen=True)
class Course:
    """A training of the transformer but for its weights and images.

    Attributes:
        name: of the weights.
        settings: of the optimizer.
        schedule: how often a subnet takes the place of the full network.
        full: the plan of the full network.
        subnets: d -> plan, of which a subnet batch draws one; none for plain training.
        batches_per_epoch: None passes over all images.
        distillation: weight of the full network's prediction as target of subnet batches.
        validate_every: epochs between validations, 0 for none; an automatic schedule needs 1.
        keep_after: epochs after which the weights are kept.
    """

    name: str
    settings: BaseTraining | SupernetTraining
    schedule: Schedule
    full: DepthPlan
    subnets: Mapping[int, DepthPlan] = field(default_factory=dict)
    batches_per_epoch: int | None = None
    distillation: float = 0.0
    validate_every: int = 0
    keep_after: Sequence[int] = ()

    @property
    def layers(self) -> dict[str, list[int]]:
        """Layers that the last scale of some subnet runs (`shared`) and the others (`full_only`), if there are both."""
        shared = {layer for plan in self.subnets.values() for layer in plan.layers(plan.num_scales)}
        full_only = set(range(self.full.depth)) - shared
        return {"shared": sorted(shared), "full_only": sorted(full_only)} if shared and full_only else {}

    @property
    def bridge(self) -> int:
        """N, the scales before the subnets begin; 0 where there is no such zone, or nothing but it."""
        plan = next(iter(self.subnets.values()), self.full)
        scales = [k for k in range(1, plan.num_scales + 1) if len(plan.layers(k)) == plan.depth]
        return len(scales) if len(scales) < plan.num_scales else 0

    @property
    def probed(self) -> bool:
        """Whether the gradients of the two zones are measured apart: there are two zones and two kinds of layers."""
        return bool(self.bridge and self.layers)


def base_course(config: ExperimentConfig) -> Course:
    """The training of the full network from scratch.

    Raises:
        ValueError: the config imports it.
    """
    settings = config.base.training
    if settings is None:
        raise ValueError(f"{config.name}: the full network is read from {config.base.weights}, no training starts")
    return Course("base", settings, FixedRatioSchedule(settings.epochs, 0.0), config.plan())


def supernet_course(config: ExperimentConfig, supernet: Supernet) -> Course:
    """The fine-tuning of the full network together with its subnet, or its subnets.

    Raises:
        ValueError: a depth without phases in the config, or a recipe that it does not have.
    """
    recipe = config.recipe(supernet.recipe)
    depths = config.supernet.depths if recipe.shared else (supernet.depth,)
    for depth in depths:
        if depth not in config.supernet.phases:
            raise ValueError(f"supernet.phases has no entry for depth {depth}")
    return Course(
        supernet.weights(config), config.supernet.training,
        schedule_of(recipe, config.supernet.phases_of(supernet.depth, recipe)), config.plan(),
        subnets={depth: config.plan(depth, recipe.bridge) for depth in depths},
        batches_per_epoch=config.supernet.training.batches_per_epoch, distillation=recipe.distillation,
        validate_every=1 if recipe.automatic else recipe.validate_every,
        keep_after=config.supernet.kept_epochs(supernet.depth, recipe))
