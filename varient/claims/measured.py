"""Evidence about a claim from the records of an experiment.

* A *number* is compared only at the paper's size, with records of the ImageNet experiment made on a GPU.  Totals of
  memory are not compared, because our engine keeps 16-bit weights and the paper's 8085 MB are float32.
* A *ranking* is tested in any experiment, with its standard errors (`varient.claims.noise`).
* *Training curves* show how much gradient of the flexible zone reaches full-only layers (Sec. 3.3.2).  That it does
  reach them follows from the architecture (`varient.claims.arithmetic.reached_layers`); the measured norms are shown
  beside the verdict and do not decide it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path

import numpy as np

from varient.claims.claims import FULL, Claim, Evidence, Pair, Ranking
from varient.claims.noise import RESOLVED, Estimate, Estimates, resolved, training_remark
from varient.claims.quantity import SCORES, Interval
from varient.claims.records import Records, claims_command, scores_command
from varient.config import ExperimentConfig
from varient.cost.paper_systems import paper_system
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_POLICY
from varient.disturbance import disturbances, speedup_disturbances
from varient.paper_size import differences, is_meant, on_cpu
from varient.pyramid import Pyramid
from varient.records import ProfileRecord, Provenance, ReconstructionRecord
from varient.results import curves_of
from varient.systems.names import SupernetId
from varient.targets import make_command

LATENCY_TOLERANCE = 0.05
"""Relative difference of latencies that still agree, to allow for driver, library and clock; our choice."""
WIDEST_SLACK = 0.05
"""Largest relative uncertainty with which a score can reproduce a printed one; our choice."""


# --- numbers --------------------------------------------------------------------------------------------------------


def measured(claim: Claim, estimates: Estimates) -> Evidence | None:
    """Evidence from a measurement at the paper's size; None without one."""
    name = claim.quantity.name
    if name in SCORES:
        return _quality(claim, estimates)
    if name in ("latency_s", "speedup"):
        return _time(claim, estimates.records.all_profiles)
    return None


def _quality(claim: Claim, estimates: Estimates) -> Evidence | None:
    """A score agrees if it equals the printed one within rounding and `RESOLVED` standard errors of their difference.

    It decides only if it has the paper's protocol, its number of images and a standard deviation.  Agreement does not
    decide if the uncertainty exceeds `WIDEST_SLACK`, disagreement does not if another training might explain it.
    """
    records = estimates.records
    system = records.here(claim.quantity.systems[0]) if records.at_paper_size else None
    record = records.score(system) if system else None
    field = SCORES[claim.quantity.name]
    if system is None or record is None or getattr(record, field) is None:
        return None
    where = f"{record.num_images} images ({record.protocol}, {record.provenance.device})"
    source, command = f"measured ({records.config.name})", scores_command(records.config.name, *claim.quantity.systems)
    ours = estimates.score(system, field)
    if (why := records.why_incomparable(system, field)) or ours is None:
        value = f"{getattr(record, field):.4g}"
        return Evidence(None, value, f"Measured {value} on {where}; not comparable with the paper's: {why}.", source,
                        command)
    # The paper's score is of one training and one draw; its standard deviation is assumed to be that of one of ours.
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
    if (ours := _l20_latency(profiles, claim.quantity.systems[0])) is None:
        return _on_cpu(claim, profiles)
    provenance, value = ours
    if claim.quantity.name == "speedup":
        if (full := _l20_latency(profiles, FULL)) is None:
            return None
        value = full[1] / value
    around = Interval(value * (1 - LATENCY_TOLERANCE), value * (1 + LATENCY_TOLERANCE))
    shown = claim.quantity.kind.show((Interval.point(value),))
    return Evidence(claim.values[0].meets(around), shown, f"Measured {shown} on {provenance.device}; a difference "
                    f"of up to {LATENCY_TOLERANCE:.0%} counts as agreement (our choice).",
                    f"measured ({provenance.experiment})", "python benchmarks/paper_scale.py --batch 64")


def _on_cpu(claim: Claim, profiles: Sequence[ProfileRecord]) -> Evidence | None:
    """A speedup on a CPU, which is shown beside the verdict and does not decide it."""
    found = [record for batch in {record.batch_size for record in profiles}
             for (system, policy), record in sorted(on_cpu(profiles, batch).items())
             if system == claim.quantity.systems[0] and policy != "lean" and record.speedup]
    if claim.quantity.name != "speedup" or not found:
        return None
    record = min(found, key=lambda record: record.batch_size)
    signs = speedup_disturbances(record)
    disturbed = f"; the machine was not idle or not steady ({'; '.join(signs)})" if signs else ""
    shown = claim.quantity.kind.show((Interval.point(record.speedup or 0),))
    return Evidence(None, shown, f"Measured {shown} with random weights in float32 on {record.provenance.device} "
                    f"({record.provenance.threads} threads), batch {record.batch_size}: not the paper's device"
                    f"{disturbed}.",
                    "measured (CPU, random weights)", "python benchmarks/full_size.py")


