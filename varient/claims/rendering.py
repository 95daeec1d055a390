"""All judgements as a CSV, a row each, and as a page for a reader with five minutes."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields, replace
from itertools import groupby
from pathlib import Path

from varient.claims.judgement import Judgement, Verdict
from varient.claims.noise import RESOLVED, UNKNOWN_TRAINING_SPREAD
from varient.claims.verdicts import judge
from varient.config import ExperimentConfig
from varient.files import write_text
from varient.paper import TITLE
from varient.report.results import Results, comparable

_MEANING = {
    Verdict.CONTRADICTS: "arithmetic, or another printed number of the same quantity, says otherwise",
    Verdict.NOT_REPRODUCED: "measured at the paper's size, with another result",
    Verdict.NOT_SEEN: "the miniature shows the opposite beyond its noise",
    Verdict.NOT_RESOLVED: "in the miniature some difference is within its noise, none is the opposite beyond it",
    Verdict.SEEN: "the miniature shows every difference beyond its noise",
    Verdict.REPRODUCED: "measured at the paper's size, with the same result",
    Verdict.HOLDS: "arithmetic gives it within the printed rounding, from shapes or from other printed numbers",
    Verdict.OPEN: "needs weights, data or a GPU, has nothing to be checked against, or is measured at the paper's size "
                  "within noise",
}

_MINIATURE = (Verdict.SEEN, Verdict.NOT_SEEN, Verdict.NOT_RESOLVED)
_LEGEND = (f"In orders ± is one standard error; > is a difference as claimed of more than {RESOLVED} of them, < one "
           "the other way beyond what chance shows in as many tries as the order has pairs, ~ neither; the rule is in "
           "`varient.claims.noise.resolved`.")
_ONE_BASE = (" All of it is given one base network: seeds vary the fine-tuning alone. So what is no fine-tuning (base "
             "network, untrained subnets, CoDe, DiT, LlamaGen) is taken to spread by "
             f"{UNKNOWN_TRAINING_SPREAD:.0%} or more.")


def write_claims(config: ExperimentConfig, results: Results, stem: Path, run_dir: Path | None = None) -> list[Path]:
    """Judge all claims and write <stem>.csv and <stem>.md; return the paths.

    Args:
        results: what cannot stand beside the rest is left out, and named on the page.
        run_dir: of the experiment, for claims about the curves of its trainings.
    """
    judgements = judge(config, results, run_dir)
    remarks = comparable(config.name, results).remarks
    texts = {".csv": to_csv(judgements), ".md": to_markdown(judgements, config.name, remarks)}
    paths = [stem.with_name(stem.name + suffix) for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return paths


def to_csv(judgements: Sequence[Judgement]) -> str:
    """A row a claim, all fields."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Judgement)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(judgement) for judgement in judgements)
    return text.getvalue()


def to_markdown(judgements: Sequence[Judgement], experiment: str, remarks: Sequence[str] = ()) -> str:
    """Counts, contradictions, what measurements show, what is open; then everything.

    Args:
        remarks: records that are left out, and why.
    """
    counts = Counter(judgement.verdict for judgement in judgements)
    kinds = Counter(judgement.kind for judgement in judgements)
    chapters = [
        f"# Verdicts on the paper's claims\n\n{TITLE}: {len(judgements)} claims, that is {kinds['text']} numbers and "
        f"sentences of its text, {kinds['cell']} cells of tables 1 to 8, and {kinds['order']} orders that they are "
        f"said to show. Each verdict is computed from the printed numbers, from arithmetic and from what the "
        f"experiment `{experiment}` has measured.",
        _table(["Verdict", "Claims", "Meaning"],
               ([verdict, str(counts[verdict]), _MEANING[verdict]] for verdict in Verdict if counts[verdict])),
        _legend(judgements),
        f"Records left out: {'; '.join(remarks)}." if remarks else "",
        *(_chapter(title, [j for j in judgements if j.verdict is verdict], line) for verdict, title, line in (
            (Verdict.CONTRADICTS, "Contradicted", _contradiction),
            (Verdict.NOT_REPRODUCED, "Not reproduced at the paper's size", _contradiction),
            (Verdict.REPRODUCED, "Reproduced at the paper's size", _contradiction),
            (Verdict.SEEN, "The miniature shows it", _order),
            (Verdict.NOT_SEEN, "The miniature shows the opposite", _order),
            (Verdict.NOT_RESOLVED, "The miniature cannot tell", _order))),
        _by_place("Holds", [j for j in judgements if j.verdict is Verdict.HOLDS]),
        _open_chapter([j for j in judgements if j.verdict is Verdict.OPEN]),
        "## All claims\n\nNeighbours with the same evidence share a row.\n\n" + _table(
            ["Claim", "Where", "What", "Printed", "Verdict", "Found", "Source", "Evidence", "Shown by"],
            ([j.id, j.where, j.claim, j.printed, j.verdict, j.found, j.source, j.evidence, f"`{j.command}`"]
             for j in _shared(judgements)))]
    return "\n\n".join(filter(None, chapters)) + "\n"


