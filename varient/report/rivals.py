"""Methods that save cache or layers beside VARiant, in one byte convention: counted, predicted, measured, published."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd

from varient.config import ExperimentConfig
from varient.cost.kv_accounting import token_layers
from varient.cost.paper_systems import DEPTH, paper_system
from varient.cost.roofline import PAPER_DEVICE, ROWS_PER_IMAGE, SystemCost, system_cost
from varient.cost.sizes import MIB
from varient.disturbance import disturbances
from varient.paper import paper_rows, system_id
from varient.paper.published import published
from varient.paper.rivals import SHOWN_BATCH_SIZE, SHOWN_PAIR_BYTES, UNVERIFIED, PrintedMemory, Rival, rivals
from varient.paper_size import marks
from varient.records import Record, ScoreRecord
from varient.report.cells import ABSENT, ARITHMETIC, MARKS, NORMAL_95, PREDICTED, Cell, flatten, measured, number
from varient.report.fidelity_columns import FIDELITY_HEADINGS, fidelity_cells, fidelity_notes
from varient.report.needs import Needs, needs, systems_of_var
from varient.report.table2 import DISTURBED, needs_of_table2
from varient.report.table_writing import with_unknown_weights_said, write_table
from varient.results import Results, comparable
from varient.systems.ids import CodeId, VarId, parse
from varient.systems.protocol import System
from varient.systems.registry import resolve_system

_PRINTED_PAIR_BYTES = 6
"""Bytes of a key and a value channel behind the paper's column "KV Cache", and CoDe's."""
_PUBLISHED_IN = "paper, Table 2"
_Cells = dict[str, str | Cell]
"""A row of the table."""

_HEADINGS = {
    "method": "Method", "system": "System", "training": "Training", "kv_mib": "KV at the paper's size (MiB)",
    "latency_s": "Latency (s)", "speedup": "Speedup", "published": "Published FID / IS",
    "published_kv_mib": "Published KV, converted (MiB)", "here_kv_mib": "KV here (MiB)",
    "here_latency_s": "Latency here (s)", "fid": "FID", "fid_change": "Change of FID", "is": "IS", "precision": "Prec",
    "recall": "Rec", "front": "On the front", **FIDELITY_HEADINGS}
_SCORES = {"is": ("inception_score", 2), "precision": ("precision", 3), "recall": ("recall", 3)}


def rivals_table(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """The full network, CoDe and VARiant's subnets, then the methods of varient/paper/rivals.yaml, then the config's
    other rivals.

    Cache and latency at the paper's size are counted and predicted; what is measured here is empty without records.
    """
    here = {system.published_as: system for system in compared_systems(config)}
    described = {rival.id: rival for rival in rivals() if rival.id}
    compared = [name for name in here if name not in described and name in _table2_rows(config)]
    others = [name for name in here if name not in described and name not in compared]
    rows: list[_Cells] = [_of_paper(name, here[name], results) for name in compared]
    rows += [_of_rival(rival, here.get(rival.id or ""), results) for rival in rivals()]
    rows += [{"method": name, "system": here[name].name} | _counted(name) | _measured(here[name], results)
             for name in others]
    on_front = front(memory_and_fid(results, [system.name for system in here.values()]))
    return flatten([row | ({"front": "yes"} if row["system"] in on_front else {}) for row in rows])


def needs_of_rivals(config: ExperimentConfig) -> Needs:
    """All systems that the table measures; none where the config names no rivals."""
    systems = [system.name for system in compared_systems(config)] if config.rivals else []
    return needs(score=systems, profile=systems, fidelity=systems_of_var(systems))


def write_rivals(config: ExperimentConfig, results: Results, stem: Path) -> list[Path]:
    """Write <stem>.csv, .md and .tex; return the paths.  Records are treated as in `varient.report.tables.render`."""
    results = comparable(config.name, results)
    frame = with_unknown_weights_said(rivals_table(config, results), config, results)
    return write_table(frame, _HEADINGS, list(_notes(config, results)), stem)


def compared_systems(config: ExperimentConfig) -> list[System]:
    """Table 2's systems of VAR and CoDe, and the config's rivals."""
    names = [name for name in needs_of_table2(config).profile if isinstance(parse(name), VarId | CodeId)]
    return [resolve_system(name, config) for name in dict.fromkeys((*names, *config.rivals))]


def _table2_rows(config: ExperimentConfig) -> set[str]:
    return {resolve_system(name, config).published_as for name in needs_of_table2(config).profile}


# -- a row -------------------------------------------------------------------------------------------------------------

def _of_paper(published_as: str, system: System, results: Results) -> _Cells:
    """A row of the paper's Table 2, or of CoDe's tables."""
    printed = {name: (kv, row) for name, kv, row in printed_by_the_paper()}
    source = published(published_as)
    row: _Cells = {"method": source.name if source else published_as, "system": system.name,
                   "training": _training(published_as)}
    if published_as in printed:
        kv, cells = printed[published_as]
        row |= {"published": f"{cells['fid']} / {cells['is']} ({_PUBLISHED_IN})",
                "published_kv_mib": _kv(kv, kv.printed)}
    elif source:
        row["published"] = source.cell()
    return row | _counted(published_as) | _measured(system, results)


def printed_by_the_paper() -> list[tuple[str, PrintedMemory, dict[str, str]]]:
    """Rows of Table 2 with a size of the cache: id, that size, all cells."""
    return [(system_id(row["method"]), PrintedMemory(printed=f"{row['kv_cache_mb']} MB", mib=float(row["kv_cache_mb"]),
                                                     pair_bytes=_PRINTED_PAIR_BYTES), row)
            for row in paper_rows("table2") if row["kv_cache_mb"]]


def _training(published_as: str) -> str:
    found = parse(published_as)
    if isinstance(found, CodeId):
        return "none" if found.free else "fine-tuning"
    return "supernet" if isinstance(found, VarId) and found.of_supernet else "none"


def _of_rival(rival: Rival, system: System | None, results: Results) -> _Cells:
    row: _Cells = {
        "method": rival.method, "system": system.name if system else rival.id or "", "training": rival.training,
        "published": "; ".join(found.cell for found in rival.numbers if found.cell),
        "published_kv_mib": "; ".join(_published_kv(rival))}
    return row | (_counted(rival.id) if rival.id else {}) | (_measured(system, results) if system else {})


def _published_kv(rival: Rival) -> Iterator[str]:
    """Each published size once; it is unverified where no place that we have seen prints it."""
    verified = {found.kv.printed for found in rival.numbers if found.kv and not found.unverified}
    sizes = {found.kv.printed: found for found in rival.numbers if found.kv}
    for printed, found in sizes.items():
        assert found.kv is not None
        yield _kv(found.kv, printed if printed in verified else found.kv_mark)


def _kv(kv: PrintedMemory, printed: str) -> str:
    return f"{converted_mib(kv):.1f} ({printed})"


def converted_mib(kv: PrintedMemory) -> float:
    """A published size in the convention of the table."""
    return kv.shown_mib(_all_entries_mib(kv.depth))


@cache
def _all_entries_mib(depth: int) -> float:
    """All keys and values of VAR-d<depth> in the convention of the table."""
    (stage,) = paper_system(str(VarId("var", depth))).stages
    channels = ROWS_PER_IMAGE * SHOWN_BATCH_SIZE * token_layers(stage.passes) * stage.embed_dim
    return channels * SHOWN_PAIR_BYTES / MIB


def _counted(published_as: str) -> _Cells:
    """Peak of the lean cache, and predicted latency, at the paper's size; nothing for a row that has none there."""
    cost, full = _cost(published_as), _cost(str(VarId("var", DEPTH)))
    if cost is None or full is None:
        return {}
    source = f"{PREDICTED} ({PAPER_DEVICE})"
    return {"kv_mib": Cell(number(cost.kv_cache_bytes / MIB, 1), source=ARITHMETIC),
            "latency_s": Cell(number(cost.latency_s, 2), source=source),
            "speedup": Cell(number(full.latency_s / cost.latency_s, 2), source=source)}


