"""Choose the system, precision and cache policy with the best FID within a budget of memory and latency.

Systems are VAR-d30 and its subnets whose FID is known: by the paper for depths d and bridges N, by records for what an
id can say besides (`varient.systems.ids`): what the cache keeps, how guidance runs, which layers a subnet has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from varient.config import SamplingConfig
from varient.cost.kv_accounting import POLICIES
from varient.cost.paper_systems import BRIDGE, DEPTH, paper_system
from varient.cost.roofline import peak_mib, system_cost
from varient.paper import paper_rows
from varient.systems.ids import VarId
from varient.yaml_file import shortened

PLANNED_PRECISIONS = ("fp16-autocast", "fp16")
"""Precisions that are compared: weights in float32 as in the paper, or in 16 bits."""

_MOST_S = 1e9
_COMPARED = ("protocol", "extractor", "reference_sha256", "num_images")
"""Fields of score records that must agree where FIDs are compared."""


@dataclass(frozen=True)
class Quality:
    """FID of a configuration and where it comes from."""

    fid: float
    source: str


@dataclass(frozen=True)
class Choice:
    """One configuration with its FID, predicted peak memory (MiB) and latency (s)."""

    system: VarId
    precision: str
    policy: str
    quality: Quality
    memory_mib: float
    latency_s: float

    @property
    def bridge(self) -> int:
        """N; a full network has none, and the paper's stands in."""
        return BRIDGE if self.system.bridge is None else self.system.bridge

    @property
    def name(self) -> str:
        """The configuration in words: d and N, or the id of a system that has more to say."""
        said = str(self.system)
        if self.system == VarId("var", DEPTH):
            said = f"d = {DEPTH} (full)"
        elif self.system == VarId("variant", self.system.depth, bridge=self.system.bridge):
            said = f"d = {self.system.depth}, N = {self.bridge}"
        return f"{said}, {self.precision}, {self.policy} cache"


def parse_seconds(text: str) -> float:
    """Seconds of "1.5s", "900ms" or "2".

    Raises:
        ValueError: another form, zero, or out of range.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s)?", text.strip(), re.ASCII)
    seconds = float(match[1]) / (1000 if match[2] == "ms" else 1) if match else 0
    if not 0 < seconds < _MOST_S:
        raise ValueError(f"latency {shortened(text)} is no time; write 1.5s or 900ms")
    return seconds


def paper_quality() -> dict[VarId, Quality]:
    """FID of depths and bridges as the paper's Table 8 prints it, contradictions included, and of untrained subnets
    (Table 4)."""
    found: dict[VarId, Quality] = {}
    for row in paper_rows("table8"):
        depth = int(row.pop("depth"))
        for column, fid in row.items():
            subnet = VarId("variant", depth, bridge=int(column[1:]))
            system = VarId("var", DEPTH) if depth == DEPTH else _named(subnet)
            # The full network has no bridge: it is printed five times.
            found.setdefault(system, Quality(float(fid), "paper, Table 8"))
    for row in paper_rows("table4"):
        untrained = VarId("free", int(row["subnet_depth"]))
        found[untrained] = Quality(float(row["training_free_subnet_fid"]), "paper, Table 4")
    return found


def measured_quality(records: Path) -> dict[VarId, Quality]:
    """FID of systems from the score records of an experiment with 30 layers.

    Raises:
        ValueError: a folder without such records, one that has another system's name, or records whose FIDs cannot be
            compared.
    """
    from varient.records import ScoreRecord, read_record

    if records.exists() and not records.is_dir():
        raise ValueError(f"{records}: a file, not a folder of score records")
    found: dict[VarId, ScoreRecord] = {}
    for path in sorted(records.glob("score-*.json")):
        system = VarId.parse(path.stem.removeprefix("score-"))
        if system and _can_be_chosen(system):
            record = read_record(path, ScoreRecord)
            if record.system != str(system):
                raise ValueError(f"{path}: is of {shortened(record.system)}, and not of {system} as its name says")
            found[_named(system)] = record
    if without := [record for record in found.values() if record.fid is None]:
        raise ValueError(f"{records}: its records have no FID, by which plans are chosen: their protocol is "
                         f"{shortened(without[0].protocol)}")
    if not found:
        raise ValueError(f"{records}: no score records of {VarId('var', DEPTH)} or of its trained subnets")
    for field in _COMPARED:
        if len(values := {str(getattr(record, field)) for record in found.values()}) > 1:
            raise ValueError(f"{records}: FIDs of these records cannot be compared, their {field} differs: "
                             f"{', '.join(shortened(value) for value in sorted(values))}")
    return {system: Quality(record.fid, f"measured ({record.provenance.experiment})")
            for system, record in found.items() if record.fid is not None}


def _named(system: VarId) -> VarId:
    """The id that does not name the paper's bridge zone."""
    return replace(system, bridge=None) if system.bridge == BRIDGE else system


def _can_be_chosen(system: VarId) -> bool:
    """Whether it is VAR-d30, or a subnet that is untrained or trained as by the paper: no other recipe, seed, base
    network or epoch, and not what ablations look at, such as the full network of a supernet."""
    as_the_paper = system == replace(system, recipe=None, seed=0, base=0, epoch=None, phase=None, full=False,
                                     plain=False, window=None)
    return as_the_paper and (system.depth == DEPTH if system.kind == "var" else system.depth < DEPTH)


_METHODS: dict[str, Callable[[VarId], bool]] = {
    "windows": lambda system: system.kv.window is not None,
    "packed entries": lambda system: system.kv.bits is not None,
    "budgets by head": lambda system: system.kv.budgets is not None,
    "other guidance": lambda system: system.kv.changes_guidance,
    "untrained subnets": lambda system: system.free,
}


def unknown_methods(quality: Iterable[VarId]) -> list[str]:
    """What a system may have and none of those with a known FID has, so that no choice has it."""
    known = list(quality)
    return [method for method, has in _METHODS.items() if not any(map(has, known))]


def choices(quality: Mapping[VarId, Quality], *, batch_size: int, device: str) -> list[Choice]:
    """Every configuration whose quality is known, best first: FID, then latency, then memory.

    Raises:
        ValueError: unknown device, a batch below 1, or a system that does not exist at the paper's size.
    """
    found, at_once = [], SamplingConfig.model_fields["decoded_at_once"].default
    for system, known in quality.items():
        only = paper_system(str(system)).cache
        for precision in PLANNED_PRECISIONS:
            for policy in (only,) if only else POLICIES:
                cost = system_cost(str(system), batch_size=batch_size, policy=policy, precision=precision,
                                   device_key=device)
                found.append(Choice(system, precision, policy, known, peak_mib(cost, at_once), cost.latency_s))
    return sorted(found, key=lambda c: (c.quality.fid, c.latency_s, c.memory_mib))


def fitting(found: Iterable[Choice], *, memory_mib: float, latency_s: float | None = None) -> list[Choice]:
    """The configurations within the budget, in the order given.

    Raises:
        ValueError: nothing fits; the message has the least memory and the least latency of all configurations.
    """
    candidates = list(found)
    chosen = [c for c in candidates if c.memory_mib <= memory_mib and (latency_s is None or c.latency_s <= latency_s)]
    if not chosen:
        leanest = min(candidates, key=lambda c: c.memory_mib)
        fastest = min(candidates, key=lambda c: c.latency_s)
        raise ValueError(f"nothing fits: the least memory is {leanest.memory_mib:.0f} MiB ({leanest.name}), the least "
                         f"time {fastest.latency_s:.2f} s ({fastest.name})")
    return chosen

