"""The verdict on every claim.

Evidence is asked in this order, and the first that decides gives the verdict: arithmetic; a measurement at the paper's
size; the paper's other printed numbers.  A prediction never decides, nor do curves of a training.  What nothing decides
is open.  Rankings are held against the printed numbers, then looked for in the records of the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from varient.claims.arithmetic import arithmetic
from varient.claims.claims import TRAINED_FULL, Claim, all_claims
from varient.claims.directions import Direction, Pair, directions
from varient.claims.gradients import gradient_support
from varient.claims.judgement import Evidence, Judgement, Verdict
from varient.claims.measured import measured
from varient.claims.miniature import Miniature, look
from varient.claims.noise import Noise
from varient.claims.predicted import predicted
from varient.claims.printed import (
    Ledger,
    data_command,
    late_fid_remark,
    printed,
    total_memory_remark,
    unnamed_full_remark,
)
from varient.claims.quantity import TRAINED
from varient.claims.records import Records, scores_command
from varient.config import ExperimentConfig
from varient.paper.published import published
from varient.results import Results
from varient.targets import PAPER_EXPERIMENT

_AT_PAPER_SIZE = {Verdict.SEEN: Verdict.REPRODUCED, Verdict.REVERSED: Verdict.NOT_REPRODUCED,
                  Verdict.PARTLY_REVERSED: Verdict.NOT_REPRODUCED}
"""What a direction is called where the experiment is no miniature; what is not resolved there is open."""


def judge(config: ExperimentConfig, results: Results, run_dir: Path | None = None) -> list[Judgement]:
    """A judgement for every claim of the text, every cell of tables 1 to 8, and every ranking that they claim.

    Args:
        results: records that cannot stand beside the others are left out (`varient.results.comparable`).
        run_dir: of the experiment; what the curves of its trainings show stands beside the sentence about them.
    """
    claims, records = all_claims(), Records(config, results)
    ledger, orders, miniature = Ledger(claims), directions(records.ratios), Miniature(records)
    return [*(_judge_number(claim, ledger, miniature.noise, orders, run_dir) for claim in claims),
            *(_judge_order(order, ledger, miniature) for order in orders)]


def _judge_number(claim: Claim, ledger: Ledger, noise: Noise, orders: Sequence[Direction],
                  run_dir: Path | None) -> Judgement:
    exact, at_size, elsewhere = arithmetic(claim), measured(claim, noise), printed(claim, ledger)
    in_training = gradient_support(claim, noise.records, run_dir)
    said = [finding for finding in (exact, at_size, in_training, elsewhere) if finding]
    deciding = next((finding for finding in said if finding.agrees is not None), None)
    remarks = [total_memory_remark(claim, ledger), late_fid_remark(claim, ledger), unnamed_full_remark(claim, ledger),
               _published(claim)]
    if deciding is None:
        verdict = Verdict.OPEN
        remarks.append(_pointer(claim, orders))
    else:
        agreeing, otherwise = ((Verdict.REPRODUCED, Verdict.NOT_REPRODUCED) if deciding is at_size else
                               (Verdict.CONSISTENT if deciding is elsewhere else Verdict.HOLDS, Verdict.CONTRADICTS))
        verdict = agreeing if deciding.agrees else otherwise
        said.sort(key=lambda finding: finding is not deciding)
    # Beside exact values a prediction of the same quantity says nothing.
    guess = predicted(claim) if deciding is None or deciding is elsewhere else None
    shown = deciding or guess or at_size or _missing(claim)
    evidence = [claim.reading, *(finding.sentence for finding in said), guess.sentence if guess else "",
                "" if deciding or guess or at_size else shown.sentence, *remarks]
    found = f"{shown.found}; {in_training.source}: {in_training.found}" if in_training else shown.found
    return Judgement(claim.id, claim.where, claim.claim, claim.printed, verdict, found,
                     " ".join(filter(None, evidence)), shown.source, shown.command, "cell" if claim.is_cell else "text")


def _named(verdict: Verdict, records: Records) -> Verdict:
    """A verdict of a miniature as it is called at the experiment's size."""
    return _AT_PAPER_SIZE.get(verdict, Verdict.OPEN) if records.at_paper_size else verdict


