"""Directions shown by the records of an experiment, held against their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import hypot, sqrt
from statistics import mean

from varient.claims.directions import Direction, Pair
from varient.claims.judgement import Finding, Verdict
from varient.claims.quantity import Quantity
from varient.claims.records import SCORE_FIELDS, Records
from varient.report.results import Spread

RESOLVED = 2
"""Standard errors that a difference must exceed."""
UNKNOWN_TRAINING_SPREAD = 0.15
"""Relative.  Taken where the records hold no two trainings that differ in the seed alone: two complete runs of the
digits with other random draws gave VAR-d30 FIDs of 0.67 and 0.84, and d = 2 of 1.89 and 1.69."""

PROCESS_SPREAD = 0.05
"""Relative.  By how much latency differs between processes, which its repeats within one do not show: two runs of the
digits on one machine timed five systems 2 to 11 % apart."""


@dataclass(frozen=True)
class Estimate:
    """A quantity as records show it.

    Attributes:
        name: of the system here.
        value: mean over the trainings.
        error: standard error of it.
        trainings: that differ in the seed.
    """

    name: str
    value: float
    error: float
    trainings: int

    def __str__(self) -> str:
        trainings = f", {self.trainings} trainings" if self.trainings > 1 else ""
        return f"{self.name} {self.value:.3g} ± {self.error:.2g}{trainings}"


def resolved(larger: Estimate, smaller: Estimate) -> int:
    """1 where the first is larger beyond the noise, -1 where it is smaller beyond it, else 0.

    The rule for all directions: a difference counts if it exceeds `RESOLVED` standard errors of it.  The error of a
    mean over n trainings is s / sqrt(n), with s the largest of three: the standard deviation over these trainings, that
    over redraws of the images, and the relative one over the trainings of all systems that have several (a standard
    deviation of two or three values alone is often far too small by chance, and a single training has none).  Systems
    that share a training are treated as if they did not, which is on the safe side.
    """
    difference = larger.value - smaller.value
    if abs(difference) <= RESOLVED * hypot(larger.error, smaller.error):
        return 0
    return 1 if difference > 0 else -1


class Miniature:
    """Estimates of quantities from the records of an experiment."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.training_spread = cache(self._training_spread)

    def estimate(self, quantity: Quantity, *, ablated: bool) -> Estimate | None:
        """The quantity here; None without a record."""
        if (system := self.records.here(quantity.systems[0], ablated=ablated)) is None:
            return None
        if quantity.name in SCORE_FIELDS:
            return self._score(system, SCORE_FIELDS[quantity.name])
        return self._cost(system, quantity.name)

    def _score(self, system: str, field: str) -> Estimate | None:
        if self.records.score(system) is None:
            return None
        values, draws = self._values(self.records.replicas(system), field)
        if not (spread := Spread.of(values)):
            return None
        sd = max(spread.sd or 0, sqrt(mean(sd * sd for sd in draws)), self.training_spread(field) * abs(spread.mean))
        return Estimate(system, spread.mean, sd / sqrt(spread.count), spread.count)

    def _values(self, systems: Sequence[str], field: str) -> tuple[list[float], list[float]]:
        """A score of some systems, and its standard deviations over redraws."""
        found = [record for system in systems if (record := self.records.score(system))]
        pairs = [(value, getattr(record, f"{field}_sd") or 0.0) for record in found
                 if (value := getattr(record, field)) is not None]
        return [value for value, _ in pairs], [sd for _, sd in pairs]

    def _training_spread(self, field: str) -> float:
        """Relative standard deviation between trainings, pooled by degrees of freedom over systems with several."""
        squares = freedom = 0.0
        for group in self.records.groups:
            spread = Spread.of(self._values(group, field)[0])
            if spread and spread.sd is not None and spread.mean:
                squares += (spread.count - 1) * (spread.sd / spread.mean) ** 2
                freedom += spread.count - 1
        return sqrt(squares / freedom) if freedom else UNKNOWN_TRAINING_SPREAD

    def _cost(self, system: str, name: str) -> Estimate | None:
        """Latency with the spread of its repeats or of processes; memory, which is counted, without any."""
        record = self.records.profile(system)
        if record is None or record.latency is None:
            return None
        if name == "latency_s":
            seconds, repeats = record.latency.median_s, record.latency.repeats_s
            spread = Spread.of(repeats).sd or 0
            return Estimate(system, seconds, max(PROCESS_SPREAD * seconds, spread), 1)
        return None if record.memory.peak_mib is None else Estimate(system, record.memory.peak_mib, 0.0, 1)


@dataclass(frozen=True)
class Seen:
    """A pair of a direction in the records."""

    larger: Estimate
    smaller: Estimate

    @property
    def sign(self) -> int:
        """See `resolved`."""
        return resolved(self.larger, self.smaller)


def look(direction: Direction, needed: Sequence[Pair], miniature: Miniature) -> tuple[Verdict, Finding] | None:
    """What an experiment says about a direction; None without a record of both sides of any pair.

    One pair the other way is enough not to see it; to see it, all needed pairs must have records.
    """
    by_pair = {pair: seen for pair in direction.pairs if (seen := _seen(pair, direction.ablated, miniature))}
    if not by_pair:
        return None
    seen = list(by_pair.values())
    signs = [pair.sign for pair in seen]
    right, wrong, unclear = (signs.count(sign) for sign in (1, -1, 0))
    lacking = sum(pair not in by_pair for pair in needed)
    verdict = Verdict.NOT_SEEN if wrong else Verdict.OPEN if lacking else (
        Verdict.NOT_RESOLVED if unclear else Verdict.SEEN)
    config = miniature.records.config
    absent = f" {lacking} more pairs have no records." if lacking else ""
    depth = f" At d = {config.ablations.depth}, where the paper has d = 16." if (
        direction.ablated and config.ablations.depth != config.counterpart(16)) else ""
    found = f"of {len(seen)} pairs {right} as claimed, {wrong} the other way, {unclear} within noise"
    return verdict, Finding(verdict is Verdict.SEEN, found, f"{_chains(seen)}.{depth}{absent}",
                            f"measured ({config.name})", "")


def _seen(pair: Pair, ablated: bool, miniature: Miniature) -> Seen | None:
    larger, smaller = (miniature.estimate(quantity, ablated=ablated) for quantity in pair)
    return Seen(larger, smaller) if larger and smaller else None


def _chains(seen: Sequence[Seen]) -> str:
    """Pairs as text, joined where one goes on from the last: "a > b ~ c; d < e", where ~ is within the noise."""
    chains: list[list[Seen]] = []
    for pair in seen:
        if chains and chains[-1][-1].smaller == pair.larger:
            chains[-1].append(pair)
        else:
            chains.append([pair])
    return "; ".join(_chain(chain) for chain in chains)


def _chain(chain: Sequence[Seen]) -> str:
    relations = {1: ">", -1: "<", 0: "~"}
    return " ".join([str(chain[0].larger), *(f"{relations[pair.sign]} {pair.smaller}" for pair in chain)])
