"""Measured values of a quantity with their standard errors, for numbers and for rankings.

A score varies between draws of images (each record has the standard deviation) and between trainings of its networks.
The second is known only where several trainings differ in the seed alone.  For a single training it is assumed to be

* the spread between seeds, pooled over all arms with several, if the system is fine-tuned from the base network as
  these are;
* in a miniature, `UNKNOWN_TRAINING_SPREAD` (of losses `UNKNOWN_LOSS_SPREAD`) where no arm has several seeds.  For a
  system that is not fine-tuned (base network, untrained subnets, CoDe, DiT, LlamaGen) it is the larger of both, because
  seeds vary the fine-tuning only;
* at the paper's size, unknown: the spread on digits says nothing about ImageNet.  The standard error then covers
  redraws of the images only, and a further difference of up to `TRAINING_ALLOWANCE` decides nothing, which the evidence
  says.  Released weights are not trained again and have no such spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import hypot, inf, sqrt
from statistics import mean, median, stdev

from scipy.stats import norm
from scipy.stats import t as student_t

from varient.claims.quantity import SCORES, Quantity
from varient.claims.records import Records
from varient.disturbance import disturbances, speedup_disturbances
from varient.profile_records import Latency, ProfileRecord
from varient.results import SeedSpread, pooled_spread
from varient.spread import DECIMALS, NORMAL_95, with_spread
from varient.systems.ids import VarId, base_system

RESOLVED = 2
"""Number of standard errors that a difference must exceed; our choice, the usual one."""
UNKNOWN_TRAINING_SPREAD = 0.41
"""Relative standard deviation between trainings, assumed in miniatures where no two differ in the seed alone.  Our
choice: that of the FID of three base networks of the digits (docs/results/digits-records.jsonl), one of which is far
from the others; with eight networks trained from each it is 28 %, over five systems of two complete runs 12 %
(benchmarks/records/digits-runs.json).  The same is assumed for other scores, which scatter less."""
UNKNOWN_LOSS_SPREAD = 0.03
"""The same for held-out losses; our choice, above the 1.8 % of nine arms from three base networks of the digits
(docs/results/digits-ablations.csv)."""
TRAINING_ALLOWANCE = 0.10
"""Relative difference allowed for another training at the paper's size, where its spread is unknown.  Our choice, as it
is not published: the paper prints FIDs of the same system that differ by up to 11 % (d = 2: 2.67 and 2.97)."""
PROCESS_SPREAD = 0.05
"""Relative standard deviation of latency between processes, which repeats within one process do not show: latencies of
five systems differed by 2 to 11 % between two runs of the digits, 4.4 % pooled
(benchmarks/records/digits-runs.json)."""
TURN_SPREAD = 0.03
"""The same of latency over the full network's in turns with it, where the machine's speed counts less: five systems
differed by up to 4.9 % between three runs, 1.5 % pooled (the same file).  Our choice, twice that."""


_LOSS = "loss"
"""The field of a record of losses, beside those of score records."""


@dataclass(frozen=True)
class Estimate:
    """A measured quantity with its uncertainty.

    Attributes:
        name: id of the system in this experiment.
        value: mean over the trainings.
        sd: standard deviation of the value of a single training.
        trainings: number of trainings that differ in the seed.
        allowance: difference allowed for another training, where its spread is unknown and not in `sd`; else 0.
        decimals: with which it is shown.
        freedom: degrees of freedom of `sd`; infinite where no trainings give it.
        pooled: whether `sd` is the spread of all arms together, one estimate for all systems that have it.
    """

    name: str
    value: float
    sd: float
    trainings: int
    allowance: float = 0.0
    decimals: int = DECIMALS["fid"]
    freedom: float = inf
    pooled: bool = False

    @property
    def error(self) -> float:
        """Standard error of the value."""
        return self.sd / sqrt(self.trainings)

    def __str__(self) -> str:
        trainings = f" ({self.trainings} trainings)" if self.trainings > 1 else ""
        error = enlargement(self.freedom) * self.error
        return f"{self.name} {with_spread(self.value, error or None, self.decimals)}{trainings}"


def resolved(larger: Estimate, smaller: Estimate, pairs: int = 1, margin: float = 0.0) -> int:
    """1 where the first is significantly larger, -1 where it is significantly smaller, else 0.

    This is the rule for all rankings.  The standard error of a mean over n trainings is s / sqrt(n), where s is the
    largest of three standard deviations: over these trainings, over redraws of the images, and between trainings as in
    the module's docstring (a standard deviation of two or three values is often far too small by chance, and a single
    training has none).  Systems that share a training are treated as independent, which is conservative.  The
    allowances of both sides are added.

    `RESOLVED` standard errors stand for their error rate by the normal distribution; the difference is held to that
    rate by Student's t, with the degrees of freedom of both sides by Welch and Satterthwaite, or with those of the
    pooled spread where both sides have it.

    Multiple comparisons: a ranking counts as shown if *all* its pairs are as claimed, so each pair has this rate
    without correction.  It counts as partly reversed if *any* pair is reversed, so a reversal has the rate of a
    Bonferroni correction, divided by the number of pairs (by the normal distribution 2.5 standard errors for 4 pairs, 3
    for 16).

    Args:
        pairs: number of pairs of the ranking that have records.
        margin: relative, see `varient.claims.claims.Ranking`.  For a test of non-inferiority the first value is
            increased by it before the comparison.
    """
    difference = (1 + margin) * larger.value - smaller.value
    error = hypot((1 + margin) * larger.error, smaller.error)
    allowance = hypot(larger.allowance, smaller.allowance)
    freedom = larger.freedom if larger.pooled and smaller.pooled else _freedom_of_difference(
        ((1 + margin) * larger.error, larger.freedom), (smaller.error, smaller.freedom))
    if difference > threshold(1, freedom) * error + allowance:
        return 1
    return -1 if -difference > threshold(pairs, freedom) * error + allowance else 0


def _freedom_of_difference(*sides: tuple[float, float]) -> float:
    """Degrees of freedom by Welch and Satterthwaite, of the standard errors and degrees of both sides."""
    uncertain = sum(error ** 4 / freedom for error, freedom in sides)
    return sum(error ** 2 for error, _ in sides) ** 2 / uncertain if uncertain else inf


@cache
def threshold(pairs: int, freedom: float = inf) -> float:
    """Number of standard errors that one difference among ``pairs`` needs, see `resolved`."""
    return float(student_t.isf(norm.sf(RESOLVED) / pairs, freedom))


@cache
def enlargement(freedom: float) -> float:
    """Half of a 95 % interval by Student's t over that by the normal distribution: 2.20 for three trainings."""
    return float(student_t.ppf(0.975, freedom)) / NORMAL_95


