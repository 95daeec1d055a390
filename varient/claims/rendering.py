"""All judgements as a CSV, one row each, and as a Markdown page."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from varient import markdown
from varient.claims.noise import RESOLVED, UNKNOWN_LOSS_SPREAD, UNKNOWN_TRAINING_SPREAD
from varient.claims.quantity import RULES
from varient.claims.records import Records
from varient.claims.tally import (
    Tally,
    by_finding,
    by_verdict,
    by_want,
    decided_rankings,
    decided_with_losses,
    otherwise,
)
from varient.claims.verdicts import Judgement, Verdict, judge
from varient.config import ExperimentConfig
from varient.csv_file import read_rows
from varient.files import write_text
from varient.paper import TITLE
from varient.paper_size import marks
from varient.results import Results, comparable
from varient.targets import claims_files
from varient.yaml_file import shortened

_MINIATURE = (Verdict.REVERSED, Verdict.PARTLY_REVERSED, Verdict.NOT_RESOLVED, Verdict.SEEN)
_MARKUP = re.compile(r"<(?=[A-Za-z/!?])|\[(?=[^\]]*\]\()")
"""Where HTML or a link begins."""
_FINDINGS = ("A finding is one thing that the paper says or one discrepancy in it; its places are all cells and "
             "sentences that print it. Where most places agree, they are open and only the others are contradicted, "
             "so a finding can count under two verdicts.")
_LEGEND = ("In rankings ± is half the width of a 95 % interval, over redraws of the images and trainings, by Student's "
           f"t. > is a difference in the claimed direction of more than {RESOLVED} standard errors (of more by "
           "Student's t, where few trainings tell the spread), < one in the opposite direction beyond what chance "
           "produces in as many comparisons as the ranking has pairs, ~ is neither, and ≥ means at least as good "
           "within the margin that the evidence states. The rule is `varient.claims.noise.resolved`.")
_ONE_BASE = (" All supernets are fine-tuned from one base network, and their seeds vary the fine-tuning only. What is "
             "not fine-tuned (base network, untrained subnets, CoDe, DiT, LlamaGen) is therefore assumed to vary "
             f"between trainings by at least {UNKNOWN_TRAINING_SPREAD:.0%} (standard deviation), and so is all else "
             "where no arm has several trainings.")


def write_claims(config: ExperimentConfig, results: Results, stem: Path, run_dir: Path | None = None) -> list[Path]:
    """Judge all claims and write <stem>.csv and <stem>.md; return the paths.

    Args:
        results: records not comparable with the rest are left out, and named on the page.
        run_dir: of the experiment, for claims about the curves of its trainings.
    """
    return write_judgements(judge(config, results, run_dir), config, results, stem)


def write_judgements(judgements: Sequence[Judgement], config: ExperimentConfig, results: Results,
                     stem: Path) -> list[Path]:
    """Write what has been judged from these results as <stem>.csv and <stem>.md; return the paths."""
    said = [f"{title}: {text}." for title, text in marks(config, comparable(config.name, results)).items()]
    page = to_markdown(judgements, config.name, Records(config, results).results.remarks, said)
    paths = claims_files(stem)
    for path, text in zip(paths, (to_csv(judgements), page), strict=True):
        write_text(path, text)
    return paths


def to_csv(judgements: Sequence[Judgement]) -> str:
    """A row a claim, all fields."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Judgement)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(judgement) for judgement in judgements)
    return text.getvalue()


def read_judgements(path: Path) -> list[Judgement]:
    """What `to_csv` wrote; fields that have a default may be missing.

    Raises:
        ValueError: as `varient.csv_file.read_rows`, or an unknown verdict.
    """
    found = []
    for row in read_rows(path, [field.name for field in fields(Judgement) if field.default is MISSING]):
        if row["verdict"] not in set(Verdict):
            raise ValueError(f"{path}: verdict {shortened(row['verdict'])} is unknown; known: {', '.join(Verdict)}")
        values: dict[str, Any] = {field.name: row[field.name] for field in fields(Judgement) if field.name in row}
        found.append(Judgement(**values | {"verdict": Verdict.of(row["verdict"])}))
    return found


