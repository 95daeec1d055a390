"""Measurements at the paper's size: records of the ImageNet experiment, on a GPU.

Totals of memory are not compared: our engine keeps 16-bit weights, the paper's 8085 MB are float32.
"""

from __future__ import annotations

from math import hypot

from varient.claims.claims import FULL, Claim
from varient.claims.judgement import Finding
from varient.claims.quantity import QUALITY, Interval
from varient.claims.records import SCORE_FIELDS, Records, scores_command
from varient.profiling.cost_model import PAPER_BATCH_SIZE, PAPER_POLICY
from varient.profiling.paper_systems import paper_system
from varient.records import ProfileRecord
from varient.report.results import Results

STANDARD_DEVIATIONS = 2
LATENCY_TOLERANCE = 0.05
"""Relative: another driver, library or clock moves latency by as much."""


def measured(claim: Claim, records: Records) -> Finding | None:
    """What a measurement at the paper's size says about a claim; None without one."""
    name = claim.quantity.name
    if name in QUALITY:
        return _quality(claim, records)
    if name in ("latency_s", "speedup") and len(claim.quantity.systems) == 1:
        return _time(claim, records.results)
    return None


def _quality(claim: Claim, records: Records) -> Finding | None:
    """A score agrees within the printed rounding and twice the spread of two draws, the paper's and ours."""
    system = records.here(claim.quantity.systems[0]) if records.at_paper_size else None
    record = records.score(system) if system else None
    if record is None:
        return None
    field = SCORE_FIELDS[claim.quantity.name]
    value, sd = getattr(record, field), getattr(record, f"{field}_sd")
    if value is None:
        return None
    slack = STANDARD_DEVIATIONS * hypot(sd or 0, sd or 0)
    return Finding(claim.values[0].meets(Interval(value - slack, value + slack)), f"{value:.4g}",
                   f"Measured {value:.4g} ± {slack:.2g} on {record.num_images} images ({record.protocol}, "
                   f"{record.provenance.device}).", f"measured ({records.config.name})",
                   scores_command(records.config.name, *claim.quantity.systems))


def _time(claim: Claim, results: Results) -> Finding | None:
    ours, full = (_l20_profile(results, system) for system in (claim.quantity.systems[0], FULL))
    if ours is None or (claim.quantity.name == "speedup" and full is None):
        return None
    value = ours.latency.median_s
    if claim.quantity.name == "speedup":
        value = full.latency.median_s / value
    around = Interval(value * (1 - LATENCY_TOLERANCE), value * (1 + LATENCY_TOLERANCE))
    shown = claim.quantity.kind.show((Interval.point(value),))
    return Finding(claim.values[0].meets(around), shown, f"Measured {shown} on {ours.provenance.device}; "
                   f"{LATENCY_TOLERANCE:.0%} off would agree.", f"measured ({ours.provenance.experiment})",
                   "python benchmarks/paper_scale.py --batch 64")


def _l20_profile(results: Results, system: str) -> ProfileRecord | None:
    """A record at the paper's setting: VAR-d30's size, L20, batch 64, 16-bit operands, reference cache."""
    size = paper_system(system).transformer_parameters[0]
    return next((record for record in results.all_profiles
                 if record.system == system and record.latency and record.num_parameters == size
                 and "L20" in record.provenance.device and record.batch_size == PAPER_BATCH_SIZE
                 and record.precision == "fp16" and record.cache_policy == PAPER_POLICY), None)
