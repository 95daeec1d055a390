"""The report's first page and its summary: Table 2 in short, and the verdicts on the claims.

The first page leads with one figure and the systems, then has each discrepancy in one line, then what is open and what
would close it.
The summary is a page of its own with the evidence.  All contents of the input tables are escaped: as HTML in the
summary, and on the first page as reStructuredText, which also passes through Snakemake's templates.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from varient.claims import Judgement, Verdict, read_judgements
from varient.claims.tally import Tally, by_finding, by_verdict, by_want, otherwise
from varient.csv_file import Row, read_rows
from varient.files import write_text
from varient.paper import TITLE
from varient.spread import joined

_TOLD = (Verdict.CONTRADICTS, Verdict.NOT_REPRODUCED, Verdict.REPRODUCED, Verdict.SEEN, Verdict.REVERSED,
         Verdict.PARTLY_REVERSED, Verdict.NOT_RESOLVED)
"""Verdicts whose claims are listed, in this order; of the others only the number is shown."""

_SYSTEMS = {"method": "System", "fid": "FID", "fid_ratio": "FID over VAR's", "is": "IS", "latency_s": "Latency (s)",
            "speedup": "Speedup", "memory_mb": "Memory (MiB)", "kv_cache_mb": "KV (MiB)"}
_MOST_BYTES = 2 ** 24
_PNG = b"\x89PNG\r\n\x1a\n"


def write_opening(claims: Path, table2: Path, figure: Path, opening: Path, summary: Path) -> None:
    """Write both pages from results/claims.csv and results/table2.csv.

    Args:
        figure: PNG at the head of the first page, which contains a copy of it.
        opening: reStructuredText, for `report:`.
        summary: a self-contained HTML page.

    Raises:
        ValueError: files of another kind.
    """
    judged, systems = read_judgements(claims), read_rows(table2, {"method", "fid"})
    tallies = by_verdict(judged)
    of_verdict = {verdict: [judgement for judgement in judged if judgement.verdict is verdict] for verdict in Verdict}
    facts = {
        "figure": _data_uri(figure), "paper": TITLE, "all": Tally.of(judged), "tallies": tallies, "Verdict": Verdict,
        "chapters": {verdict: of_verdict[verdict] for verdict in _TOLD if of_verdict[verdict]},
        "contradicted": [_discrepancy(group) for group in by_finding(of_verdict[Verdict.CONTRADICTS])],
        "open": by_want(of_verdict[Verdict.OPEN]),
        "system_headings": list(_SYSTEMS.values()),
        "systems": [[_cell(row, name) for name in _SYSTEMS] for row in systems],
    }
    for path, environment, template in ((opening, _environment(finalize=_as_rst), "opening.rst"),
                                        (summary, _environment(autoescape=True), "summary.html")):
        write_text(path, environment.get_template(template).render(facts))


def _discrepancy(places: Sequence[Judgement]) -> dict[str, str]:
    """One finding with all its places."""
    return {"where": _listed(place.where for place in places), "claim": places[0].claim,
            "printed": _listed(place.printed for place in places), "by": otherwise(places[0]),
            "found": _listed(place.found for place in places)}


def _environment(**escaping: Any) -> Environment:
    found = Environment(loader=PackageLoader("varient.report"), undefined=StrictUndefined, trim_blocks=True,
                        lstrip_blocks=True, keep_trailing_newline=True, **escaping)
    found.filters |= {"listed": _listed, "by_evidence": _by_evidence}
    return found


def _data_uri(figure: Path) -> Markup:
    """A PNG as an address that contains the picture, over many lines: docutils refuses long ones.

    Raises:
        ValueError: a file that is missing, too large or no PNG.
    """
    try:
        with figure.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{figure}: cannot be read ({error.strerror})") from None
    if not content.startswith(_PNG) or len(content) > _MOST_BYTES:
        raise ValueError(f"{figure}: no PNG, or larger than any of ours")
    return Markup("data:image/png;base64,\n" + base64.encodebytes(content).decode().rstrip())


def _as_rst(value: object) -> str:
    """A value as reStructuredText that shows it as it is, on one line: a backslash makes any character plain.

    Markup is left as it is.
    """
    if isinstance(value, Markup):
        return value
    return re.sub(r"[^\w\s]|_", r"\\\g<0>", " ".join(str(value).split())) or "–"


def _by_evidence(found: Sequence[Judgement]) -> list[list[str]]:
    """One line for all claims with the same evidence."""
    groups: dict[str, list[Judgement]] = {}
    for judgement in found:
        groups.setdefault(judgement.evidence, []).append(judgement)
    return [[_listed(judgement.where for judgement in group), _listed(judgement.claim for judgement in group),
             _listed(judgement.printed for judgement in group), evidence] for evidence, group in groups.items()]


def _listed(texts: Iterable[str], most: int = 3) -> str:
    texts = list(dict.fromkeys(texts))
    return "; ".join(texts[:most]) + (f"; and {len(texts) - most} more" if len(texts) > most else "")


def _cell(row: Row, column: str) -> str:
    return joined(row.get(column, ""), row.get(f"{column}_pm", ""))
