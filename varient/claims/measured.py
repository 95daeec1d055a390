"""Evidence about a claim from the records of an experiment.

* A *number* is compared only at the paper's size, with records of the ImageNet experiment made on a GPU.  Totals of
  memory are not compared, because our engine keeps 16-bit weights and the paper's 8085 MB are float32.
* A *ranking* is tested in any experiment, with its standard errors (`varient.claims.noise`), and one of FIDs also by
  loss on held-out images, as a second opinion.
* *Training curves* show norms of the gradient of both zones in full-only layers (Sec. 3.3.2).  They are shown beside
  the verdict and do not decide it: that a gradient of the flexible zone reaches these layers follows from the
  architecture (`varient.claims.arithmetic.reached_layers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import hypot
from pathlib import Path

import numpy as np

from varient.claims.claims import FULL, Claim, Evidence, Pair, Ranking
from varient.claims.noise import Estimate, Estimates, resolved, threshold, training_remark
from varient.claims.quantity import SCORES, Interval
from varient.claims.records import Records, claims_command, scores_command
from varient.config import ExperimentConfig
from varient.cost.paper_systems import paper_system
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_POLICY
from varient.disturbance import disturbances, speedup_disturbances
from varient.paper import PAPER_DEPTHS
from varient.paper_size import differences, is_meant, on_cpu
from varient.profile_records import ProfileRecord
from varient.pyramid import Pyramid
from varient.records import ReconstructionRecord
from varient.results import curves_of
from varient.systems.ids import VarId
from varient.systems.names import SupernetId
from varient.targets import make_command
from varient.training.recipes import schedule_of

LATENCY_TOLERANCE = 0.05
"""Relative difference of latencies that still agree, to allow for driver, library and clock; our choice."""
NOT_COMPARABLE, NO_RECORDS = "Not comparable with the paper's", "No records of"
"""How the evidence says why a ranking that was measured is open."""
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
    """A score agrees if it equals the printed one within rounding and the noise of their difference.

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
    slack = threshold(1, ours.freedom) * hypot(ours.sd, ours.error)
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
    """A latency or a speedup at the paper's setting, or beside the verdict a speedup on a CPU."""
    signs = disturbances if claim.quantity.name == "latency_s" else _signs_in_turns
    record = _on_l20(profiles, claim.quantity.systems[0], signs)
    if record is None or record.latency is None:
        return _on_cpu(claim, profiles)
    value: float | None = record.latency.median_s
    if claim.quantity.name == "speedup":
        value = record.speedup
        full = _on_l20(profiles, FULL, disturbances)
        if value is None and full and full.latency:  # where they did not fit beside each other
            value = full.latency.median_s / record.latency.median_s
    if value is None:
        return None
    around = Interval(value * (1 - LATENCY_TOLERANCE), value * (1 + LATENCY_TOLERANCE))
    shown = claim.quantity.kind.show((Interval.point(value),))
    return Evidence(claim.values[0].meets(around), shown, f"Measured {shown} on {record.provenance.device}; a "
                    f"difference of up to {LATENCY_TOLERANCE:.0%} counts as agreement (our choice).",
                    f"measured ({record.provenance.experiment})", "python benchmarks/paper_scale.py --batch 64")


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


def _signs_in_turns(record: ProfileRecord) -> tuple[str, ...]:
    """What disturbed the speedup of a profile, or its latency where it has no turns."""
    return speedup_disturbances(record) if record.reference else disturbances(record)