def _l20_latency(profiles: Sequence[ProfileRecord], system: str) -> tuple[Provenance, float] | None:
    """Median seconds at the paper's setting: VAR-d30's size, L20, batch 64, 16-bit operands, reference cache."""
    size = paper_system(system).transformer_parameters[0]
    return next(((record.provenance, record.latency.median_s) for record in profiles
                 if record.system == system and record.latency and record.num_parameters == size
                 and not disturbances(record)
                 and sum(record.parameters.values()) in (0, size)
                 and "L20" in record.provenance.device and record.batch_size == PAPER_BATCH_SIZE
                 and record.precision == "fp16" and record.cache_policy == PAPER_POLICY
                 and not record.acceleration), None)


# --- rankings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """Evidence of an experiment about a ranking.

    Attributes:
        right, wrong, unclear: numbers of pairs that are as claimed, significantly reversed, and not significant.
        lacking: number of pairs without records of both sides.
        why_not: why the records are not comparable with the paper's; empty where they are.
    """

    right: int
    wrong: int
    unclear: int
    lacking: int
    why_not: str
    found: str
    sentence: str
    command: str


def look(ranking: Ranking, estimates: Estimates, command: str) -> Look | None:
    """Evidence of an experiment about a ranking; None where no pair has records of both sides.

    Args:
        command: shell command that makes the records.
    """
    there: dict[Pair, tuple[Estimate, Estimate]] = {}
    for pair in ranking.pairs:
        larger, smaller = (estimates.of(quantity, ablated=ranking.ablated) for quantity in pair)
        if larger is not None and smaller is not None:
            there[pair] = larger, smaller
    if not there:
        return None
    signs = {pair: resolved(larger, smaller, len(there), ranking.margin) for pair, (larger, smaller) in there.items()}
    right, wrong, unclear = (list(signs.values()).count(sign) for sign in (1, -1, 0))
    lacking, records = len(ranking.pairs) - len(there), estimates.records
    why_not = _why_not(ranking, list(there), records)
    chains = _chains([(*found, signs[pair]) for pair, found in there.items()], "≥" if ranking.margin else ">")
    sentences = [f"{chains}.",
                 training_remark([side for found in there.values() for side in found]),
                 _depth_remark(ranking, records.config), _layout_remark(ranking, signs, records),
                 f"Not comparable with the paper's: {why_not}." if why_not else "",
                 f"No records of {lacking} more {'pair' if lacking == 1 else 'pairs'}." if lacking else ""]
    return Look(right, wrong, unclear, lacking, why_not,
                f"of {len(there)} {'pair' if len(there) == 1 else 'pairs'} {right} as claimed, {wrong} reversed, "
                f"{unclear} within noise", " ".join(filter(None, sentences)),
                claims_command(records.config.name) if records.at_paper_size and not lacking else command)


def _why_not(ranking: Ranking, pairs: Sequence[Pair], records: Records) -> str:
    """Why scores at the paper's size are not comparable with the paper's; empty where they are."""
    if not records.at_paper_size:
        return ""
    reasons = [records.why_incomparable(system, SCORES[quantity.name])
               for pair in pairs for quantity in pair if quantity.name in SCORES
               and (system := records.here(quantity.systems[0], ablated=ranking.ablated))]
    return "; ".join(filter(None, reasons))


def _depth_remark(ranking: Ranking, config: ExperimentConfig) -> str:
    """The depth of an ablation, where it is not the paper's."""
    if not ranking.ablated or config.ablations is None or config.ablations.depth == config.counterpart(16):
        return ""
    papers = "" if ranking.reading else ", where the paper has d = 16"
    return f"Measured at d = {config.ablations.depth}{papers}."


def _chains(seen: Sequence[tuple[Estimate, Estimate, int]], as_claimed: str) -> str:
    """Pairs and their signs as text, with consecutive pairs joined: "a > b ~ c; d < e"; ~ is not significant."""
    relations, text, end = {1: as_claimed, -1: "<", 0: "~"}, "", None
    for larger, smaller, sign in seen:
        if end != larger:
            text += f"{'; ' if text else ''}{larger}"
        text += f" {relations[sign]} {smaller}"
        end = smaller
    return text


# Rankings of zones of scales have a confound: some scales of a layout determine more of the image than others, and an
# untrained subnet does more harm there.  A ranking of zones may therefore reflect the layout of scales, and not the
# scales at which a network needs its depth.  How much of the image a zone determines is measured by what it adds to a
# judge's accuracy: the share of real images, rebuilt from the scales up to it, whose class a classifier recognises.
# Shares of tokens are no such measure (in one of two layouts on digits most tokens are where a subnet does no harm).
# Nor are FIDs, whose differences may be ordered differently from those of their square roots.  Both are reported too.