def _missing(claim: Claim) -> Evidence:
    """What a claim waits for that nothing can judge."""
    name, systems = claim.quantity.name, claim.quantity.systems
    if TRAINED_FULL in systems:
        return Evidence(None, "", "The paper does not say which supernet's full network it is.", "paper",
                       data_command(claim))
    if name in TRAINED:
        return Evidence(None, "", "Needs the paper's weights, ImageNet and a GPU.", "paper",
                       scores_command(PAPER_EXPERIMENT, *systems))
    if name == "setting":
        return Evidence(None, "", "A setting that the authors chose; nothing to check it against.", "paper",
                       data_command(claim))
    return Evidence(None, "", "Nothing here to check it against.", "paper", data_command(claim))


def _published(claim: Claim) -> str:
    """What others print for a row of Table 2: FID, or FID and Inception Score."""
    asked = claim.where == "Table 2" and claim.quantity.name in ("fid", "is")
    source = published(claim.quantity.systems[0]) if asked else None
    cell = source.cell() if source else ""
    return f"Published elsewhere: {cell}." if cell else ""


def _pointer(claim: Claim, orders: Sequence[Direction]) -> str:
    """The rankings that the number takes part in."""
    names = [order.id for order in orders if claim.quantity in order.quantities]
    return f"Rankings that it takes part in: {', '.join(names)}." if names else ""


def _judge_order(order: Direction, ledger: Ledger, miniature: Miniature) -> Judgement:
    config, reading = miniature.records.config, order.reading
    shown = "; ".join(dict.fromkeys(text for pair in order.pairs if (text := _printed_pair(pair, ledger, order))))
    systems = [system for quantity in order.quantities for system in quantity.systems]
    command = scores_command(config.name, *systems)
    if broken := [pair for pair in order.pairs if _is_broken(pair, ledger, order)]:
        evidence = "; ".join(_printed_pair(pair, ledger, order) for pair in broken)
        return Judgement(order.id, order.where, order.claim, shown, Verdict.CONTRADICTS, evidence,
                         f"{reading} The paper's own numbers are the other way round: {evidence}.".strip(), "paper",
                         "cat varient/paper/*.csv", "ranking")
    if (found := look(order, miniature, command)) is None:
        lacking = "" if config.ablations else f" {config.name} has no section `ablations`, which some rankings need."
        evidence = f"{reading} No printed number contradicts it. No records of it here yet.{lacking}".strip()
        return Judgement(order.id, order.where, order.claim, shown, Verdict.OPEN, "", evidence, "paper", command,
                         "ranking")
    finding = found.finding
    return Judgement(order.id, order.where, order.claim, shown, _named(found.verdict, miniature.records), finding.found,
                     f"{reading} {finding.sentence}".strip(), finding.source, finding.command,
                     "ranking")


def _printed_pair(pair: Pair, ledger: Ledger, order: Direction) -> str:
    """"12.91 > 8.5", as printed; empty where a side is not."""
    larger, smaller = (ledger.at(quantity, order.where) for quantity in pair)
    if larger is None or smaller is None:
        return ""
    first, second = (side.values[0].middle for side in (larger, smaller))
    return f"{larger.printed} {'>' if first > second else '<' if first < second else '='} {smaller.printed}"


def _is_broken(pair: Pair, ledger: Ledger, order: Direction) -> bool:
    """Whether the printed numbers are the other way round, by more than the ranking's margin."""
    larger, smaller = (ledger.at(quantity, order.where) for quantity in pair)
    return larger is not None and smaller is not None and (
        larger.values[0].middle * (1 + order.margin) < smaller.values[0].middle)