def _on_l20(profiles: Sequence[ProfileRecord], system: str,
            signs: Callable[[ProfileRecord], tuple[str, ...]]) -> ProfileRecord | None:
    """A profile at the paper's setting, undisturbed: VAR-d30's size, L20, batch 64, 16-bit operands, reference cache.

    Args:
        signs: of what disturbed it.
    """
    size = paper_system(system).transformer_parameters[0]
    return next((record for record in profiles
                 if record.system == system and record.latency and record.num_parameters == size
                 and not signs(record)
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


Sides = Mapping[Pair, tuple[Estimate, Estimate]]
"""Both sides of the pairs that have records of them."""


def look_at_losses(ranking: Ranking, estimates: Estimates) -> Look | None:
    """The same evidence by loss on held-out images; None without records of it, and for rankings by anything but FID.

    A FID also measures how sharp the samples are, which guidance and filters change; a loss does not.
    """
    return look(ranking.of_losses, estimates, "") if ranking.of_losses else None


def look(ranking: Ranking, estimates: Estimates, command: str) -> Look | None:
    """Evidence of an experiment about a ranking; None where no pair has records of both sides at any depth.

    A ranking is tested at the depth that it is claimed for.  One that may be tested in the ablations is tested at their
    depth where that gives more pairs.  What other depths show stands beside it and decides nothing.

    Args:
        command: shell command that makes the records.
    """
    config, records = estimates.records.config, estimates.records
    depths: list[int | None] = [None]
    if ranking.ablated and config.ablations:
        depths.append(config.ablations.depth)
    there_at = {depth: _sides(ranking, estimates, depth) for depth in depths}
    depth, there = max(there_at.items(), key=lambda found: len(found[1]))
    beside = _other_depths(ranking, estimates, depth)
    if not there and not beside:
        return None
    signs = _signs(ranking, there)
    right, wrong, unclear = (list(signs.values()).count(sign) for sign in (1, -1, 0))
    lacking = len(ranking.pairs) - len(there)
    why_not = _why_not(ranking, list(there), records, depth)
    sentences = [_chained(ranking, there, signs), training_remark([side for found in there.values() for side in found]),
                 _depth_remark(ranking, config, depth) if there else "",
                 _layout_remark(ranking, signs, records) if ranking.of_losses else "",
                 f"{NOT_COMPARABLE}: {why_not}." if why_not else "",
                 f"{NO_RECORDS} {lacking} {'more ' * bool(there)}{'pair' if lacking == 1 else 'pairs'}."
                 if lacking else "", beside]
    found = (f"of {len(there)} {'pair' if len(there) == 1 else 'pairs'} {right} as claimed, {wrong} reversed, "
             f"{unclear} within noise") if there else ""
    return Look(right, wrong, unclear, lacking, why_not, found, " ".join(filter(None, sentences)),
                claims_command(config.name) if records.at_paper_size and not lacking else command)


def _sides(ranking: Ranking, estimates: Estimates, depth: int | None) -> Sides:
    """Pairs with records of both sides, at a depth of this experiment (None: the counterpart of the paper's)."""
    there = {}
    for pair in ranking.pairs:
        larger, smaller = (estimates.of(quantity, depth=depth) for quantity in pair)
        if larger is not None and smaller is not None:
            there[pair] = larger, smaller
    return there


def _signs(ranking: Ranking, there: Sides) -> dict[Pair, int]:
    return {pair: resolved(*sides, len(there), ranking.margin) for pair, sides in there.items()}


def _chained(ranking: Ranking, there: Sides, signs: Mapping[Pair, int]) -> str:
    chains = _chains([(*sides, signs[pair]) for pair, sides in there.items()], "≥" if ranking.margin else ">")
    return f"{chains}." if chains else ""


def _other_depths(ranking: Ranking, estimates: Estimates, depth: int | None) -> str:
    """The same pairs at the experiment's other depths; empty for a ranking of several depths."""
    ids = [VarId.parse(quantity.systems[0]) for quantity in ranking.quantities]
    claimed = {found.depth for found in ids if found and found.kind != "var"}
    config = estimates.records.config
    if len(claimed) != 1:
        return ""
    tested = depth or config.counterpart(*claimed)
    shown = [_chained(ranking, there, _signs(ranking, there)) for other in sorted(config.supernet.depths, reverse=True)
             if other != tested and (there := _sides(ranking, estimates, other))]
    return f"Beside it, at other depths: {' '.join(shown)}" if shown else ""


def _why_not(ranking: Ranking, pairs: Sequence[Pair], records: Records, depth: int | None) -> str:
    """Why scores at the paper's size are not comparable with the paper's; empty where they are."""
    if not records.at_paper_size:
        return ""
    reasons = [records.why_incomparable(system, SCORES[quantity.name])
               for pair in pairs for quantity in pair if quantity.name in SCORES
               and (system := records.here(quantity.systems[0], depth=depth))]
    return "; ".join(filter(None, reasons))


def _depth_remark(ranking: Ranking, config: ExperimentConfig, depth: int | None) -> str:
    """The depth of an ablation, where it is not the paper's."""
    if depth is None or depth == config.counterpart(PAPER_DEPTHS[0]):
        return ""
    papers = "" if ranking.reading else f", where the paper has d = {PAPER_DEPTHS[0]}"
    return f"Measured at d = {depth}{papers}."


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

_ZONES = ("flexible", "bridge")
_PLANS = ("full", "subnet")
_BOTH = "both"
_PROBES = ("Each value is a mean over the epochs of a phase; both plans are probed on each epoch's first batch. The "
           "first three are of both plans, weighted with the epoch's shares of full and subnet batches (Eq. 5), and "
           "follow the mixture; those under each plan alone do not.")


def in_training(claim: Claim, config: ExperimentConfig, run_dir: Path | None) -> Evidence | None:
    """Gradient norms from the training curves of a run folder; None for other claims, and without curves."""
    name = claim.quantity.name
    if name not in ("gradient_support", "bridge_gradient") or run_dir is None:
        return None
    curves = list(_phase_norms(config, run_dir))
    if not curves:
        return None
    zones = _ZONES if name == "gradient_support" else ("bridge",)
    measured_norms = ", ".join(f"{network} ({'; '.join(_courses(zone, norms) for zone in zones)})"
                               for network, _, norms in curves)
    others = "; ".join(differences(config)) if is_meant(config) else ""
    remarks = [f"Norms of the gradient in full-only layers by phase: {measured_norms}.", _PROBES,
               f"Not the paper's experiment: {others}." if others else ""]
    ratios = [max(norms[_BOTH, "bridge"]) / min(norms[_BOTH, "bridge"]) for _, depth, norms in curves
              if name == "bridge_gradient" and depth == config.counterpart(_depth(claim))]
    return Evidence(None, claim.quantity.kind.show([Interval.point(ratio) for ratio in ratios]) if ratios else "",
                    " ".join(filter(None, remarks)), f"measured ({config.name})",
                    make_command("figures", "fig3.png", config.name))


def _depth(claim: Claim) -> int:
    found = VarId.parse(claim.quantity.systems[0])
    return found.depth if found else 0


def _courses(zone: str, norms: Mapping[tuple[str, str], Sequence[float]]) -> str:
    course = {way: ", ".join(f"{norm:.2g}" for norm in norms[way, zone]) for way in (_BOTH, *_PLANS)}
    return f"{zone} zone {course[_BOTH]}; {', '.join(f'under the {plan} plan {course[plan]}' for plan in _PLANS)}"


def _phase_norms(config: ExperimentConfig,
                 run_dir: Path) -> Iterator[tuple[str, int, dict[tuple[str, str], list[float]]]]:
    """Of each supernet of the three phases with curves of all of them: its name, its depth, and for both plans and
    each alone, and each zone, the norm of the gradient of the zone's loss in full-only layers in each phase."""
    for depth in config.supernet.depths:
        network = str(SupernetId(depth))
        recipe = config.recipe(None)
        phases = config.supernet.phases_of(depth, recipe)
        curves = curves_of(run_dir, network)
        norms = {(plan, zone): np.array(curves.get(f"gradient_norm/{plan}/{zone}/full_only", ((), ()))[1])
                 for plan in _PLANS for zone in _ZONES}
        # One probe an epoch, so a value's place in its curve is its epoch.
        if all(phases) and all(len(values) == sum(phases) for values in norms.values()):
            schedule, ends = schedule_of(recipe, phases), list(accumulate(phases, initial=0))
            share = np.array([schedule.subnet_probability(epoch) for epoch in range(1, sum(phases) + 1)])
            norms |= {(_BOTH, zone): (1 - share) * norms["full", zone] + share * norms["subnet", zone]
                      for zone in _ZONES}
            yield network, depth, {way: [float(values[first:last].mean()) for first, last in pairwise(ends)]
                                   for way, values in norms.items()}
