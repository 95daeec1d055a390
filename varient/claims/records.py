"""Find the records of an experiment that correspond to a quantity of the paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, cached_property

from varient.ablations import arms
from varient.claims.claims import FULL, ratio_of
from varient.config import ExperimentConfig
from varient.disturbance import disturbances
from varient.paper_size import (
    NUM_IMAGES,
    PROTOCOL,
    UNKNOWN_WEIGHTS,
    differences,
    is_meant,
    record_differences,
    unknown_files,
)
from varient.profile_records import ProfileRecord
from varient.records import CPU, ScoreRecord
from varient.results import AnyRecord, Results, comparable
from varient.systems.ids import VarId, base_system, parse
from varient.systems.registry import networks_of, resolve_system
from varient.targets import make_command

SKIP_ALL, SHARED = "skip", "multi"
"""In ids of the paper's systems, the recipe without a bridge zone, and that of one supernet for all depths."""


def scores_command(experiment: str, *systems: str) -> str:
    """Shell command that makes the score records of systems: the first table with all of them, else the ablations."""
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
    """Shell command that judges the records of an experiment."""
    return (f"varient claims --config workflow/config/{experiment}.yaml --found-in runs/{experiment} "
            f"--output runs/{experiment}/claims")


class Records:
    """The comparable records of one experiment, found by ids at the paper's size.

    Args:
        results: all records; those not comparable with the rest are left out, and named in `results.remarks`.  At the
            paper's size these include records of images drawn on a CPU, and profiles of a CPU.
    """

    def __init__(self, config: ExperimentConfig, results: Results) -> None:
        self.config = config
        found = comparable(config.name, results)
        self.results = _naming_disturbed(_without_cpus(found) if self.at_paper_size else found)
        self.all_profiles = (*results.all_profiles, *results.benchmarks)
        """All profile records, those of other experiments and settings included."""
        self._networks = cache(self._networks_of)

    @property
    def at_paper_size(self) -> bool:
        """Whether this is meant to be the paper's experiment, not a miniature."""
        return is_meant(self.config)

    @cached_property
    def why_not_the_papers(self) -> str:
        """Why no result of this experiment is comparable with the paper's; empty where they are."""
        return "; ".join(differences(self.config))

    def why_incomparable(self, system: str, field: str) -> str:
        """Why a score of a system and its replicas is not comparable with the paper's; empty where it is."""
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
        """p(subnet) of the fixed ratios of this experiment, in percent, without the control p = 0."""
        names = self.config.ablations.ratios if self.config.ablations else ()
        return tuple(percent for name in names if (percent := _percent(self.config.recipe(name).ratio)))

    def trained_here(self, system: str) -> bool:
        """Whether this experiment trains a network with which the system draws tokens."""
        return not self._networks(system) <= self._released

    @cached_property
    def _released(self) -> set[str]:
        """Networks with released weights, and the image tokenizer, which all systems share."""
        base = {"base"} if self.config.base.weights else set()
        return {"tokenizer", *base, *(name for name, made in networks_of(self.config).items() if made.released)}

    def fine_tuned(self, system: str) -> bool:
        """Whether it is fine-tuned from the base network as part of a supernet; seeds vary the fine-tuning alone."""
        return any(name.startswith("supernet") for name in self._networks(system))

    def _networks_of(self, system: str) -> set[str]:
        return set(resolve_system(system, self.config).weights)

    def here(self, system: str, *, depth: int | None = None) -> str | None:
        """The id in this experiment of a system of the paper; None where there is no counterpart.

        Args:
            depth: of a subnet of this experiment, to take in place of the counterpart of the paper's.
        """
        if system == FULL:
            return base_system(self.config)
        found = VarId.parse(system)
        if found is None:
            return next((row for row in self.config.rows if resolve_system(row, self.config).published_as == system),
                        None)
        if not (depth := depth or self.config.counterpart(found.depth)):
            return None
        recipe, epoch = self._recipe(found), self._epoch(depth, found.phase)
        if (found.recipe and not recipe) or (found.phase and not epoch):
            return None
        return str(replace(found, depth=depth, recipe=recipe, phase=None, epoch=epoch))

    def score(self, system: str) -> ScoreRecord | None:
        """The score record of a system of this experiment; at the paper's size, only one of images drawn on a GPU.

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

    def supernets(self, systems: Sequence[str]) -> frozenset[str]:
        """The supernets that draw these systems' tokens."""
        return frozenset(name for system in systems for name in self._networks(system) if name.startswith("supernet"))

    def profile(self, system: str) -> ProfileRecord | None:
        """The profile record of a system of this experiment; at the paper's size, only one made on a GPU."""
        return self.results.profiles.get(system)

    def _recipe(self, system: VarId) -> str | None:
        """The recipe that corresponds to that of a system of the paper; None without one."""
        settings = self.config.ablations
        if system.recipe is None or settings is None:
            return None
        if system.recipe == SKIP_ALL:
            return settings.skip_all
        if system.recipe == SHARED:
            return next((name for name in settings.extensions if self.config.recipe(name).shared), None)
        if (wanted := ratio_of(system)) is None:
            return None
        return next((name for name in settings.ratios if _percent(self.config.recipe(name).ratio) == wanted), None)

    def _epoch(self, depth: int, phase: int | None) -> int | None:
        """The epoch at which a phase ends in this experiment, if its weights are kept."""
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


def _naming_disturbed(results: Results) -> Results:
    """Results whose remarks name the times that other work disturbed; memory is counted, so nothing disturbs it."""
    signs = {name: signs for name, record in results.profiles.items() if (signs := disturbances(record))}
    return replace(results, remarks=(*results.remarks, *(f"times of {name}, disturbed by other work: {'; '.join(found)}"
                                                         for name, found in signs.items())))


def _from_gpus(records: Mapping[str, AnyRecord]) -> dict[str, AnyRecord]:
    return {name: record for name, record in records.items() if not record.provenance.made_on.startswith(CPU)}


def _percent(ratio: float | None) -> int | None:
    return None if ratio is None else round(100 * ratio)
