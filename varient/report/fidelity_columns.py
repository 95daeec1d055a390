"""Columns that say how far a system's pictures are from the full network's, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import hypot, inf

from varient.records import Fidelity, FidelityRecord
from varient.report.cells import Cell, number
from varient.results import Results
from varient.spread import DECIMALS, half_width

FIDELITY_HEADINGS = {"psnr_db": "PSNR to VAR's (dB)", "ssim": "SSIM to VAR's", "lpips": "LPIPS to VAR's",
                     "same_class": "Same class as VAR's", "fid_star": "FID*",
                     "equal_tokens": "Equal tokens"}
_FIELDS = {"fid_star": "fid", "equal_tokens": "tokens"}
"""Columns that are called otherwise in the record."""
_OPTIONAL = ("lpips",)
INFINITE = "∞"


def fidelity_cells(results: Results, system: str) -> dict[str, Cell]:
    """One cell for each column, empty for a system without a record; no columns where no system has one."""
    found = {fidelity.system: (fidelity, record) for record in results.fidelity for fidelity in record.systems}
    if system not in found:
        return {column: Cell() for column in FIDELITY_HEADINGS if found and column not in _OPTIONAL}
    fidelity, record = found[system]
    return {column: _cell(fidelity, record, _FIELDS.get(column, column)) for column in FIDELITY_HEADINGS
            if column not in _OPTIONAL or getattr(fidelity, column) is not None}


def _cell(fidelity: Fidelity, record: FidelityRecord, name: str) -> Cell:
    source = f"measured ({record.provenance.experiment})"
    value, sd = getattr(fidelity, name), getattr(fidelity, f"{name}_sd")
    if value is None:
        return Cell(INFINITE, source=source) if name == "psnr_db" else Cell()
    return Cell(number(value, DECIMALS[name]), number(None if sd is None else half_width(sd), DECIMALS[name]),
                source=source)


def fidelity_notes(results: Results) -> Iterator[str]:
    """What the columns are, and whether they rank the systems as FID does; nothing without a record."""
    if not results.fidelity:
        return
    record, found = results.fidelity[0], results.fidelities
    tokens = max(each.num_token_images for each in results.fidelity)
    yield (f"Columns with VAR's compare each picture with the one that {record.reference} draws from the same seed for "
           f"the same class, over {record.num_images} pairs: PSNR is of the mean squared error ({INFINITE}: all pairs "
           f"are equal to the bit), SSIM has a window of {record.ssim_kernel} pixels, FID* is FID against these "
           f"pictures in place of real ones. Equal tokens: share over all scales of the first {tokens} images. ± is "
           "half the width of a 95 % interval over the pairs.")
    yield from _ranking(results, found, record.reference)


def _ranking(results: Results, found: dict[str, Fidelity], reference: str) -> Iterator[str]:
    """Whether FID, FID* and SSIM order the systems alike: the pairs of systems that two of them order differently, and
    those that both tell apart."""
    fid = {name: (score.fid, _or_unknown(score.fid_sd)) for name, score in results.scores.items()
           if name != reference and name in found and found[name].fid is not None and score.fid is not None}
    if len(fid) < 2:
        return
    told = []
    others = {"FID*": {name: (found[name].fid or 0.0, _or_unknown(found[name].fid_sd)) for name in fid},
              "SSIM": {name: (-found[name].ssim, found[name].ssim_sd) for name in fid}}
    for title, other in others.items():
        pairs = list(combinations(fid, 2))
        turned = [(a, b) for a, b in pairs if (fid[a][0] - fid[b][0]) * (other[a][0] - other[b][0]) < 0]
        apart = sum(_are_apart(fid[a], fid[b]) and _are_apart(other[a], other[b]) for a, b in turned)
        told.append(f"{title} orders them as FID does" if not turned else
                    f"{title} orders {len(turned)} of {len(pairs)} pairs of them the other way round than FID, {apart} "
                    "of them with both differences beyond the 95 % interval over redraws")
    yield f"Of the {len(fid)} systems with both, leaving out {reference}: {'; '.join(told)}."


def _or_unknown(sd: float | None) -> float:
    return inf if sd is None else sd


def _are_apart(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two values with their standard errors, infinite where unknown, differ by more than half of a 95 %
    interval."""
    return abs(one[0] - other[0]) > half_width(hypot(one[1], other[1]))