@cache
def _cost(published_as: str) -> SystemCost | None:
    try:
        return system_cost(published_as, batch_size=SHOWN_BATCH_SIZE, policy="lean")
    except ValueError:  # such as a window that fits this experiment's scales or N, and not the paper's
        return None


def _measured(system: System, results: Results) -> _Cells:
    row: _Cells = {}
    if profile := results.profiles.get(system.name):
        source = f"measured ({profile.provenance.experiment})"
        row["here_kv_mib"] = Cell(number(profile.memory.kv_cache_mib, 3), source=source)
        if profile.latency:
            mark = DISTURBED if disturbances(profile) else ""
            row["here_latency_s"] = Cell(number(profile.latency.median_s, 4) + mark, source=source)
    if score := results.scores.get(system.name):
        row |= {"fid": measured(score, "fid", 3), "fid_change": _change(score, _without(system.name), results)}
        row |= {column: measured(score, name, digits) for column, (name, digits) in _SCORES.items()}
    return row | fidelity_cells(results, system.name)


def _without(name: str) -> str:
    """The id of the same weights and depths with Eq. 2's layers, a cache that keeps everything, and guidance."""
    found = VarId.parse(name)
    return name if found is None else str(replace(
        found, previous=None, previous_by_layer=None, coarsest=None, kv_bits=None, budget=None, shared_map=False,
        guided=None, prefix=False, nested=False, random=None))


