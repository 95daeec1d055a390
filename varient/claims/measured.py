"""Measurements at the paper's size: records of the ImageNet experiment, on a GPU.

Totals of memory are not compared: our engine keeps 16-bit weights, the paper's 8085 MB are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import hypot

from varient.claims.claims import FULL, Claim
from varient.claims.directions import NEARLY_EQUIVALENT
from varient.claims.judgement import Evidence
from varient.claims.noise import RESOLVED, Noise, training_remark
from varient.claims.quantity import QUALITY, Interval
from varient.claims.records import SCORE_FIELDS, scores_command
from varient.cost.paper_systems import paper_system
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_POLICY
from varient.records import ProfileRecord

LATENCY_TOLERANCE = 0.05
"""Relative; our choice, for another driver, library or clock."""
WIDEST_SLACK = NEARLY_EQUIVALENT
"""Relative.  A score whose noise is wider agrees with too much to reproduce anything; our choice."""


def measured(claim: Claim, noise: Noise) -> Evidence | None:
    """What a measurement at the paper's size says about a claim; None without one."""
    name = claim.quantity.name
    if name in QUALITY:
        return _quality(claim, noise)
    if name in ("latency_s", "speedup") and len(claim.quantity.systems) == 1:
        return _time(claim, noise.records.all_profiles)
    return None


def _quality(claim: Claim, noise: Noise) -> Evidence | None:
    """A score agrees within the printed rounding and twice the spread of two of them, the paper's and ours.

    It decides only if it is of the paper's protocol and number of images and says how far it may be off.  It reproduces
    nothing if it may be off by more than `WIDEST_SLACK`, and what another training might explain decides nothing.
    """
    records = noise.records
    system = records.here(claim.quantity.systems[0]) if records.at_paper_size else None
    record = records.score(system) if system else None
    field = SCORE_FIELDS[claim.quantity.name]
    if record is None or getattr(record, field) is None:
        return None
    where = f"{record.num_images} images ({record.protocol}, {record.provenance.device})"
    source, command = f"measured ({records.config.name})", scores_command(records.config.name, *claim.quantity.systems)
    ours = noise.estimate(system, field)
    if (why := records.why_incomparable(system, field)) or ours is None:
        value = f"{getattr(record, field):.4g}"
        return Evidence(None, value, f"Measured {value} on {where}; not comparable with the paper's: {why}.", source,
                       command)
    # The paper's is of one training and one draw, and taken to spread as one of ours.
    slack = RESOLVED * hypot(ours.sd, ours.error)
    sentence = f"Measured {ours.value:.4g} on {where}; a difference of up to {slack:.2g} would be noise."
    agrees: bool | None = claim.values[0].meets(Interval(ours.value - slack, ours.value + slack))
    if agrees and slack > WIDEST_SLACK * abs(ours.value):
        agrees = None
        sentence += f" That is more than {WIDEST_SLACK:.0%}, too much to reproduce a number (our choice)."
    elif not agrees and ours.allowance:
        reach = slack + ours.allowance
        agrees = None if claim.values[0].meets(Interval(ours.value - reach, ours.value + reach)) else False
    return Evidence(agrees, f"{ours.value:.4g}", " ".join(filter(None, (sentence, training_remark([ours])))), source,
                    command)


def _time(claim: Claim, profiles: Sequence[ProfileRecord]) -> Evidence | None:
    ours, full = (_l20_profile(profiles, system) for system in (claim.quantity.systems[0], FULL))
    if ours is None or (claim.quantity.name == "speedup" and full is None):
        return None
    value = ours.latency.median_s
    if claim.quantity.name == "speedup":
        value = full.latency.median_s / value
    around = Interval(value * (1 - LATENCY_TOLERANCE), value * (1 + LATENCY_TOLERANCE))
    shown = claim.quantity.kind.show((Interval.point(value),))
    return Evidence(claim.values[0].meets(around), shown, f"Measured {shown} on {ours.provenance.device}; a difference "
                    f"of up to {LATENCY_TOLERANCE:.0%} counts as agreement (our choice).",
                    f"measured ({ours.provenance.experiment})", "python benchmarks/paper_scale.py --batch 64")


def _l20_profile(profiles: Sequence[ProfileRecord], system: str) -> ProfileRecord | None:
    """A record at the paper's setting: VAR-d30's size, L20, batch 64, 16-bit operands, reference cache."""
    size = paper_system(system).transformer_parameters[0]
    return next((record for record in profiles
                 if record.system == system and record.latency and record.num_parameters == size
                 and "L20" in record.provenance.device and record.batch_size == PAPER_BATCH_SIZE
                 and record.precision == "fp16" and record.cache_policy == PAPER_POLICY), None)
