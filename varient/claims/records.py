"""Find the records of an experiment that correspond to a quantity of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache, cached_property

from varient.ablations import arms
from varient.claims.claims import FULL, ratio_of
from varient.config import ExperimentConfig
from varient.paper_size import (
    NUM_IMAGES,
    PROTOCOL,
    UNKNOWN_WEIGHTS,
    differences,
    is_meant,
    record_differences,
    unknown_files,
)
from varient.records import CPU, ProfileRecord, ScoreRecord
from varient.results import AnyRecord, Results, comparable
from varient.systems.ids import VarId, base_system, parse
from varient.systems.registry import networks_of, resolve_system
from varient.targets import make_command

SKIP_ALL = "skip"
"""In ids of the paper's systems, the recipe without a bridge zone."""


def scores_command(experiment: str, *systems: str) -> str:
    """Makes the score records of systems: by the first table that has them all, else by the ablations."""
    targets = set(map(_target, systems))
    target = targets.pop() if len(targets) == 1 else "ablations.csv"
    return make_command("results", target, experiment)


def _target(system: str) -> str:
    """The first table that shows a system: Table 2, Table 4, or that of all ablations."""
    found = parse(system)
    if isinstance(found, VarId):
        if found != VarId(found.kind, found.depth, full=found.full):
            return "ablations.csv"
        return "table4.csv" if found.free or found.full else "table2.csv"
    return "ablations.csv" if found is None or found.free else "table2.csv"


def claims_command(experiment: str) -> str:
    """Judges the records that an experiment has."""
    return (f"varient claims --config workflow/config/{experiment}.yaml --found-in runs/{experiment} "
            f"--output runs/{experiment}/claims")


