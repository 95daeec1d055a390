"""Which supernets there are to train, and by which schedule each; imports no torch, the workflow asks it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from varient.config import ExperimentConfig, Recipe
from varient.training.schedule import AutomaticSchedule, FixedRatioSchedule, ProgressiveSchedule, Schedule

_WEIGHTS = re.compile(r"supernet(-d(?P<depth>\d+))?(-(?P<recipe>p\d+|[a-z]{2}[a-z0-9]*))?(-s(?P<seed>[1-9]\d*))?")


@dataclass(frozen=True)
class Supernet:
    """A supernet to train: what its weight file is called, and how it comes about.

    Attributes:
        depth: d; of a shared supernet, any.
        recipe: name in the config; None is the paper's.
        seed: added to the experiment's.
    """

    depth: int
    recipe: str | None = None
    seed: int = 0

    def weights(self, config: ExperimentConfig) -> str:
        """`supernet-d16`, `supernet-d16-p50-s1`, or `supernet-multi` where one serves all depths."""
        parts = [] if config.recipe(self.recipe).shared else [f"d{self.depth}"]
        parts += [self.recipe] if self.recipe else []
        return "-".join(["supernet", *parts, *([f"s{self.seed}"] if self.seed else [])])

    def depends(self, config: ExperimentConfig) -> tuple[str, ...]:
        """Config sections that its weights depend on; other recipes are none of them, nor are other depths as a rule.

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
    match = _WEIGHTS.fullmatch(weights)
    if not match or (match["depth"] is None and match["recipe"] is None):
        raise ValueError(f"{weights!r} is no supernet; they are called supernet-d<d>[-<recipe>][-s<seed>]")
    depth = int(match["depth"]) if match["depth"] else min(config.supernet.depths)
    found = Supernet(depth, match["recipe"], int(match["seed"] or 0))
    if depth not in config.supernet.depths or found.weights(config) != weights:
        raise ValueError(f"{weights!r} is no supernet of {config.name}")
    return found


def schedule_of(recipe: Recipe, phases: tuple[int, int, int]) -> Schedule:
    """The schedule of a recipe; all have as many epochs as the three phases together."""
    if recipe.ratio is not None:
        return FixedRatioSchedule(sum(phases), recipe.ratio)
    return AutomaticSchedule(sum(phases)) if recipe.automatic else ProgressiveSchedule(phases)
