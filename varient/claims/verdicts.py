"""The verdict on every claim.

The first evidence that decides gives the verdict, in this order: arithmetic; a measurement at the paper's size; the
paper's other printed numbers.  Predictions and training curves never decide.  A claim that nothing decides is open.
Rankings are compared with the printed numbers, then with the records of the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from varient.claims.arithmetic import arithmetic
from varient.claims.claims import LOSS_MARGIN, UNNAMED_FULL, Claim, Evidence, Ranking, all_claims, rankings
from varient.claims.derived import Ledger
from varient.claims.measured import Look, in_training, look, look_at_losses, measured
from varient.claims.noise import Estimates
from varient.claims.predictions import predicted
from varient.claims.printed import broken_pairs, data_command, printed, printed_pair, remarks, total_memory
from varient.claims.records import Records, scores_command
from varient.claims.simulated import allocator_remark
from varient.config import ExperimentConfig
from varient.paper.published import published
from varient.results import Results
from varient.targets import PAPER_EXPERIMENT, make_command


class Verdict(StrEnum):
    """All verdicts, each with its heading and its meaning as every page shows them."""

    heading: str
    meaning: str

    def __new__(cls, word: str, heading: str, meaning: str) -> Verdict:
        verdict = str.__new__(cls, word)
        verdict._value_ = word
        verdict.heading, verdict.meaning = heading, meaning
        return verdict

    @classmethod
    def of(cls, word: str) -> Verdict:
        """The verdict of that word.

        Raises:
            KeyError: there is none.
        """
        return {verdict.value: verdict for verdict in cls}[word]

    CONTRADICTS = ("contradicts", "Contradicted",
                   "arithmetic, or another printed number of the same quantity, gives another result")
    NOT_REPRODUCED = ("not reproduced", "Not reproduced at the paper's size",
                      "measured at the paper's size, with another result")
    REVERSED = ("direction reversed in miniature", "The miniature shows the opposite",
                "in the miniature every difference is the other way round, beyond its noise")
    PARTLY_REVERSED = ("direction partly reversed in miniature", "The miniature reverses part of it",
                       "in the miniature some difference is the other way round, beyond its noise, but not every one")
    NOT_RESOLVED = ("not resolved in miniature", "The miniature cannot decide",
                    "in the miniature some difference is within its noise, and none is reversed beyond it")
    SEEN = ("direction reproduced in miniature", "The miniature shows it",
            "in the miniature every difference is as claimed, beyond its noise; no proof for ImageNet")
    REPRODUCED = ("reproduced", "Reproduced at the paper's size",
                  "measured at the paper's size, with the same result")
    HOLDS = ("holds", "Holds by arithmetic", "arithmetic, from shapes alone, gives it within the printed rounding")
    CONSISTENT = ("consistent", "Consistent with the paper's other numbers",
                  "follows from other numbers that the paper prints; nobody has checked those")
    OPEN = ("open", "Open", "needs weights, data or a GPU, has nothing to be checked against, or is measured at the "
            "paper's size but within noise")


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict.

    Attributes:
        id: of the claim: that of claims.csv, a cell ("table2-variant-d16-fid"), or a ranking ("table1-order").
        where: in the paper.
        claim: what is claimed, in words.
        printed: the value as printed, or the ranking of values.
        found: what the evidence gives; empty where there is none.
        evidence: in sentences.
        source: of `found`: paper, arithmetic, predicted or measured (...).
        command: shows the evidence again, or would make it.
        kind: "text", "cell" of a table, or "ranking".
        finding: name of what is found, shared by all places that print the same thing, or contradict each other in it.
        by_loss: verdict on a ranking of FIDs by loss on held-out images in place of FID; empty without one.
    """

    id: str
    where: str
    claim: str
    printed: str
    verdict: Verdict
    found: str
    evidence: str
    source: str
    command: str
    kind: str
    finding: str
    by_loss: str = ""


def judge(config: ExperimentConfig, results: Results, run_dir: Path | None = None) -> list[Judgement]:
    """A judgement for every claim of the text, every cell of tables 1 to 8, and every ranking that they claim.

    Args:
        results: records not comparable with the others are left out (`varient.results.comparable`).
        run_dir: folder of the experiment, for claims about its training curves.

    Raises:
        ClaimError: a row of the paper's data that cannot be read.
    """
    claims, records = all_claims(), Records(config, results)
    ledger, orders, estimates = Ledger(claims), rankings(records.ratios), Estimates(records)
    return [*(_judge_number(claim, ledger, estimates, orders, run_dir) for claim in claims),
            *(_judge_ranking(order, ledger, estimates) for order in orders)]