def _legend(judgements: Sequence[Judgement]) -> str:
    """How measured orders read; empty without any."""
    measured = [j for j in judgements if j.kind == "order" and j.source.startswith("measured")]
    in_miniature = any(j.verdict in _MINIATURE for j in measured)
    return (_LEGEND + (_ONE_BASE if in_miniature else "")) if measured else ""


def _chapter(title: str, judgements: Sequence[Judgement], line: Callable[[Judgement], str]) -> str:
    return f"## {title}: {len(judgements)}\n\n" + "\n".join(map(line, judgements)) if judgements else ""


def _contradiction(judgement: Judgement) -> str:
    if judgement.kind == "order" and judgement.source.startswith("measured"):
        return _order(judgement)
    otherwise = "arithmetic" if judgement.source == "arithmetic" else (
        "other printed numbers" if judgement.source == "paper" else judgement.source)
    return (f"- {judgement.where}, {judgement.claim}: printed **{judgement.printed}**, {otherwise}: "
            f"**{judgement.found}** (`{judgement.id}`)")


def _order(judgement: Judgement) -> str:
    return f"- {judgement.where}, {judgement.claim}: {judgement.evidence} (`{judgement.id}`)"


def _by_place(title: str, judgements: Sequence[Judgement]) -> str:
    """How many claims of each place, in one line."""
    places = Counter(judgement.where for judgement in judgements)
    counts = ", ".join(f"{where} ({count})" for where, count in places.items())
    return f"## {title}: {len(judgements)}\n\n{counts}" if judgements else ""


def _open_chapter(judgements: Sequence[Judgement]) -> str:
    """Open claims by what would close them."""
    lines = [f"- {len(group)} in {', '.join(dict.fromkeys(j.where for j in group))}: {what}"
             for what, group in _grouped(judgements, _wants).items()]
    return f"## Open: {len(judgements)}\n\n" + "\n".join(lines) if lines else ""


def _wants(judgement: Judgement) -> str:
    if judgement.source == "predicted":
        return "need the paper's GPU; what the cost model predicts stands beside them below"
    if judgement.command.startswith("snakemake"):
        return f"`{judgement.command}`"
    if judgement.source.startswith("measured"):
        return "measured, but within noise or not comparable; the evidence below says which"
    return "settings, and numbers of which the paper does not say what they are of: nothing to check"


def _grouped(judgements: Iterable[Judgement], key: Callable[[Judgement], str]) -> dict[str, list[Judgement]]:
    groups: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        groups.setdefault(key(judgement), []).append(judgement)
    return groups


def _shared(judgements: Iterable[Judgement]) -> Iterable[Judgement]:
    """Neighbours that share all but what they print, as one."""
    for _, group in groupby(judgements, key=lambda j: (j.where, j.verdict, j.found, j.evidence, j.source, j.command)):
        found = list(group)
        yield replace(found[0], **{name: "; ".join(dict.fromkeys(getattr(j, name) for j in found))
                                   for name in ("id", "claim", "printed")})


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