class Estimates:
    """Estimates of quantities from the records of an experiment."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self.pooled = cache(self._pool)
        """Relative standard deviation of a score between trainings, and its degrees of freedom; see `_pool`."""

    def of(self, quantity: Quantity, *, depth: int | None = None) -> Estimate | None:
        """The estimate of a quantity of the paper in this experiment, see `Records.here`; None without a record."""
        if (system := self.records.here(quantity.systems[0], depth=depth)) is None:
            return None
        if quantity.name in SCORES:
            return self.score(system, SCORES[quantity.name])
        if quantity.name == "held_out_loss":
            return self.loss(system)
        return self._cost(system, quantity.name)

    def _cost(self, system: str, name: str) -> Estimate | None:
        """Latency, see `_latency`; memory, which is counted, without a spread."""
        record = self.records.profile(system)
        if record is None or record.latency is None:
            return None
        if name == "latency_s":
            return self._latency(record, record.latency)
        if record.memory.peak_mib is None:
            return None
        return Estimate(system, record.memory.peak_mib, 0.0, 1, decimals=DECIMALS[name])

    def _latency(self, record: ProfileRecord, latency: Latency) -> Estimate | None:
        """Seconds: the full network's own, times the ratio of the system's to it in turns; the record's own seconds
        where there are no turns or no undisturbed profile of the full network.

        The spread is the larger one of repeats and of processes.  None where other work disturbed what is used.
        """
        full = self.records.profile(base_system(self.records.config))
        if record.speedups and full and full.latency and not disturbances(full):
            seconds = [full.latency.median_s / speedup for speedup in record.speedups]
            between, disturbed = TURN_SPREAD, speedup_disturbances(record)
        else:
            seconds, between, disturbed = list(latency.repeats_s), PROCESS_SPREAD, disturbances(record)
        if disturbed:
            return None
        between_repeats = stdev(seconds) if len(seconds) > 1 else 0.0
        return Estimate(record.system, median(seconds), max(between * median(seconds), between_repeats), 1,
                        decimals=DECIMALS["latency_s"])

    def score(self, system: str, field: str) -> Estimate | None:
        """A score of a system of this experiment, over all its trainings; None without a record that has its sd."""
        return None if self.records.score(system) is None else self._over_trainings(system, field)

    def loss(self, system: str) -> Estimate | None:
        """The loss on held-out images of a system of a miniature, over all its trainings; None without a record.

        All systems are tested on the same images, which therefore add nothing to the spread.
        """
        if self.records.at_paper_size or system not in self.records.results.losses:
            return None
        return self._over_trainings(system, _LOSS)

    def _over_trainings(self, system: str, field: str) -> Estimate | None:
        values, draws = self._values(self.records.replicas(system), field)
        if (spread := SeedSpread.of(values)) is None:
            return None
        between, freedom = self._between_trainings(system, field)
        sds = [(sqrt(mean(sd * sd for sd in draws)), inf, False)]
        sds += [] if spread.sd is None else [(spread.sd, spread.count - 1, False)]
        sds += [] if between is None else [(between * abs(spread.mean), freedom, freedom < inf)]
        sd, freedom, pooled = max(sds, key=lambda of: enlargement(of[1]) * of[0])
        allowance = TRAINING_ALLOWANCE * abs(spread.mean) if spread.sd is None and between is None else 0.0
        return Estimate(system, spread.mean, sd, spread.count, allowance, DECIMALS[field], freedom, pooled)

    def _between_trainings(self, system: str, field: str) -> tuple[float | None, float]:
        """Least relative standard deviation assumed between trainings, None where it is unknown, and its degrees of
        freedom."""
        records, (pooled, freedom) = self.records, self.pooled(field)
        if records.at_paper_size and not records.trained_here(system):
            return 0.0, inf
        if records.at_paper_size:
            return (pooled, freedom) if records.fine_tuned(system) else (None, inf)
        unknown = UNKNOWN_LOSS_SPREAD if field == _LOSS else UNKNOWN_TRAINING_SPREAD
        if pooled is None or (pooled < unknown and not records.fine_tuned(system)):
            return unknown, inf
        return pooled, freedom

    def _pool(self, field: str) -> tuple[float | None, float]:
        """Relative standard deviation between trainings, pooled by degrees of freedom over systems with several, and
        these degrees; (None, inf) without any.

        Of networks at the end of their training, drawn from as the experiment draws.  A training counts once among the
        degrees, also where it gives two systems, the subnet and the full network.
        """
        groups = [(self.records.supernets(group), self._values(group, field)[0]) for group in self.records.groups
                  if not any(map(_is_beside, group))]
        spread = pooled_spread(values for _, values in groups)
        degrees = {supernets: 0 for supernets, _ in groups}
        for supernets, values in groups:
            degrees[supernets] = max(degrees[supernets], len(values) - 1)
        return (spread.relative, sum(degrees.values())) if spread else (None, inf)

    def _values(self, systems: Sequence[str], field: str) -> tuple[list[float], list[float]]:
        """A score of some systems, and its standard deviations over redraws; one without a deviation is left out."""
        if field == _LOSS:
            losses = self.records.results.losses
            known = [losses[system].loss for system in systems if system in losses]
            return known, [0.0] * len(known)
        found = [record for system in systems if (record := self.records.score(system))]
        pairs = [(getattr(record, field), getattr(record, f"{field}_sd")) for record in found]
        whole = [pair for pair in pairs if None not in pair]
        return [value for value, _ in whole], [sd for _, sd in whole]


def _is_beside(system: str) -> bool:
    """Whether it shows a training before its end, or tokens without guidance and filters."""
    found = VarId.parse(system)
    return found is not None and (found.plain or found.epoch is not None or found.phase is not None)


def training_remark(estimates: Sequence[Estimate]) -> str:
    """A sentence about scores whose spread between trainings is unknown; empty where there are none."""
    names = dict.fromkeys(estimate.name for estimate in estimates if estimate.allowance)
    if not names:
        return ""
    all_of_several = len(names) > 1 and all(estimate.allowance for estimate in estimates)
    whose = "each" if all_of_several else f"of {', '.join(names)}"
    return (f"Training spread unknown: one training {whose}, so up to {TRAINING_ALLOWANCE:.0%} are allowed for another "
            "one (our choice).")