def _change(score: ScoreRecord, plain: str, results: Results) -> Cell:
    """FID minus that of the same system without the method, with the 95 % interval over redraws of both's images."""
    other = results.scores.get(plain)
    if other is None or plain == score.system or score.fid is None or other.fid is None:
        return Cell()
    spread = "" if score.fid_sd is None or other.fid_sd is None else number(
        NORMAL_95 * math.hypot(score.fid_sd, other.fid_sd), 3)
    return Cell(f"{score.fid - other.fid:+.3f}", spread, source=f"measured ({score.provenance.experiment})")


def memory_and_fid(results: Results, systems: Iterable[str]) -> dict[str, tuple[float, float]]:
    """MiB of the cache and FID of the systems that have records of both."""
    return {name: (profile.memory.kv_cache_mib, score.fid) for name in systems
            if (score := results.scores.get(name)) and score.fid is not None and (profile := results.profiles.get(name))
            and profile.memory.kv_cache_mib is not None}


def front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Systems beside which no other has as small a cache and as small a FID, and one of both smaller; by cache."""
    kept = [name for name, point in points.items()
            if not any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points.values())]
    return sorted(kept, key=points.__getitem__)


# -- its notes ---------------------------------------------------------------------------------------------------------

def _notes(config: ExperimentConfig, results: Results) -> Iterator[str]:
    yield (f"Methods that save KV cache or layers, beside VARiant; docs/rivals.md explains them. {ABSENT} means no "
           f"value, {MARKS[ARITHMETIC]} exact from shapes, {MARKS[PREDICTED]} predicted by the cost model; unmarked "
           f"values are measured ({config.name}).")
    yield from (f"{title}: {text}." for title, text in marks(config, results).items())
    yield (f"KV, latency and speedup at the paper's size: VAR-d{DEPTH} on {PAPER_DEVICE.upper()}, batch "
           f"{SHOWN_BATCH_SIZE} with guidance, fp16 autocast, entries freed after their last use. Published sizes are "
           f"converted to the same batch and to {SHOWN_PAIR_BYTES} bytes for a key and a value channel (in print are "
           f"4, 6 and 8); they count all entries that a method keeps, {_all_entries_mib(DEPTH):.0f} MiB of the full "
           "network, and so lie above what is alive at once.")
    yield (f"Published numbers are of their authors' protocols; {UNVERIFIED} means that we know them from a note by "
           "somebody else. Sources: varient/paper/rivals.yaml and published.yaml.")
    if results.scores:
        yield ("Change of FID: against the same weights with Eq. 2's layers, a cache that keeps everything, and "
               "guidance at all scales by two maps. ± is half the width of a 95 % interval over redraws of the scored "
               "images. On the front: no other row has a smaller cache here and a smaller FID.")
    yield from fidelity_notes(results)
    wanted = needs_of_rivals(config)
    there: dict[str, Mapping[str, Record]] = {"score": results.scores, "profile": results.profiles,
                                              "fidelity": results.fidelities}
    absent = {kind: [name for name in getattr(wanted, kind) if name not in found] for kind, found in there.items()}
    if gaps := [f"{kind} of {', '.join(names)}" for kind, names in absent.items() if names]:
        yield f"No record: {'; '.join(gaps)}."
    yield from (f"Left out: {remark}." for remark in results.remarks)