class Records:
    """The records of one experiment that can stand beside each other, asked for by ids at the paper's size.

    Args:
        results: any; what cannot stand beside the rest is left out, and named in `results.remarks`.  Of the paper's
            experiment that is also what a CPU has drawn or timed.
    """

    def __init__(self, config: ExperimentConfig, results: Results) -> None:
        self.config = config
        found = comparable(config.name, results)
        self.results = _without_cpus(found) if self.at_paper_size else found
        self.all_profiles = results.all_profiles
        """Those of other experiments and settings too: for whoever asks for one setting."""
        self._networks = cache(self._networks_of)

    @property
    def at_paper_size(self) -> bool:
        """Whether this goes by the paper's experiment, and not by one in miniature."""
        return is_meant(self.config)

    @cached_property
    def why_not_the_papers(self) -> str:
        """Why nothing of this experiment can be held against the paper's; empty where it can."""
        return "; ".join(differences(self.config))

    def why_incomparable(self, system: str, field: str) -> str:
        """Why a score of a system and its replicas here cannot be held against the paper's; empty where it can."""
        found = [record for name in self.replicas(system) if (record := self.score(name))]
        reasons = [reason for record in found for reason in self._reasons(record, field)]
        return ", ".join(dict.fromkeys(reasons))

    def _reasons(self, record: ScoreRecord, field: str) -> Iterator[str]:
        if self.why_not_the_papers:
            yield f"not the paper's experiment ({self.why_not_the_papers})"
        if record.protocol != PROTOCOL:
            yield f"{record.system} is scored by the protocol {record.protocol}, the paper by {PROTOCOL}"
        if {self.config.sampling.num_images, NUM_IMAGES} != {record.num_images}:
            yield (f"{record.system} is scored on {record.num_images} images, the config asks for "
                   f"{self.config.sampling.num_images} and the paper's protocol for {NUM_IMAGES}")
        for why in record_differences(self.config, record):
            yield f"{record.system} is not as the config says: {why}"
        if unknown := unknown_files(self.config, [record]):
            yield f"{UNKNOWN_WEIGHTS}: {unknown}"
        if getattr(record, f"{field}_sd") is None:
            yield f"no standard deviation says how far the {field.replace('_', ' ')} of {record.system} may be off"

    @property
    def ratios(self) -> tuple[int, ...]:
        """p(subnet) of the fixed ratios that are trained here, in percent; p = 0 is a control and none of them."""
        names = self.config.ablations.ratios if self.config.ablations else ()
        return tuple(percent for name in names if (percent := _percent(self.config.recipe(name).ratio)))

    def trained_here(self, system: str) -> bool:
        """Whether a network of it that draws tokens comes from a training of the experiment."""
        return not self._networks(system) <= self._released

    @cached_property
    def _released(self) -> set[str]:
        """Networks whose weights others have released, and the image tokenizer, which is no part of a comparison."""
        base = {"base"} if self.config.base.weights else set()
        return {"tokenizer", *base, *(name for name, made in networks_of(self.config).items() if made.released)}

    def fine_tuned(self, system: str) -> bool:
        """Whether it is a supernet's: its training begins at the base network, which its seeds do not vary."""
        return any(name.startswith("supernet") for name in self._networks(system))

    def _networks_of(self, system: str) -> set[str]:
        return set(resolve_system(system, self.config).weights)

    def here(self, system: str, *, ablated: bool = False) -> str | None:
        """The id here of a system of the paper; None where the experiment has no counterpart.

        Args:
            ablated: the depth is that of the experiment's ablations, whatever the paper's was.
        """
        if system == FULL:
            return base_system(self.config)
        found = VarId.parse(system)
        if found is None:
            return next((row for row in self.config.rows if resolve_system(row, self.config).published_as == system),
                        None)
        settings = self.config.ablations
        depth = settings and settings.depth if ablated else self.config.counterpart(found.depth)
        if not depth:
            return None
        recipe, epoch = self._recipe(found), self._epoch(depth, found.phase)
        if (found.recipe and not recipe) or (found.phase and not epoch):
            return None
        return str(replace(found, depth=depth, recipe=recipe, phase=None, epoch=epoch))

    def score(self, system: str) -> ScoreRecord | None:
        """The score record of a system here; of the paper's experiment, of images that a GPU drew.

        An untrained subnet in the flexible zone has two ids, one of them by its window of scales.
        """
        first, last = self.config.supernet.bridge + 1, len(self.config.patch_nums)
        found = (self.results.scores.get(name) for name in (system, f"{system}-r{first}to{last}"))
        return next(filter(None, found), None)

    def replicas(self, system: str) -> tuple[str, ...]:
        """The system and those that differ from it in the seed of their training alone."""
        return max((group for group in self.groups if system in group), key=len, default=(system,))

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Systems of the ablations that differ in the seed alone."""
        found: dict[tuple[str, str, int, str], list[str]] = {}
        for arm in arms(self.config) if self.config.ablations else ():
            found.setdefault((arm.comparison, arm.arm, arm.depth, arm.network), []).append(arm.system)
        return tuple(dict.fromkeys(tuple(group) for group in found.values()))

    def profile(self, system: str) -> ProfileRecord | None:
        """The profile record of a system here; of the paper's experiment, one made on a GPU."""
        return self.results.profiles.get(system)

    def _recipe(self, system: VarId) -> str | None:
        """The recipe here of a system of the paper; None where it has none, or the experiment has no counterpart."""
        settings = self.config.ablations
        if system.recipe is None or settings is None:
            return None
        if system.recipe == SKIP_ALL:
            return settings.skip_all
        if (wanted := ratio_of(system)) is None:
            return None
        return next((name for name in settings.ratios if _percent(self.config.recipe(name).ratio) == wanted), None)

    def _epoch(self, depth: int, phase: int | None) -> int | None:
        """The epoch here at which a phase ends, if the weights of then are kept."""
        settings, recipe = self.config.supernet, self.config.recipe(None)
        end = settings.end_of_phase(phase, depth, recipe) if phase else None
        return end if end in settings.kept_epochs(depth, recipe) else None


def _without_cpus(results: Results) -> Results:
    """What a GPU drew or timed; the remarks count the rest.  Where a score was computed does not matter."""
    scores, profiles = _from_gpus(results.scores), _from_gpus(results.profiles)
    remarks = list(results.remarks)
    for kind, made, left_out in (
            ("score", "whose images a CPU drew", [name for name in results.scores if name not in scores]),
            ("profile", "measured on a CPU", [name for name in results.profiles if name not in profiles])):
        if left_out:
            remarks.append(f"{len(left_out)} {kind} records {made}, of {', '.join(left_out)}")
    return replace(results, scores=scores, profiles=profiles, remarks=tuple(remarks))


def _from_gpus(records: Mapping[str, AnyRecord]) -> dict[str, AnyRecord]:
    return {name: record for name, record in records.items() if not record.provenance.made_on.startswith(CPU)}


def _percent(ratio: float | None) -> int | None:
    return None if ratio is None else round(100 * ratio)
