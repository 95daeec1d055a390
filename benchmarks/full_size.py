"""Profile the rows of Table 2 at their authors' size on a CPU, with seeded random weights in float32.

    python benchmarks/full_size.py                      # batch 1 and 4, both caches
    python benchmarks/full_size.py --batch 1 --turns 3

The rows of a batch size take turns, so that a change of the machine's speed affects all of them; speedups are within a
turn.  Subnets are plans of one network, which is drawn once, as is CoDe's drafter.  Each time is kept in --state at
once, so that the same command goes on after a kill; one that other work on the machine disturbed does not count.  A
finished row is a record in benchmarks/records, from where Tables 2 and 3 of the paper-size experiment take it.
Needs 18 GB of memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import BaseModel
from torch import Tensor

from varient.baselines.code import CodeSystem
from varient.baselines.code.decoding import CodeSampler
from varient.config import CachePolicy, ExperimentConfig
from varient.cost.roofline import PAPER_POLICY
from varient.disturbance import OTHERS
from varient.experiment import load_experiment
from varient.files import write_text
from varient.models.acceleration import Acceleration
from varient.models.build import build_transformer
from varient.models.transformer import initialize
from varient.profile_records import MachineLoad, ProfileRecord
from varient.profiling.latency import LoadWatch, Times, time_in_turns, usable_cores
from varient.profiling.profiler import (
    ATTEMPTS,
    Configuration,
    Workload,
    full_network_beside,
    new_record,
    watch_memory,
)
from varient.records import write_record
from varient.sampling import Guidance
from varient.systems.ids import base_system
from varient.systems.pipeline import Pipeline, random_pipeline, ready
from varient.systems.protocol import Sampler
from varient.systems.registry import resolve_system
from varient.systems.var import VARSystem

SYSTEMS = ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2", "code-n6", "llamagen-xxl", "dit-xl2")
CPU = torch.device("cpu")


Seconds = tuple[float, float]
"""Wall-clock and CPU time."""


class Turn(BaseModel):
    """Time of a row and of its decoder, and the machine's load meanwhile."""

    latency: Seconds
    decoder_latency: Seconds
    load: MachineLoad


class Row(BaseModel):
    """What was measured of a row so far."""

    memory: dict[str, float] = {}
    attention: set[str] = set()
    turns: list[Turn] = []


class State(BaseModel):
    """The rows of a batch size, by system and cache."""

    rows: dict[str, Row] = {}


@dataclass(frozen=True)
class Networks:
    """The full network, which rows share, and how to get a row's sampler."""

    config: ExperimentConfig
    full: Pipeline

    def sampler(self, system: str) -> Sampler:
        """The sampler of a row; its own networks are drawn only where the full network is none of them."""
        found = resolve_system(system, self.config)
        torch.manual_seed(self.config.seed)
        if isinstance(found, VARSystem):
            return replace(self.full, plan=found.plan)
        if isinstance(found, CodeSystem):
            settings = found.settings
            refiner = build_transformer(self.config, settings.refiner)
            initialize(refiner, gamma=1.0)
            return CodeSampler(self.full.model, ready(refiner), self.full.tokenizer, found.drafted,
                               Guidance(settings.cfg, settings.top_k, settings.top_p, settings.temperatures),
                               self.full.decoded_at_once)
        return found.load(None, "fp32")


