"""Course of a training of the VAR transformer: depth plans, schedule, epochs.

Used by the trainings and by the cost model; imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from varient.config import BaseTraining, ExperimentConfig, SupernetTraining
from varient.plan import DepthPlan
from varient.systems.names import BaseId
from varient.training.recipes import Supernet, schedule_of
from varient.training.schedule import FixedRatioSchedule, Schedule

_BASE = BaseId()
PROBED_ROWS = 32
"""Number of rows on which a gradient probe is computed: it retains its graph over several backward passes, so its
memory use is higher than that of a training step."""


@dataclass(frozen=True)
class Course:
    """Settings of a training of the transformer, without weights and images.

    Attributes:
        name: of the weights.
        settings: of the optimizer.
        schedule: probability of training a subnet instead of the full network.
        full: the plan of the full network.
        subnets: d -> plan; each subnet batch trains a random one.  Empty for plain training.
        batches_per_epoch: None: a full pass over the images.
        distillation: weight of the distillation loss from the full network in subnet batches.
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
        """Layers that some subnet runs at the last scale (`shared`) and the others (`full_only`), if both exist."""
        shared = {layer for plan in self.subnets.values() for layer in plan.layers(plan.num_scales)}
        full_only = set(range(self.full.depth)) - shared
        return {"shared": sorted(shared), "full_only": sorted(full_only)} if shared and full_only else {}

    @property
    def bridge(self) -> int:
        """N, the number of full-depth scales before the subnets begin; 0 if there are none or only such scales."""
        plan = next(iter(self.subnets.values()), self.full)
        scales = [k for k in range(1, plan.num_scales + 1) if len(plan.layers(k)) == plan.depth]
        return len(scales) if len(scales) < plan.num_scales else 0

    @property
    def probed(self) -> bool:
        """Whether gradients are probed for each zone: this needs two zones and two groups of layers."""
        return bool(self.bridge and self.layers)


def base_course(config: ExperimentConfig, base: BaseId = _BASE) -> Course:
    """The training of the full network from scratch.

    Raises:
        ValueError: the config imports it.
    """
    settings = config.base.training
    if settings is None:
        raise ValueError(f"{config.name}: the full network is read from {config.base.weights}, no training starts")
    return Course(str(base), settings, FixedRatioSchedule(settings.epochs, 0.0), config.plan())


def supernet_course(config: ExperimentConfig, supernet: Supernet) -> Course:
    """The fine-tuning of the full network together with its subnet, or its subnets.

    Raises:
        ValueError: the config has no phases for the depth, or no such recipe.
    """
    recipe = config.recipe(supernet.recipe)
    depths = config.supernet.depths if recipe.shared else (supernet.depth,)
    for depth in depths:
        if depth not in config.supernet.phases:
            raise ValueError(f"supernet.phases has no entry for depth {depth}")
    return Course(
        supernet.weights(config), config.supernet.training_of(recipe),
        schedule_of(recipe, config.supernet.phases_of(supernet.depth, recipe), config.seed + supernet.seed),
        config.plan(),
        subnets={depth: config.plan(depth, recipe.bridge) for depth in depths},
        batches_per_epoch=config.supernet.training.batches_per_epoch, distillation=recipe.distillation,
        validate_every=1 if recipe.automatic else recipe.validate_every,
        keep_after=config.supernet.kept_epochs(supernet.depth, recipe))
