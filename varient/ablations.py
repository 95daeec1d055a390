"""The arms of the ablations: which systems each comparison consists of.  Imports no torch; the workflow uses it.

| comparison | what differs | paper |
|---|---|---|
| zones | at which scales an untrained subnet runs | Table 1 |
| ratios | p(subnet): fixed, against the three phases | Fig. 2a |
| stages | the fixed ratios, at the end of phase 1 | Fig. 2c |
| refinement | a three-phase training before and after its third phase, also at the depths `refined` | Sec. 3.3.2 |
| evolution | a subnet at the end of each phase | Fig. 7 |
| bridge | with and without full depth at the first scales in training | Table 5 |
| grid | d, and N in sampling; the supernets are trained with the config's N | Table 8 |
| exposures | the same number of subnet batches in another order, or another end | |
| rates | learning rate of the training | |
| bases | base network from which a training starts | |
| plain | full networks sampled without guidance and filters | |
| extensions | recipes that the paper does not have | |

Ratios and bridge are also compared at the depths `further`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from varient.config import AblationConfig, ConfigError, ExperimentConfig
from varient.systems.ids import VarId
from varient.systems.registry import resolve_system

THREE_PHASES = "three phases"
"""Label of the paper's training."""
OF_BASE = ", base "
"""What stands before the number of the base network in labels."""
SKIP_ALL = "skip all"
"""Label of the training without a bridge."""


@dataclass(frozen=True)
class Arm:
    """One system in one comparison.

    Attributes:
        comparison: see the module's table.
        arm: label of the variant within the comparison, such as "p = 0.5".
        depth: d of the subnet; D for the base network.
        seed: seed of the training, added to the experiment's seed.
        network: `subnet` or `full`.
        id: id of the system.
    """

    comparison: str
    arm: str
    depth: int
    seed: int
    network: str
    id: VarId

    @property
    def system(self) -> str:
        """The id as text."""
        return str(self.id)


def arms(config: ExperimentConfig) -> list[Arm]:
    """All arms of the experiment.

    Raises:
        ConfigError: no ablations in the config, an arm whose system does not exist in it, or one that is named twice.
    """
    settings = config.ablations
    if settings is None:
        raise ConfigError(f"{config.name} has no section 'ablations'")
    parts = (_zones, _ratios, _stages, _refinement, _evolution, _bridge, _grid, _exposures, _rates, _bases, _plain,
             _extensions)
    found = [arm for part in parts for arm in part(config, settings)]
    trainings: dict[tuple, Arm] = {}
    for arm in found:
        training = (arm.comparison, arm.arm, arm.depth, arm.seed, arm.network)
        if (other := trainings.setdefault(training, arm)) is not arm:
            raise ConfigError(f"ablations: {arm.comparison}, {arm.arm!r} of d = {arm.depth}: {_named(other, arm)}; a "
                              "mean over trainings would count it as two")
        try:
            resolve_system(arm.system, config)
        except ValueError as error:
            raise ConfigError(f"ablations: {error}") from None
    return found


def _named(first: Arm, second: Arm) -> str:
    """How two arms are one training of one arm."""
    return f"{first.system} is named twice" if first.id == second.id else (
        f"{first.system} and {second.system} are told apart by nothing but their recipes' names")


def arms_of(config: ExperimentConfig, *comparisons: str) -> list[Arm]:
    """The arms of the given comparisons; none if the experiment has no ablations."""
    return [arm for arm in arms(config) if arm.comparison in comparisons] if config.ablations else []


