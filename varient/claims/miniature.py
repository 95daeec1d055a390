"""Rankings shown by the records of an experiment, against their noise (`varient.claims.noise`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from varient.claims.directions import Direction, Pair
from varient.claims.judgement import Evidence, Verdict
from varient.claims.layout import layout_remark
from varient.claims.noise import Estimate, Noise, resolved, training_remark
from varient.claims.quantity import Quantity
from varient.claims.records import SCORE_FIELDS, Records, claims_command

PROCESS_SPREAD = 0.05
"""Relative standard deviation of latency between processes, which its repeats within one do not show: two runs of the
digits timed five systems 2 to 11 % apart, a pooled deviation of 4.4 % (benchmarks/records/digits-runs.json)."""


class Miniature:
    """Estimates of quantities from the records of an experiment."""

    def __init__(self, records: Records) -> None:
        self.records, self.noise = records, Noise(records)

    def estimate(self, quantity: Quantity, *, ablated: bool) -> Estimate | None:
        """The quantity here; None without a record."""
        if (system := self.records.here(quantity.systems[0], ablated=ablated)) is None:
            return None
        if quantity.name in SCORE_FIELDS:
            return self.noise.estimate(system, SCORE_FIELDS[quantity.name])
        return self._cost(system, quantity.name)

    def _cost(self, system: str, name: str) -> Estimate | None:
        """Latency with the spread of its repeats or of processes; memory, which is counted, without any."""
        record = self.records.profile(system)
        if record is None or record.latency is None:
            return None
        if name == "latency_s":
            seconds, repeats_s = record.latency.median_s, record.latency.repeats_s
            between_repeats = stdev(repeats_s) if len(repeats_s) > 1 else 0.0
            return Estimate(system, seconds, max(PROCESS_SPREAD * seconds, between_repeats), 1)
        return None if record.memory.peak_mib is None else Estimate(system, record.memory.peak_mib, 0.0, 1)

    def why_incomparable(self, quantities: Sequence[Quantity], *, ablated: bool) -> str:
        """Why scores at the paper's size cannot show a ranking of the paper's; empty where they can."""
        if not self.records.at_paper_size:
            return ""
        pairs = [(self.records.here(quantity.systems[0], ablated=ablated), SCORE_FIELDS.get(quantity.name))
                 for quantity in quantities]
        reasons = [self.records.why_incomparable(system, field) for system, field in pairs if system and field]
        return "; ".join(filter(None, reasons))


@dataclass(frozen=True)
class Seen:
    """A pair of a direction in the records.

    Attributes:
        sign: see `resolved`.
    """

    larger: Estimate
    smaller: Estimate
    sign: int


@dataclass(frozen=True)
class Look:
    """What an experiment says about a direction.

    Attributes:
        verdict: in the words for a miniature.
    """

    verdict: Verdict
    finding: Evidence


def look(direction: Direction, miniature: Miniature, command: str) -> Look | None:
    """What an experiment says about a direction; None without a record of both sides of any pair.

    It is shown if all pairs have records and are as claimed, reversed if all are the other way round, and partly
    reversed if some are.

    Args:
        command: makes the records.
    """
    by_pair = _seen(direction, miniature)
    if not by_pair:
        return None
    seen = list(by_pair.values())
    signs = [pair.sign for pair in seen]
    right, wrong, unclear = (signs.count(sign) for sign in (1, -1, 0))
    lacking = len(direction.pairs) - len(seen)
    why = miniature.why_incomparable([quantity for pair in by_pair for quantity in pair], ablated=direction.ablated)
    reversal = Verdict.REVERSED if wrong == len(seen) and not lacking else Verdict.PARTLY_REVERSED
    verdict = Verdict.OPEN if why else reversal if wrong else Verdict.OPEN if lacking else (
        Verdict.NOT_RESOLVED if unclear else Verdict.SEEN)
    sentences = [f"{_chains(seen, '≥' if direction.margin else '>')}.",
                 training_remark([side for pair in seen for side in (pair.larger, pair.smaller)]),
                 _depth_remark(direction, miniature), layout_remark(
                     direction, {pair: found.sign for pair, found in by_pair.items()}, miniature.records),
                 f"Not comparable with the paper's: {why}." if why else "",
                 f"No records of {lacking} more {'pair' if lacking == 1 else 'pairs'}." if lacking else ""]
    config = miniature.records.config
    all_there = miniature.records.at_paper_size and not lacking
    return Look(verdict, Evidence(
        verdict is Verdict.SEEN,
        f"of {len(seen)} {'pair' if len(seen) == 1 else 'pairs'} {right} as claimed, {wrong} reversed, "
        f"{unclear} within noise",
        " ".join(filter(None, sentences)), f"measured ({config.name})",
        claims_command(config.name) if all_there else command))


def _seen(direction: Direction, miniature: Miniature) -> dict[Pair, Seen]:
    """The pairs of which both sides have records."""
    sides = {pair: [miniature.estimate(quantity, ablated=direction.ablated) for quantity in pair]
             for pair in direction.pairs}
    there = {pair: found for pair, found in sides.items() if None not in found}
    return {pair: Seen(larger, smaller, resolved(larger, smaller, len(there), direction.margin))
            for pair, (larger, smaller) in there.items()}


def _depth_remark(direction: Direction, miniature: Miniature) -> str:
    """At which depth an ablation was made, where that is not the paper's."""
    config = miniature.records.config
    if not direction.ablated or config.ablations.depth == config.counterpart(16):
        return ""
    papers = "" if direction.reading else ", where the paper has d = 16"
    return f"Measured at d = {config.ablations.depth}{papers}."


def _chains(seen: Sequence[Seen], as_claimed: str) -> str:
    """Pairs as text, joined where one goes on from the last: "a > b ~ c; d < e", where ~ is within the noise."""
    chains: list[list[Seen]] = []
    for pair in seen:
        if chains and chains[-1][-1].smaller == pair.larger:
            chains[-1].append(pair)
        else:
            chains.append([pair])
    return "; ".join(_chain(chain, as_claimed) for chain in chains)


def _chain(chain: Sequence[Seen], as_claimed: str) -> str:
    relations = {1: as_claimed, -1: "<", 0: "~"}
    return " ".join([str(chain[0].larger), *(f"{relations[pair.sign]} {pair.smaller}" for pair in chain)])
