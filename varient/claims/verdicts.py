"""The verdict on every claim.

Evidence is asked in this order, and the first that decides gives the verdict: arithmetic; a measurement at the paper's
size; the paper's other printed numbers.  A prediction never decides.  What nothing decides is open.  Orders are held
against the printed numbers, then looked for in the records of the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines.sources import published
from varient.claims.arithmetic import arithmetic
from varient.claims.claims import Claim, all_claims
from varient.claims.directions import Direction, directions
from varient.claims.judgement import Finding, Judgement, Verdict
from varient.claims.measured import measured
from varient.claims.miniature import Miniature, look
from varient.claims.predicted import predicted
from varient.claims.printed import Ledger, printed, total_memory_remark
from varient.claims.quantity import QUALITY, Quantity
from varient.claims.records import PAPER_EXPERIMENT, Records, scores_command
from varient.config import ExperimentConfig
from varient.report.results import Results

_AT_PAPER_SIZE = {Verdict.SEEN: Verdict.REPRODUCED, Verdict.NOT_SEEN: Verdict.NOT_REPRODUCED}
"""What a direction is called where the experiment is no miniature; what is not resolved there is open."""


def judge(config: ExperimentConfig, results: Results) -> list[Judgement]:
    """A judgement for every claim of the text, every cell of tables 1 to 8, and every order that they claim.

    Raises:
        RecordError: scores of another experiment.
    """
    claims, records = all_claims(), Records(config, results)
    ledger, orders, miniature = Ledger(claims), directions(), Miniature(records)
    return [*(_judge_number(claim, ledger, records, orders) for claim in claims),
            *(_judge_order(order, ledger, miniature) for order in orders)]


def _judge_number(claim: Claim, ledger: Ledger, records: Records, orders: Sequence[Direction]) -> Judgement:
    exact, at_size, elsewhere = arithmetic(claim), measured(claim, records), printed(claim, ledger)
    said = [finding for finding in (exact, at_size, elsewhere) if finding]
    deciding = next((finding for finding in said if finding.agrees is not None), None)
    remarks = [total_memory_remark(claim, ledger), _published(claim)]
    if deciding:
        verdict = _verdict(deciding, at_size)
        said.sort(key=lambda finding: finding is not deciding)
    else:
        verdict = Verdict.OPEN
        remarks.append(_pointer(claim, orders))
    # Beside exact values a prediction of the same quantity says nothing.
    guess = predicted(claim) if deciding is None or deciding is elsewhere else None
    shown = deciding or guess or _missing(claim)
    evidence = [claim.reading, *(finding.sentence for finding in said), guess.sentence if guess else "",
                "" if deciding or guess else shown.sentence, *remarks]
    return Judgement(claim.id, claim.where, claim.claim, claim.printed, verdict, shown.found,
                     " ".join(filter(None, evidence)), shown.source, shown.command)


def _verdict(deciding: Finding, at_size: Finding | None) -> Verdict:
    if deciding is at_size:
        return Verdict.REPRODUCED if deciding.agrees else Verdict.NOT_REPRODUCED
    return Verdict.HOLDS if deciding.agrees else Verdict.CONTRADICTS


def _missing(claim: Claim) -> Finding:
    """What a claim waits for that nothing can judge."""
    if claim.quantity.name in QUALITY:
        return Finding(None, "", "Needs the paper's weights, ImageNet and a GPU.", "paper",
                       scores_command(PAPER_EXPERIMENT, *claim.quantity.systems))
    return Finding(None, "", "A setting that the authors chose; nothing to check it against.", "paper",
                   f"cat varient/paper/{claim.where.lower().replace(' ', '')}.csv")


def _published(claim: Claim) -> str:
    """What others print for a row of Table 2: FID, or FID and Inception Score."""
    source = published(claim.quantity.systems[0]) if claim.where == "Table 2" else None
    return f"Published elsewhere: {source.cell()}." if source and claim.quantity.name in ("fid", "is") else ""


def _pointer(claim: Claim, orders: Sequence[Direction]) -> str:
    """The orders that the number takes part in."""
    names = [order.id for order in orders if claim.quantity in order.quantities]
    return f"Orders that it stands in: {', '.join(names)}." if names else ""


def _judge_order(order: Direction, ledger: Ledger, miniature: Miniature) -> Judgement:
    config = miniature.records.config
    shown = "; ".join(dict.fromkeys(text for pair in order.pairs if (text := _printed_pair(pair, ledger, order))))
    systems = [system for quantity in order.quantities for system in quantity.systems]
    command = scores_command(config.name, *systems)
    if broken := [pair for pair in order.pairs if _printed_sign(pair, ledger, order) < 0]:
        evidence = "; ".join(_printed_pair(pair, ledger, order) for pair in broken)
        return Judgement(order.id, order.where, order.claim, shown, Verdict.CONTRADICTS, evidence,
                         f"The paper's own numbers are the other way round: {evidence}.", "paper",
                         "cat varient/paper/*.csv")
    needed = [pair for pair in order.pairs if _printed_pair(pair, ledger, order)] or order.pairs
    if (look_up := look(order, needed, miniature)) is None:
        lacking = "" if config.ablations else f" {config.name} has no section `ablations`, which some orders need."
        return Judgement(order.id, order.where, order.claim, shown, Verdict.OPEN, "",
                         f"No printed number is against it. No records of it here yet.{lacking}", "paper", command)
    verdict, finding = look_up
    if miniature.records.at_paper_size:
        verdict = _AT_PAPER_SIZE.get(verdict, Verdict.OPEN)
    return Judgement(order.id, order.where, order.claim, shown, verdict, finding.found, finding.sentence,
                     finding.source, command)


def _printed_pair(pair: tuple[Quantity, Quantity], ledger: Ledger, order: Direction) -> str:
    """"12.91 > 8.5", as printed; empty where a side is not."""
    sides = [ledger.at(quantity, order.where) for quantity in pair]
    relation = {1: ">", 0: "=", -1: "<"}[_printed_sign(pair, ledger, order)]
    return f"{sides[0].printed} {relation} {sides[1].printed}" if all(sides) else ""


def _printed_sign(pair: tuple[Quantity, Quantity], ledger: Ledger, order: Direction) -> int:
    """1 where the first is printed larger, -1 where it is smaller; 0 where they are equal or not both printed."""
    sides = [ledger.at(quantity, order.where) for quantity in pair]
    if not all(sides):
        return 0
    larger, smaller = (side.values[0].middle for side in sides)
    return (larger > smaller) - (larger < smaller)
