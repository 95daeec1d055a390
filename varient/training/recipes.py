"""The supernets to train, and their schedules.  Imports no torch; the workflow uses it."""

from __future__ import annotations

from dataclasses import dataclass

from varient.config import ExperimentConfig, Recipe
from varient.systems.names import BaseId, SupernetId
from varient.training.schedule import (
    AutomaticSchedule,
    FixedRatioSchedule,
    ProgressiveSchedule,
    ReorderedSchedule,
    Schedule,
)


@dataclass(frozen=True)
class Supernet:
    """A supernet training: the name of its weight file and the settings that it depends on.

    Attributes:
        depth: d; for a shared supernet, any of its depths.
        recipe: name of the recipe in the config; None: the paper's.
        seed: added to the experiment's seed.
        base: seed of the base network that it starts from, added to the experiment's seed.
    """

    depth: int
    recipe: str | None = None
    seed: int = 0
    base: int = 0

    def weights(self, config: ExperimentConfig, epoch: int | None = None) -> str:
        """Name of its weights at the end, or after an epoch; without the depth if the supernet is shared."""
        shared = config.recipe(self.recipe).shared
        return str(SupernetId(None if shared else self.depth, self.recipe, self.seed, epoch, self.base))

    @property
    def starts_from(self) -> str:
        """Name of the weights of its base network."""
        return str(BaseId(self.base))

    def depends(self, config: ExperimentConfig) -> tuple[str, ...]:
        """Config sections that its weights depend on, without other recipes and, if it is not shared, other depths.

        Raises:
            ValueError: a recipe that the config does not have.
        """
        settings, recipe = config.supernet, config.recipe(self.recipe)
        own = ["bridge", "selection", f"phases.{settings.paced_by(self.depth, recipe)}", "training"]
        if recipe.shared or settings.selection == "nested":
            own.append("depths")
        if self.recipe:
            own.append(f"recipes.{self.recipe}")
        return ("data", "patch_nums", "tokenizer", "transformer", "base", *(f"supernet.{key}" for key in own))


def supernet_of(weights: str, config: ExperimentConfig) -> Supernet:
    """The supernet whose weight file has that name.

    Raises:
        ValueError: a name that is none of the experiment's.
    """
    named = SupernetId.parse(weights)
    if named is None or named.epoch:
        raise ValueError(f"{weights!r} is no supernet; they are called supernet-d<d>[-<recipe>][-s<seed>]"
                         "[-b<base>]")
    depth = named.depth or min(config.supernet.depths)
    found = Supernet(depth, named.recipe, named.seed, named.base)
    if depth not in config.supernet.depths or found.weights(config) != weights:
        raise ValueError(f"{weights!r} is no supernet of {config.name}")
    return found


def schedule_of(recipe: Recipe, phases: tuple[int, int, int], seed: int = 0) -> Schedule:
    """The schedule of a recipe; all have as many epochs as the three phases together.

    Args:
        seed: of the training; a shuffled order depends on it.
    """
    if recipe.ratio is not None:
        return FixedRatioSchedule(sum(phases), recipe.ratio)
    if recipe.automatic:
        return AutomaticSchedule(sum(phases))
    phased = ProgressiveSchedule(phases, 1.0 if recipe.last_ratio is None else recipe.last_ratio)
    if recipe.order == "reversed":
        return ReorderedSchedule.reversed(phased)
    return ReorderedSchedule.shuffled(phased, seed) if recipe.order == "shuffled" else phased