def _judge_number(claim: Claim, ledger: Ledger, estimates: Estimates, orders: Sequence[Ranking],
                  run_dir: Path | None) -> Judgement:
    exact, at_size, elsewhere = arithmetic(claim), measured(claim, estimates), printed(claim, ledger)
    curves = in_training(claim, estimates.records.config, run_dir)
    said = [finding for finding in (exact, at_size, curves, elsewhere) if finding]
    deciding = next((finding for finding in said if finding.agrees is not None), None)
    beside = [*remarks(claim, ledger), _published(claim), allocator_remark(claim)]
    if deciding is None:
        verdict = Verdict.OPEN
        beside.append(_pointer(claim, orders))
    else:
        agreeing, otherwise = ((Verdict.REPRODUCED, Verdict.NOT_REPRODUCED) if deciding is at_size else
                               (Verdict.CONSISTENT if deciding is elsewhere else Verdict.HOLDS, Verdict.CONTRADICTS))
        verdict = agreeing if deciding.agrees else otherwise
        said.sort(key=lambda finding: finding is not deciding)
    # Beside exact values a prediction of the same quantity says nothing.
    guess = predicted(claim) if deciding is None or deciding is elsewhere else None
    shown = deciding or guess or at_size or _missing(claim)
    evidence = [claim.reading, *(finding.sentence for finding in said), guess.sentence if guess else "",
                "" if deciding or guess or at_size else shown.sentence, *beside]
    found = [shown.found, f"{curves.source}: {curves.found}" if curves and curves.found else "",
             total_memory(claim, ledger)]
    return Judgement(claim.id, claim.where, claim.claim, claim.printed, verdict, "; ".join(filter(None, found)),
                     " ".join(filter(None, evidence)), shown.source, shown.command, "cell" if claim.is_cell else "text",
                     claim.finding)


def _missing(claim: Claim) -> Evidence:
    """What would be needed to judge an open claim."""
    name, systems = claim.quantity.name, claim.quantity.systems
    if UNNAMED_FULL in systems:
        return Evidence(None, "", "The paper does not say which supernet's full network it is.", "paper",
                       data_command(claim))
    if name == "bridge_gradient":
        return Evidence(None, "", "Needs gradients of the paper's own training; the miniature's stand beside it.",
                        "paper", make_command("figures", "fig3.png", PAPER_EXPERIMENT))
    if claim.quantity.kind.trained:
        return Evidence(None, "", "Needs the paper's weights, ImageNet and a GPU.", "paper",
                       scores_command(PAPER_EXPERIMENT, *systems))
    if name == "setting":
        return Evidence(None, "", "A setting that the authors chose; nothing to check it against.", "paper",
                       data_command(claim))
    return Evidence(None, "", "Nothing here to check it against.", "paper", data_command(claim))


def _published(claim: Claim) -> str:
    """Values that others published for a row of Table 2: FID, or FID and Inception Score."""
    asked = claim.where == "Table 2" and claim.quantity.name in ("fid", "is")
    source = published(claim.quantity.systems[0]) if asked else None
    cell = source.cell() if source else ""
    return f"Published elsewhere: {cell}." if cell else ""


def _pointer(claim: Claim, orders: Sequence[Ranking]) -> str:
    """The rankings that the number takes part in."""
    names = [order.id for order in orders if claim.quantity in order.quantities]
    return f"Rankings that it takes part in: {', '.join(names)}." if names else ""


def _judge_ranking(ranking: Ranking, ledger: Ledger, estimates: Estimates) -> Judgement:
    config = estimates.records.config
    systems = [system for quantity in ranking.quantities for system in quantity.systems]
    command = scores_command(config.name, *systems)
    if broken := broken_pairs(ranking, ledger):
        found = "; ".join(printed_pair(pair, ledger, ranking.where) for pair in broken)
        sides = (ledger.at(quantity, ranking.where) for pair in broken for quantity in pair)
        verdict, source, command = Verdict.CONTRADICTS, "paper", data_command(*filter(None, sides))
        sentence = f"The paper's own numbers are the other way round: {found}."
    elif seen := look(ranking, estimates, command):
        verdict = ranking_verdict(seen, at_paper_size=estimates.records.at_paper_size)
        found, sentence, source, command = seen.found, seen.sentence, f"measured ({config.name})", seen.command
    else:
        verdict, found, source = Verdict.OPEN, "", "paper"
        lacking = "" if config.ablations else f" {config.name} has no section `ablations`, which some rankings need."
        sentence = f"No printed number contradicts it. No records of it here yet.{lacking}"
    losses = look_at_losses(ranking, estimates)
    by_loss = ranking_verdict(losses).value if losses else ""
    if losses:
        margin = f" and with a margin of {LOSS_MARGIN:.1%} (our choice)" if ranking.margin else ""
        sentence += f" By held-out loss in place of FID{margin}, {by_loss}: {losses.sentence}"
    shown = dict.fromkeys(printed_pair(pair, ledger, ranking.where) for pair in ranking.pairs)
    return Judgement(ranking.id, ranking.where, ranking.claim, "; ".join(filter(None, shown)), verdict, found,
                     f"{ranking.reading} {sentence}".strip(), source, command, "ranking", ranking.id,
                     by_loss)


def ranking_verdict(seen: Look, *, at_paper_size: bool = False) -> Verdict:
    """The verdict on a ranking.

    It is reproduced if all pairs have records and are significantly as claimed, reversed if all are significantly
    reversed, and partly reversed if some are.  At the paper's size it is reproduced or not, and open where a pair is
    not significant.
    """
    if seen.why_not:
        return Verdict.OPEN
    if seen.wrong:
        whole = not (seen.right or seen.unclear or seen.lacking)
        return Verdict.NOT_REPRODUCED if at_paper_size else Verdict.REVERSED if whole else Verdict.PARTLY_REVERSED
    if seen.lacking:
        return Verdict.OPEN
    if seen.unclear:
        return Verdict.OPEN if at_paper_size else Verdict.NOT_RESOLVED
    return Verdict.REPRODUCED if at_paper_size else Verdict.SEEN