def _zones(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    for depth in settings.zone_depths:
        for first, last in settings.zones:
            yield Arm("zones", f"r{first}-r{last}", depth, 0, "subnet",
                      zone_system(depth, first, last, bridge=config.supernet.bridge,
                                  num_scales=len(config.patch_nums)))
    full = config.transformer.depth
    yield Arm("zones", "none", full, 0, "full", VarId("var", full))


def zone_system(depth: int, first: int, last: int, *, bridge: int, num_scales: int) -> VarId:
    """Id of the untrained subnet that runs at the scales first..last.

    If these are the scales after the bridge zone, it is the id of the untrained subnet in Table 4.
    """
    return VarId("free", depth, window=None if (first, last) == (bridge + 1, num_scales) else (first, last))


def bridge_system(depth: int, sampled: int, *, bridge: int, num_scales: int) -> VarId:
    """Id of a subnet that is trained with N = ``bridge`` and sampled with N = ``sampled``.

    With all scales in the bridge zone this is the full network, so its id is returned and its images are reused.
    """
    if sampled == num_scales:
        return VarId("variant", depth, full=True)
    return VarId("variant", depth, bridge=None if sampled == bridge else sampled)


def _pair(comparison: str, arm: str, depth: int, recipe: str | None, seeds: int, epoch: int | None = None,
          base: int = 0) -> Iterator[Arm]:
    """Subnet and full network of a supernet for each seed: at the end of training, or after ``epoch``."""
    for seed in range(seeds):
        subnet = VarId("variant", depth, recipe, seed, epoch, base=base)
        yield Arm(comparison, arm, depth, seed, "subnet", subnet)
        yield Arm(comparison, arm, depth, seed, "full", replace(subnet, full=True))


def _ratios(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    for depth, there in settings.by_depth.items():
        if there.ratios:
            yield from _pair("ratios", THREE_PHASES, depth, None, there.seeds)
        for name, trainings in there.ratios.items():
            yield from _pair("ratios", _ratio(config, name), depth, name, trainings)


def _stages(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    depth = settings.depth
    for name in settings.stages:
        for epoch in config.supernet.kept_epochs(depth, config.recipe(name))[:1]:
            yield from _pair("stages", f"{_ratio(config, name)}, epoch {epoch}", depth, name, 1, epoch)


def _refinement(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    """Both networks before and after the third phase.  Every training keeps both weights, so no training is added."""
    trained = {settings.depth: settings.seeds} if settings.ratios else {}
    for depth, trainings in (trained | dict.fromkeys(settings.refined, 1)).items():
        first, second, third = config.supernet.phases_of(depth, config.recipe(None))
        if second and third:
            yield from _pair("refinement", f"epoch {first + second}, end of phase 2", depth, None, trainings,
                             first + second)
            yield from _pair("refinement", f"epoch {first + second + third}, end of phase 3", depth, None, trainings)


def _ratio(config: ExperimentConfig, name: str) -> str:
    """Label of a recipe with a fixed ratio.  The paper's ratios begin at 0.1; p = 0 is a control that we added.

    Raises:
        ConfigError: the recipe has no fixed ratio.
    """
    if (ratio := config.recipe(name).ratio) is None:
        raise ConfigError(f"ablations: recipe {name!r} has no fixed ratio")
    return f"p = {ratio:g}" if ratio else "p = 0, control"


def _evolution(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    for depth in settings.evolution:
        for epoch in config.supernet.kept_epochs(depth, config.recipe(None)):
            yield Arm("evolution", f"epoch {epoch}", depth, 0, "subnet", VarId("variant", depth, epoch=epoch))
        last = sum(config.supernet.phases[depth])
        yield Arm("evolution", f"epoch {last}", depth, 0, "subnet", VarId("variant", depth))


def _bridge(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    for depth, there in settings.by_depth.items():
        if there.skip_all:
            yield from _pair("bridge", f"N = {config.supernet.bridge}", depth, None, there.seeds)
            yield from _pair("bridge", SKIP_ALL, depth, there.skip_all, there.seeds)


def _grid(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    for depth in config.supernet.depths:
        for bridge in settings.bridges:
            yield Arm("grid", f"N = {bridge}", depth, 0, "subnet",
                      bridge_system(depth, bridge, bridge=config.supernet.bridge, num_scales=len(config.patch_nums)))


def _exposures(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    if settings.exposures:
        yield from _pair("exposures", THREE_PHASES, settings.depth, None, settings.seeds)
    for name, trainings in settings.exposures.items():
        yield from _pair("exposures", _label(config, name), settings.depth, name, trainings)


def _rates(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    for name in (None, *settings.rates) if settings.rates else ():
        recipe = config.recipe(name)
        training = config.supernet.training_of(recipe)
        way = THREE_PHASES if recipe.ratio is None else _label(config, name)
        decay = "" if training.schedule == "constant" else f", {training.schedule}"
        yield from _pair("rates", f"{way}, learning rate {training.learning_rate:g}{decay}", settings.depth, name, 1)


def _bases(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    """Each base network, and trainings of one seed that start from it; the first base is the experiment's own."""
    full = config.transformer.depth
    for base in range(settings.bases + 1) if settings.bases else ():
        yield Arm("bases", f"base network{OF_BASE}{base}", full, 0, "full", VarId("var", full, base=base))
        for name in (None, *settings.on_bases):
            yield from _pair("bases", f"{_label(config, name)}{OF_BASE}{base}", settings.depth, name, 1, base=base)


def _plain(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    if not settings.plain:
        return
    full = config.transformer.depth
    yield Arm("plain", "base", full, 0, "full", VarId("var", full, plain=True))
    for name in (None, *settings.plain):
        for seed in range(settings.ratios.get(name, 1) if name else settings.seeds):
            yield Arm("plain", _label(config, name), settings.depth, seed, "full",
                      VarId("variant", settings.depth, name, seed, full=True, plain=True))


def _label(config: ExperimentConfig, name: str | None) -> str:
    """Label of a recipe: its fixed ratio, or its name."""
    if name is None:
        return THREE_PHASES
    if name == (config.ablations and config.ablations.skip_all):
        return SKIP_ALL
    return name if config.recipe(name).ratio is None else _ratio(config, name)


def _extensions(config: ExperimentConfig, settings: AblationConfig) -> Iterator[Arm]:
    for name in settings.extensions:
        depths = config.supernet.depths if config.recipe(name).shared else (settings.depth,)
        for depth in depths:
            yield from _pair("extensions", name, depth, name, 1)