def to_markdown(judgements: Sequence[Judgement], experiment: str, remarks: Sequence[str] = (),
                said: Sequence[str] = ()) -> str:
    """Counts with the meaning of each verdict, a chapter for each; then everything.

    Args:
        remarks: records that are left out, and why.
        said: what has to be said of the others.
    """
    tallies = by_verdict(judgements)
    kinds = Counter(judgement.kind for judgement in judgements)
    chapters = [
        f"# Verdicts on the paper's claims\n\n{TITLE}: {Tally.of(judgements)}, namely {kinds['text']} numbers and "
        f"sentences of its text, {kinds['cell']} cells of Tables 1 to 8, and {kinds['ranking']} rankings of systems. "
        f"Each verdict is computed from the printed numbers, from arithmetic and from what the experiment "
        f"`{experiment}` has measured.",
        _table(["Verdict", "Findings", "Places", "Meaning"],
               ([verdict, str(tally.findings), str(tally.places), verdict.meaning]
                for verdict, tally in tallies.items())),
        _FINDINGS, RULES, _legend(judgements),
        *map(markdown.escaped, said),
        f"Left out: {'; '.join(map(markdown.escaped, remarks))}." if remarks else "",
        *(_chapter(verdict, [j for j in judgements if j.verdict is verdict]) for verdict in Verdict),
        "## All claims\n\nConsecutive claims with the same evidence share a row.\n\n" + _table(
            ["Claim", "Where", "What", "Printed", "Verdict", "Found", "Source", "Evidence", "Shown by"],
            ([j.id, j.where, j.claim, j.printed, j.verdict, *map(_plain, (j.found, j.source, j.evidence)),
              f"`{j.command}`"]
             for j in _shared(judgements)))]
    return "\n\n".join(filter(None, chapters)) + "\n"


def _legend(judgements: Sequence[Judgement]) -> str:
    """How to read measured rankings; empty without any."""
    measured = [j for j in judgements if j.kind == "ranking" and j.source.startswith("measured")]
    if not measured:
        return ""
    if not any(j.verdict in _MINIATURE for j in measured):
        return _LEGEND
    decided = "The miniature decides {} of the {} rankings".format(*decided_rankings(judgements))
    if any(judgement.by_loss for judgement in judgements):
        decided += (", and {} with held-out loss beside FID; of {} the two say opposite things. Of a "
                    "loss of what is not fine-tuned {:.0%} are assumed in place of {:.0%}").format(
            *decided_with_losses(judgements), UNKNOWN_LOSS_SPREAD, UNKNOWN_TRAINING_SPREAD)
    return f"{_LEGEND}{_ONE_BASE} {decided}."


def _chapter(verdict: Verdict, judgements: Sequence[Judgement]) -> str:
    """All claims with a verdict, in the form that suits it; empty without any."""
    if not judgements:
        return ""
    if verdict in _OF_MANY:
        body = _OF_MANY[verdict](judgements)
    elif verdict in _MINIATURE:
        body = "\n".join(map(_order, judgements))
    else:
        body = "\n".join(map(_numbers, by_finding(judgements)))
    return f"## {verdict.heading}: {Tally.of(judgements)}\n\n{body}"


def _numbers(places: Sequence[Judgement]) -> str:
    """A finding in a line, with all its places."""
    first = places[0]
    if first.kind == "ranking" and first.source.startswith("measured"):
        return _order(first)
    where, printed, found, ids = (dict.fromkeys(values) for values in zip(
        *((place.where, place.printed, place.found, f"`{place.id}`") for place in places), strict=True))
    return (f"- {', '.join(where)}, {first.claim}: printed **{' and '.join(printed)}**, {otherwise(first)}: "
            f"**{_plain(' and '.join(found))}** ({', '.join(ids)})")


def _order(judgement: Judgement) -> str:
    return f"- {judgement.where}, {judgement.claim}: {_plain(judgement.evidence)} (`{judgement.id}`)"


def _by_place(judgements: Sequence[Judgement]) -> str:
    """How many places there are in each part of the paper, in one line."""
    parts = Counter(judgement.where for judgement in judgements)
    return f"Places: {', '.join(f'{where} ({count})' for where, count in parts.items())}"


def _by_want(judgements: Sequence[Judgement]) -> str:
    """Open claims by what is needed to judge them."""
    return "\n".join(f"- {len(group)} place{'s' * (len(group) != 1)} in "
                     f"{', '.join(dict.fromkeys(j.where for j in group))}: "
                     f"{f'`{what}`' if what.startswith('snakemake') else _plain(what)}"
                     for what, group in by_want(judgements).items())


_OF_MANY = {Verdict.HOLDS: _by_place, Verdict.CONSISTENT: _by_place, Verdict.OPEN: _by_want}
"""Verdicts whose chapter summarises all claims, in place of a line for each."""


def _shared(judgements: Iterable[Judgement]) -> Iterable[Judgement]:
    """Consecutive judgements that differ only in id, claim and printed value, merged into one."""
    for _, group in groupby(judgements, key=lambda j: (j.where, j.verdict, j.found, j.evidence, j.source, j.command)):
        found = list(group)
        yield replace(found[0], id=_joined(j.id for j in found), claim=_joined(j.claim for j in found),
                      printed=_joined(j.printed for j in found))


def _plain(text: str) -> str:
    """Evidence, which holds texts of records: on one line, and without HTML and links."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
