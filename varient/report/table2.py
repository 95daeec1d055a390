"""Table 2: quality and cost of every system, measured here, and at the paper's size counted and predicted too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import pandas as pd

from varient.config import ExperimentConfig
from varient.cost.kv_accounting import passes, token_layers
from varient.cost.paper_systems import BRIDGE
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_DEVICE, PAPER_POLICY, SystemCost, peak_mib, system_cost
from varient.cost.sizes import MIB
from varient.disturbance import disturbances, speedup_disturbances
from varient.paper import DEPTH, paper_rows, system_id
from varient.paper.published import published
from varient.paper_size import is_paper_size, on_cpu
from varient.profile_records import ProfileRecord
from varient.pyramid import VAR_256, Pyramid
from varient.records import ScoreRecord
from varient.report.cells import ARITHMETIC, PREDICTED, Cell, flatten, measured, number
from varient.report.fidelity_columns import fidelity_cells
from varient.report.needs import Needs, needs, shown_depths, systems_of_var
from varient.results import Results
from varient.spread import DECIMALS
from varient.systems.ids import VarId, base_system
from varient.systems.protocol import System
from varient.systems.registry import resolve_system

NO_COUNTERPART = "none"
OUT_OF_MEMORY = "OOM"
DISTURBED = " (disturbed)"
"""Beside times of a profile that other work on the machine disturbed."""
CPU_BATCH = 1
"""Batch of the profiles on a CPU that the table shows at the paper's size."""
COLUMNS = ("steps", "speedup", "work_ratio", "latency_s", "images_per_s", "memory_mb", "kv_cache_mb", "params",
           "fid", "fid_ratio", "is", "precision", "recall")
_SCORES = {"fid": "fid", "is": "inception_score", "precision": "precision", "recall": "recall"}
_EXTRA_FIDS = ("fid_test", "fid_cross")
"""FIDs against other references, in experiments that have them."""
_FLOORS = {"train": "train", "holdout": "held out", "test": "test set"}
"""What is said of the split of real images that are scored as if they were generated."""
_BASE = str(VarId("var", DEPTH))


