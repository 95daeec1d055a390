"""Where a quantity of the paper is found among the records of an experiment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache, cached_property

from varient.ablations import arms
from varient.claims.claims import FULL
from varient.config import ExperimentConfig
from varient.paper import DEPTH
from varient.records import ProfileRecord, ScoreRecord
from varient.report.inputs import DEFAULT_EXPERIMENT
from varient.report.results import AnyRecord, Results, comparable
from varient.systems import networks_of, resolve_system

PAPER_EXPERIMENT = "imagenet256"
"""The paper's own."""

SCORE_FIELDS = {"fid": "fid", "is": "inception_score", "precision": "precision", "recall": "recall"}
"""Field of a score record for each kind of quality; its spread over redraws is <field>_sd."""

_ID = re.compile(r"(?P<family>variant|free)-d(?P<depth>\d+)(-(p(?P<percent>\d+)|(?P<skip>skip)))?"
                 r"(-end(?P<phase>[12]))?(?P<rest>(-n\d+|-full|-r\d+to\d+)?)")
"""Ids of the paper's VAR-like systems as claims name them: `-p10` trained with p = 0.1 throughout, `-skip` without a
bridge zone, `-end1` as it was at the end of phase 1."""

_TABLES = ((re.compile(r"(var|variant)-d\d+|(code|dit|llamagen)-.*"), "table2.csv"),
           (re.compile(r"free-d\d+|variant-d\d+-full"), "table4.csv"))

PAPER_PROTOCOL = "adm"
"""Whose Inception features and reference the paper's scores are of."""
PAPER_IMAGES = 50_000


def scores_command(experiment: str, *systems: str) -> str:
    """Makes the score records of systems: by the first table that has them all, else by the ablations."""
    target = next((name for form, name in _TABLES if all(map(form.fullmatch, systems))), "ablations.csv")
    if experiment == DEFAULT_EXPERIMENT:
        return f"snakemake --cores all results/{target}"
    return f"snakemake --cores all results/{experiment}/{target} --configfile workflow/config/{experiment}.yaml"


def claims_command(experiment: str) -> str:
    """Judges the records that an experiment has."""
    return (f"varient claims --config workflow/config/{experiment}.yaml --found-in runs/{experiment} "
            f"--output runs/{experiment}/claims")


class Records:
    """The records of one experiment that can stand beside each other, asked for by ids at the paper's size.

    Args:
        results: any; what cannot stand beside the rest is left out, and named in `results.remarks`.
    """

    def __init__(self, config: ExperimentConfig, results: Results) -> None:
        self.config, self.results = config, comparable(config.name, results)
        self.all_profiles = results.all_profiles
        """Those of other experiments and settings too: for whoever asks for one setting."""
        self._networks = cache(self._networks_of)

    @property
    def at_paper_size(self) -> bool:
        """Whether this is the paper's experiment and not one in miniature."""
        config = self.config
        return config.data.source == "imagenet" and config.data.image_size == 256 and config.transformer.depth == DEPTH

    def why_incomparable(self, system: str, field: str) -> str:
        """Why a score of a system and its replicas here cannot be held against the paper's; empty where it can."""
        found = [record for name in self.replicas(system) if (record := self.score(name))]
        reasons = [reason for record in found for reason in self._reasons(record, field)]
        return ", ".join(dict.fromkeys(reasons))

    def _reasons(self, record: ScoreRecord, field: str) -> Iterator[str]:
        if record.protocol != PAPER_PROTOCOL:
            yield f"{record.system} is scored by the protocol {record.protocol}, the paper by {PAPER_PROTOCOL}"
        if {self.config.sampling.num_images, PAPER_IMAGES} != {record.num_images}:
            yield (f"{record.system} is scored on {record.num_images} images, the config asks for "
                   f"{self.config.sampling.num_images} and the paper's protocol for {PAPER_IMAGES}")
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
            return f"var-d{self.config.transformer.depth}"
        if not (match := _ID.fullmatch(system)):
            return next((row for row in self.config.rows if resolve_system(row, self.config).published_as == system),
                        None)
        settings = self.config.ablations
        depth = settings and settings.depth if ablated else self.config.counterpart(int(match["depth"]))
        parts = [f"{match['family']}-d{depth}", self._recipe(match["percent"], match["skip"]),
                 self._epoch(depth, match["phase"]), match["rest"]]
        return "".join(parts) if depth and None not in parts else None

    def score(self, system: str) -> ScoreRecord | None:
        """The score record of a system here; of the paper's experiment, one made on a GPU.

        An untrained subnet in the flexible zone has two ids, one of them by its window of scales.
        """
        first, last = self.config.supernet.bridge + 1, len(self.config.patch_nums)
        found = (self.results.scores.get(name) for name in (system, f"{system}-r{first}to{last}"))
        return self._usable(next(filter(None, found), None))

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
        return self._usable(self.results.profiles.get(system))

    def _usable(self, record: AnyRecord | None) -> AnyRecord | None:
        on_cpu = record is not None and record.provenance.device.startswith("CPU")
        return None if self.at_paper_size and on_cpu else record

    def _recipe(self, percent: str | None, skip: str | None) -> str | None:
        settings = self.config.ablations
        if percent is None and skip is None:
            return ""
        if settings is None:
            return None
        if skip:
            return settings.skip_all and f"-{settings.skip_all}"
        ratios: Iterable[str] = (f"-{name}" for name in settings.ratios
                                 if _percent(self.config.recipe(name).ratio) == int(percent))
        return next(ratios, None)

    def _epoch(self, depth: int | None, phase: str | None) -> str | None:
        if phase is None or depth is None:
            return ""
        recipe = self.config.recipe(None)
        phases = self.config.supernet.phases_of(depth, recipe)
        end = sum(phases[:int(phase)])
        # A phase of no epochs has no end of its own: it would be that of the one before.
        is_kept = phases[int(phase) - 1] and end in self.config.supernet.kept_epochs(depth, recipe)
        return f"-e{end}" if is_kept else None


def _percent(ratio: float) -> int:
    return round(100 * ratio)
