"""Choose depth d, bridge N, precision and cache policy with the best FID within a budget of memory and latency."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from varient.config import SamplingConfig
from varient.cost.kv_accounting import POLICIES
from varient.cost.paper_systems import BRIDGE, DEPTH
from varient.cost.roofline import peak_mib, system_cost
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

    depth: int
    bridge: int
    precision: str
    policy: str
    quality: Quality
    memory_mib: float
    latency_s: float

    @property
    def name(self) -> str:
        """The configuration in words."""
        shape = f"d = {self.depth}" + (f", N = {self.bridge}" if self.depth < DEPTH else " (full)")
        return f"{shape}, {self.precision}, {self.policy} cache"


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


def paper_quality() -> dict[tuple[int, int], Quality]:
    """FID by (d, N) as the paper's Table 8 prints it, contradictions included."""
    with (files("varient") / "paper" / "table8.csv").open(encoding="utf-8") as file:
        return {(int(row["depth"]), int(column[1:])): Quality(float(fid), "paper, Table 8")
                for row in csv.DictReader(file) for column, fid in row.items() if column != "depth"}


def measured_quality(records: Path) -> dict[tuple[int, int], Quality]:
    """FID by (d, N) from the score records of an experiment with 30 layers.

    Raises:
        ValueError: a folder without such records, one that has another system's name, or records whose FIDs cannot be
            compared.
    """
    from varient.records import ScoreRecord, read_record

    if records.exists() and not records.is_dir():
        raise ValueError(f"{records}: a file, not a folder of score records")
    found: dict[tuple[int, int], ScoreRecord] = {}
    for path in sorted(records.glob("score-*.json")):
        system = VarId.parse(path.stem.removeprefix("score-"))
        # The base network, or a subnet as the paper trains it: no other recipe, seed or epoch.
        if system and system in (VarId("var", DEPTH), VarId("variant", system.depth, bridge=system.bridge)):
            record = read_record(path, ScoreRecord)
            if record.system != str(system):
                raise ValueError(f"{path}: is of {shortened(record.system)}, and not of {system} as its name says")
            found[system.depth, BRIDGE if system.bridge is None else system.bridge] = record
    if without := [record for record in found.values() if record.fid is None]:
        raise ValueError(f"{records}: its records have no FID, by which plans are chosen: their protocol is "
                         f"{shortened(without[0].protocol)}")
    if not found:
        raise ValueError(f"{records}: no score records of {VarId('var', DEPTH)} or of its trained subnets")
    for field in _COMPARED:
        if len(values := {str(getattr(record, field)) for record in found.values()}) > 1:
            raise ValueError(f"{records}: FIDs of these records cannot be compared, their {field} differs: "
                             f"{', '.join(shortened(value) for value in sorted(values))}")
    return {key: Quality(record.fid, f"measured ({record.provenance.experiment})") for key, record in found.items()
            if record.fid is not None}


def choices(quality: dict[tuple[int, int], Quality], *, batch_size: int, device: str) -> list[Choice]:
    """Every configuration whose quality is known, best first: FID, then latency, then memory.

    Raises:
        ValueError: unknown device, or a batch below 1.
    """
    found, at_once = [], SamplingConfig.model_fields["decoded_at_once"].default
    for (depth, bridge), known in quality.items():
        system = str(VarId("var", DEPTH) if depth == DEPTH else VarId("variant", depth, bridge=bridge))
        if depth == DEPTH and bridge != min(b for d, b in quality if d == DEPTH):
            continue  # the full network has no bridge: one row is enough
        for precision in PLANNED_PRECISIONS:
            for policy in POLICIES:
                cost = system_cost(system, batch_size=batch_size, policy=policy, precision=precision,
                                   device_key=device)
                found.append(Choice(depth, bridge, precision, policy, known, peak_mib(cost, at_once), cost.latency_s))
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