def table2(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 2: each row of the paper with our value and the paper's for each column, and what others published.

    Behind the paper's rows come those that the config adds (other protocols, other systems) and the real images.  Ours
    is empty where no record says it; for an experiment at the paper's size, memory, time and parameters are then
    counted or predicted, under the paper's setting (L20, batch 64, reference cache).  Latency and memory of the digits
    experiment are those of a miniature on this machine's CPU; compare ratios with the paper's, not seconds.
    """
    printed = _printed()
    systems = (resolve_system(name, config) for name in needs_of_table2(config).profile)
    here = {system.published_as: system for system in systems}
    rows = []
    for published_as in (*printed, *(other for other in here if other not in printed)):
        system, paper, source = here.get(published_as), printed.get(published_as, {}), published(published_as)
        ours = _counted(published_as, system, config) | _measured(results, system, here[_BASE])
        own = system.name if system else NO_COUNTERPART
        row: dict[str, str | Cell] = {"method": paper.get("method") or (source.name if source else own),
                                      "system": own}
        row |= {column: _beside(ours.get(column), paper.get(column, ""), system, results) for column in COLUMNS}
        row |= _on_cpu(published_as, config, results)
        row |= {column: ours[column] for column in _EXTRA_FIDS if column in ours}
        row |= fidelity_cells(results, system.name if system else "")
        rows.append(row | {"recognised": ours.get("recognised", ""), "published": source.cell() if source else ""})
    if floor := results.scores.get(f"real-{config.data.floor_split}"):
        rows.append({"method": f"Real images ({_FLOORS[config.data.floor_split]})", "system": floor.system}
                    | _scores(floor, results.scores.get(here[_BASE].name)))
    return flatten(rows)


def _printed() -> dict[str, dict[str, str]]:
    """The paper's rows by system, with ratios to VAR-d30's: of FIDs, and in brackets of latencies where it prints no
    speedup; and with the images per second that its latencies are."""
    rows = {system_id(row["method"]): row for row in paper_rows("table2")}
    base = rows[_BASE]
    for system, row in rows.items():
        row["fid_ratio"] = number(float(row["fid"]) / float(base["fid"]), 2)
        row["speedup"] = row["speedup"] or f"[{float(base['latency_s']) / float(row['latency_s']):.2f}]"
        row["images_per_s"] = number(PAPER_BATCH_SIZE / float(row["latency_s"]), 1)
        row["work_ratio"] = _work_ratio(VarId.parse(system), DEPTH, VAR_256, BRIDGE)
    return rows


def _work_ratio(system: VarId | None, depth: int, pyramid: Pyramid, bridge: int,
                subnet: Callable[[int], tuple[int, ...] | None] = lambda depth: None) -> str:
    """Token-layers of the full network over those of one of its subnets; empty for systems of other networks."""
    if system is None:
        return ""
    plan = system.plan(depth, pyramid.num_scales, bridge, subnet)
    return number(depth * pyramid.length / token_layers(passes(plan, pyramid)), 2)


def needs_of_table2(config: ExperimentConfig) -> Needs:
    """VAR, its subnets and the config's further rows, scored and profiled; held-out real images, scored."""
    systems = [base_system(config), *(VarId("variant", depth) for depth in shown_depths(config)), *config.rows]
    floor = [f"real-{config.data.floor_split}"] if config.data.holdout else []
    return needs(score=[*systems, *floor], profile=systems, fidelity=systems_of_var(systems))


def _beside(ours: Cell | None, paper: str, system: System | None, results: Results) -> Cell:
    if ours:
        return Cell(ours.ours, ours.half_width, paper, ours.source)
    why = "" if system is None or (system.name in results.scores and system.name in results.profiles) else "no record"
    return Cell(paper=paper, source=why)


def _measured(results: Results, system: System | None, base: System) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    if profile := results.profiles.get(system.name if system else ""):
        cells |= _costs(profile, results.profiles.get(base.name))
    if score := results.scores.get(system.name if system else ""):
        cells |= _scores(score, results.scores.get(base.name))
    return cells


def _scores(score: ScoreRecord, base: ScoreRecord | None) -> dict[str, Cell]:
    """All scores, and the FID relative to VAR's, which says more than FIDs on two scales side by side."""
    extra = {name: name for name in _EXTRA_FIDS if getattr(score, name) is not None}
    shown = _SCORES | {"recognised": "recognised"} | extra
    cells = {column: measured(score, name, DECIMALS[name]) for column, name in shown.items()}
    if base and base.fid and score.fid is not None:
        cells["fid_ratio"] = Cell(number(score.fid / base.fid, 2), source=cells["fid"].source)
    return cells


def _costs(profile: ProfileRecord, baseline: ProfileRecord | None) -> dict[str, Cell]:
    """Steps, latency and memory; of a system that ran out of memory the last two are OOM."""
    counts = list(profile.parameters.values()) or [profile.num_parameters]
    cells = {"steps": profile.steps, "params": _parameters(counts)}
    if not profile.latency:
        cells |= {"latency_s": OUT_OF_MEMORY, "memory_mb": OUT_OF_MEMORY}
    else:
        latency_s, memory = profile.latency.median_s, profile.memory
        signs = disturbances(profile)
        cells |= {"latency_s": _marked(number(latency_s, 4), signs),
                  "images_per_s": _marked(number(profile.images_per_s, 1), signs),
                  "speedup": _speedup(profile, baseline),
                  "memory_mb": number(memory.peak_mib, 1), "kv_cache_mb": number(memory.kv_cache_mib, 3)}
    source = f"measured ({profile.provenance.experiment})"
    return {column: Cell(text, source=source) for column, text in cells.items() if text}


def _speedup(profile: ProfileRecord, baseline: ProfileRecord | None) -> str:
    """Relative to the full network in turns with the system; without turns, to the full network's own profile."""
    if profile.speedup:
        return _marked(number(profile.speedup, 2), speedup_disturbances(profile))
    if profile.latency is None or baseline is None or baseline.latency is None:
        return ""
    signs = (*disturbances(profile), *disturbances(baseline))
    return _marked(number(baseline.latency.median_s / profile.latency.median_s, 2), signs)


def _marked(time: str, signs: Sequence[str]) -> str:
    return f"{time}{DISTURBED}" if time and signs else time


def _counted(published_as: str, system: System | None, config: ExperimentConfig) -> dict[str, Cell]:
    """Computed cells of a row, and predicted ones if the experiment is at the paper's size."""
    if system is None:
        return {}
    ratio = _work_ratio(VarId.parse(system.name), config.transformer.depth, config.pyramid, config.supernet.bridge,
                        config.subnet_layers)
    counted = {"work_ratio": Cell(ratio, source=ARITHMETIC)} if ratio else {}
    if not is_paper_size(config) or (cost := _cost(published_as)) is None:
        return counted
    cells = counted | {"steps": Cell(system.steps, source=ARITHMETIC),
                       "params": Cell(_parameters(cost.system.transformer_parameters), source=ARITHMETIC)}
    if cost.policy == PAPER_POLICY:  # CoDe and VAR; of the others the paper prints no memory
        cells |= {"kv_cache_mb": Cell(number(cost.kv_cache_bytes / MIB, 1), source=ARITHMETIC)}
    baseline_s = system_cost(_BASE, policy=PAPER_POLICY).latency_s
    predicted = {"latency_s": number(cost.latency_s, 2), "images_per_s": number(cost.batch_size / cost.latency_s, 1),
                 "speedup": number(baseline_s / cost.latency_s, 2)}
    if cost.peak_memory:
        predicted["memory_mb"] = number(peak_mib(cost, None), 0)
    return cells | {name: Cell(text, source=f"{PREDICTED} ({PAPER_DEVICE})") for name, text in predicted.items()}


def _on_cpu(published_as: str, config: ExperimentConfig, results: Results) -> dict[str, str]:
    """Time and cache of a row at its authors' size with random weights, measured on a CPU; for the paper's experiment.
    """
    if not is_paper_size(config):
        return {}
    found = on_cpu(results.benchmarks, CPU_BATCH)
    profile = next((record for (system, policy), record in found.items()
                    if system == published_as and policy != "lean"), None)
    if profile is None or profile.latency is None:
        return {}
    return {"cpu_speedup": number(1.0, 2) if published_as == _BASE else _speedup(profile, None),
            "cpu_latency_s": _marked(number(profile.latency.median_s, 1), disturbances(profile)),
            "cpu_kv_cache_mb": number(profile.memory.kv_cache_mib, 1)}


@cache
def _cost(published_as: str) -> SystemCost | None:
    try:
        return system_cost(published_as, policy=PAPER_POLICY)
    except ValueError:  # a row that the cost model does not know
        return None


def _parameters(counts: Sequence[int]) -> str:
    """Parameters of each network, as in the paper's "2.0+0.3B"."""
    return " + ".join(map(_count, counts))


def _count(value: int) -> str:
    for factor, suffix in ((10 ** 9, "B"), (10 ** 6, "M"), (10 ** 3, "K")):
        if value >= factor:
            return f"{value / factor:.3g}{suffix}"
    return str(value)