def main(
    config: Path = Path("workflow/config/imagenet256.yaml"),
    systems: Annotated[list[str] | None, typer.Option("--system", help="default: the rows of Table 2")] = None,
    batches: Annotated[list[int] | None, typer.Option("--batch", help="default: 1 and 4")] = None,
    caches: Annotated[list[str] | None, typer.Option("--cache", help="lean or reference; default: both")] = None,
    turns: int = 3,
    state: Path = Path("runs/full-size"),
    output: Path = Path("benchmarks/records"),
) -> None:
    """Profile and write one record for each row, batch size and cache.

    Raises:
        SystemExit: switches of the environment change what would be measured, or the machine is not idle.
    """
    if switches := Acceleration.wanted().names:
        raise SystemExit(f"rows are measured as they are by default, without {', '.join(switches)}")
    experiment = load_experiment(config)
    torch.set_num_threads(usable_cores())
    networks: Networks | None = None
    for batch in batches or (1, 4):
        rows = [row for system in systems or SYSTEMS for row in _configurations(experiment, system, batch, caches)]
        paths = {row: output / f"profile-{row.system}-b{batch}-{row.cache_policy}-fp32-cpu.json" for row in rows}
        if all(path.exists() for path in paths.values()):
            continue
        networks = networks or Networks(experiment, _full_pipeline(experiment))
        state_path = state / f"b{batch}.json"
        measured = State.model_validate_json(state_path.read_text("utf-8")) if state_path.exists() else State()
        for turn in range(turns):
            for row in rows:
                found = measured.rows.setdefault(_name(row), Row())
                if len(found.turns) == turn:
                    found.turns.append(_timed(networks, row, found))
                    write_text(state_path, measured.model_dump_json())
                    seconds, _ = found.turns[-1].latency
                    print(f"batch {batch}, turn {turn + 1}, {_name(row)}: {seconds:.2f} s", flush=True)
        for row, path in paths.items():
            write_record(path, _record(experiment, row, measured))
            print(f"wrote {path}", flush=True)


def _name(row: Configuration) -> str:
    return f"{row.system} {row.cache_policy}"


def _configurations(config: ExperimentConfig, system: str, batch: int, caches: list[str] | None) -> list[Configuration]:
    policies = resolve_system(system, config).cache_policies
    chosen: list[CachePolicy] = [policy for policy in policies if caches is None or policy in caches]
    return [Configuration(system, batch, "fp32", policy, random_weights=True) for policy in chosen or policies[:1]]


def _full_pipeline(config: ExperimentConfig) -> Pipeline:
    full = resolve_system(base_system(config), config)
    torch.manual_seed(config.seed)
    return random_pipeline(config, full.plan)


def _timed(networks: Networks, row: Configuration, found: Row) -> Turn:
    """One turn of a row; before the first one its memory, which is added to ``found``.

    Raises:
        SystemExit: other work disturbs the machine, or nothing says whether it does.
    """
    sampler = networks.sampler(row.system)
    batch = Workload(networks.config, row, sampler)
    if not found.memory:
        _, found.memory, found.attention = watch_memory(batch, CPU)
    generated: list[Tensor] = []
    steps = {"latency": lambda: generated.append(batch.latents()),
             "decoder_latency": lambda: sampler.decode(generated[-1])}
    for _ in range(ATTEMPTS):
        with LoadWatch() as watch:
            times = time_in_turns(steps, CPU, warmup=0, repeats=1, label=_name(row))
        if watch.load is None or watch.load.others is None:
            raise SystemExit("the load of this machine cannot be read, so nothing says whether it was idle")
        if watch.load.others <= OTHERS * watch.load.cores:
            seconds = {name: (time.wall_s[0], time.cpu_s[0]) for name, time in times.items()}
            return Turn(load=watch.load, **seconds)
        print(f"other processes used {watch.load.others:.2f} cores: this time does not count", flush=True)
    raise SystemExit("other work runs on this machine; the same command goes on from here")


def _record(config: ExperimentConfig, row: Configuration, measured: State) -> ProfileRecord:
    found = measured.rows[_name(row)]
    full = full_network_beside(config, row, PAPER_POLICY)
    reference = measured.rows.get(_name(full)) if full != row else None
    times = {"latency": [turn.latency for turn in found.turns],
             "decoder_latency": [turn.decoder_latency for turn in found.turns]}
    if reference and len(reference.turns) >= len(found.turns):
        times["reference"] = [turn.latency for turn in reference.turns[:len(found.turns)]]
    latencies = {name: Times(*map(list, zip(*seconds, strict=True))).latency() for name, seconds in times.items()}
    return new_record(config, row, Path("runs") / config.name, memory=dict(found.memory), attention=found.attention,
                      warmup=1, load=max((turn.load for turn in found.turns), key=lambda load: load.others or 0),
                      **latencies)


if __name__ == "__main__":
    typer.run(main)