def _layout_remark(ranking: Ranking, signs: Mapping[Pair, int], records: Records) -> str:
    """Tokens of each zone of a ranking, and what each zone adds to rebuilt real images; empty for other rankings."""
    pyramid = Pyramid(records.config.patch_nums)
    zones = ranking.zones
    if not zones or zones[-1][-1] > pyramid.num_scales:
        return ""
    listed = ", ".join(f"r{first}-r{last} {pyramid.share((first, last)):.1f} %" for first, last in zones)
    parts = [f"Tokens in this layout: {listed}."]
    if record := records.results.reconstruction:
        gains = _accuracy_gains(ranking, record)
        parts.append(_rebuilt(ranking, record, gains))
        # The chain goes from zone to zone, and from the last one to another system.
        parts.append(_conclusion([(signs.get(pair), more - less)
                                  for pair, more, less in zip(ranking.pairs, gains, gains[1:], strict=False)]))
    return " ".join(filter(None, parts))


def _accuracy_gains(ranking: Ranking, record: ReconstructionRecord) -> list[float]:
    """What each zone adds to the judge's accuracy, in percentage points; empty without a judge."""
    recognised = {scale.scale: scale.recognised for scale in record.scales} | {0: 0.0}
    gains = []
    for first, last in ranking.zones:
        before, after = recognised.get(first - 1), recognised.get(last)
        if before is None or after is None:
            return []
        gains.append(100 * (after - before))
    return gains


def _rebuilt(ranking: Ranking, record: ReconstructionRecord, gains: Sequence[float]) -> str:
    fids = {scale.scale: scale.fid for scale in record.scales}
    listed = ", ".join(f"r1-r{last} {fids[last]:.3g}" for _, last in ranking.zones if last in fids)
    added = ", ".join(f"r{first}-r{last} {gain:.0f}" for (first, last), gain in zip(ranking.zones, gains, strict=False))
    return (f"FID of real images rebuilt from their tokens: {listed}"
            + (f"; each zone adds to the judge's accuracy, in percentage points: {added}." if added else "."))


def _conclusion(steps: Sequence[tuple[int | None, float]]) -> str:
    """Whether FID follows the judge's accuracy from zone to zone.

    Args:
        steps: for each step from zone to zone the sign of the pair (None without records) and the difference of gains.
    """
    known = [(sign, more) for sign, more in steps if sign is not None]
    if not known or len(known) < len(steps):
        return ""
    if all(sign * more > 0 for sign, more in known):
        return "The more of the picture a zone makes, the more a subnet harms there: the ranking follows the layout."
    if all(sign * more < 0 for sign, more in known):
        return ("The less of the picture a zone makes, the more a subnet harms there: the ranking does not follow the "
                "layout.")
    return "Whether the ranking follows the layout cannot be decided."


# --- curves ---------------------------------------------------------------------------------------------------------

_NORM = "gradient_norm/{zone}/full_only"


def gradient_support(claim: Claim, config: ExperimentConfig, run_dir: Path | None) -> Evidence | None:
    """Gradient norms from the training curves of a run folder; None for other claims, and without curves."""
    if claim.quantity.name != "gradient_support" or run_dir is None:
        return None
    falls, sentences = [], []
    for network, flexible, bridge in _supports(config, run_dir):
        falls.append(flexible[0] / flexible[1] if flexible[1] else float("inf"))
        sentences.append("{} (flexible zone {:.2g} to {:.2g}; bridge zone {:.2g} to {:.2g})".format(
            network, *flexible, *bridge))
    if not falls:
        return None
    folds = dict.fromkeys(f"{end(falls):.1f}" for end in (min, max))
    others = "; ".join(differences(config)) if is_meant(config) else ""
    remark = f" Not the paper's experiment: {others}." if others else ""
    return Evidence(None, f"its norm falls {' to '.join(folds)} times",
                    "Measured norms of the gradient in full-only layers, from phase 1 to phase 3: "
                    f"{', '.join(sentences)}.{remark}", f"measured ({config.name})",
                    make_command("figures", "fig3.png", config.name))


def _supports(config: ExperimentConfig, run_dir: Path) -> Iterator[tuple[str, list[float], list[float]]]:
    """Of each supernet of the three phases with curves of all of them: its name, and for the flexible and the bridge
    zone the norm of the gradient of the zone's loss in full-only layers, mean over phase 1 and over phase 3."""
    for depth in config.supernet.depths:
        network = str(SupernetId(depth))
        first, second, third = config.supernet.phases_of(depth, config.recipe(None))
        curves = curves_of(run_dir, network)
        norms = [curves.get(_NORM.format(zone=zone), ((), ()))[1] for zone in ("flexible", "bridge")]
        # One probe an epoch, so a value's place in its curve is its epoch.
        if first and third and all(len(values) == first + second + third for values in norms):
            flexible, bridge = ([float(np.mean(values[:first])), float(np.mean(values[first + second:]))]
                                for values in norms)
            yield network, flexible, bridge
