"""Regression check of speed: whether ratios of times are still those of an accepted baseline.

The ratios are of steps that take turns in one process on one thread of the CPU, so that a machine that slows down slows
both sides.  Times themselves are never compared: another machine has others.  The networks are those of
`results/baseline/`; the accepted ratios lie beside them in `speed.json`.

A measurement that other work disturbed is repeated, and gives no verdict if it still is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import torch
from pydantic import model_validator

from varient import markdown
from varient.config import ExperimentConfig
from varient.disturbance import turn_disturbances
from varient.evaluation.drift import SYSTEMS, DriftError, accepted_sampler, open_baseline
from varient.evaluation.moments import FrechetReference, Moments
from varient.evaluation.neighbours import density_coverage, precision_recall
from varient.generation import label_of
from varient.profile_records import MachineLoad
from varient.profiling.latency import LoadWatch, Step, Times, time_in_turns
from varient.records import Above, Positive, Provenance, Record, device_name, provenance, read_record, write_record
from varient.systems.protocol import Sampler

WARN, FAIL = 0.10, 0.25
"""Relative changes of a ratio, up or down, that are told and that are out of tolerance.  Our choice: over four
runs on an idle machine ratios differed by at most 3.2 %, scoring over products by 8 % over ten separate processes."""
BATCH_SIZE = 64
WARMUP, REPEATS = 1, 7
"""Rounds of all steps: dropped, and timed."""
ATTEMPTS = 3
"""How often ratios are measured while other work disturbs them."""
NUM_FEATURES, FEATURE_DIM = 2000, 512
"""Of the two fixed sets that are scored.  With few dimensions the time is that of memory, which some processes get anew
with every step: ratios to products then differ by a third from process to process."""
PRODUCT_SIZE, PRODUCTS = 1024, 16
"""Side of the plain matrix products, and how many are a step: they take about as long as the scoring."""
FILE = "speed.json"

SUBNET, FULL = SYSTEMS
Verdict = Literal["holds", "changed", "moved", "disturbed"]


class Pair(NamedTuple):
    """Two steps, the ratio of whose times is compared.

    Attributes:
        portable: whether both sides are work of one kind, whose ratio another processor should nearly have.
    """

    over: str
    under: str
    portable: bool


PAIRS = {
    "lean cache over reference cache": Pair("lean", "reference", True),
    "subnet over full network": Pair("subnet", "lean", True),
    "full network over matrix product": Pair("lean", "product", False),
    "scoring over matrix product": Pair("scoring", "product", False),
}


class SpeedBaseline(Record):
    """The accepted ratios."""

    ratios: dict[str, Above]
    repeats: Positive
    provenance: Provenance

    @model_validator(mode="after")
    def _is_whole(self) -> SpeedBaseline:
        if set(self.ratios) != set(PAIRS):
            raise ValueError(f"has the ratios {', '.join(self.ratios) or 'of nothing'}, expected {', '.join(PAIRS)}")
        return self


@dataclass(frozen=True)
class Measured:
    """A ratio now.

    Attributes:
        value: median over the turns.
        repeats: number of turns.
        signs: what disturbed it; empty for a sound one.
    """

    value: float
    repeats: int
    signs: tuple[str, ...]


@dataclass(frozen=True)
class SpeedFinding:
    """A ratio beside the accepted one.

    Attributes:
        decides: whether a change above `FAIL` is out of tolerance; otherwise it is only told.
    """

    name: str
    accepted: float
    now: Measured
    decides: bool

    @property
    def change(self) -> float:
        """Relative change, of the larger over the smaller: a ratio that falls may have a slower lower side."""
        return max(self.now.value / self.accepted, self.accepted / self.now.value) - 1

    @property
    def verdict(self) -> Verdict:
        """"moved" beyond `FAIL`, "changed" beyond `WARN`; "disturbed" gives none."""
        if self.now.signs:
            return "disturbed"
        if self.change > FAIL and self.decides:
            return "moved"
        return "changed" if self.change > WARN else "holds"


def check_speed(folder: Path) -> list[SpeedFinding]:
    """Measure the ratios and compare; less than a minute on one core.

    Args:
        folder: `results/baseline`.

    Raises:
        DriftError: no baseline there, or one of other networks.
        RecordError, ConfigError, CheckpointError: files of it that are damaged.
    """
    networks, config = open_baseline(folder)
    if not (folder / FILE).exists():
        raise DriftError(f"{folder / FILE}: no accepted speed; accept one with `varient drift --speed --accept`")
    baseline = read_record(folder / FILE, SpeedBaseline)
    if baseline.provenance.weights_sha256 != networks.provenance.weights_sha256:
        raise DriftError(f"{folder / FILE}: the speed of other networks than the baseline's; accept theirs with "
                         "`varient drift --speed --accept`")
    here = device_name("cpu") == baseline.provenance.device
    now = measure_ratios(config, folder)
    return [SpeedFinding(name, baseline.ratios[name], now[name], PAIRS[name].portable or here) for name in PAIRS]


def accept_speed(folder: Path) -> dict[str, Measured]:
    """Measure the ratios, and accept them unless other work disturbed one.

    Raises:
        DriftError, RecordError, ConfigError, CheckpointError: as `check_speed`, the accepted ratios left out.
    """
    networks, config = open_baseline(folder)
    now = measure_ratios(config, folder)
    if not any(ratio.signs for ratio in now.values()):
        write_record(folder / FILE, SpeedBaseline(
            ratios={name: ratio.value for name, ratio in now.items()}, repeats=REPEATS,
            provenance=provenance(experiment=config.name, seed=config.seed, settings=config.digest(),
                                  weights_sha256=networks.provenance.weights_sha256, on="cpu").model_copy(
                                      update={"threads": 1})))
    return now


def measure_ratios(config: ExperimentConfig, folder: Path) -> dict[str, Measured]:
    """The ratio of each pair, measured again while it is disturbed, up to `ATTEMPTS` times."""
    found: dict[str, Measured] = {}
    with _one_thread():
        steps = speed_steps(config, folder)
        for _ in range(ATTEMPTS):
            with LoadWatch() as watch:
                times = time_in_turns(steps, torch.device("cpu"), warmup=WARMUP, repeats=REPEATS, label="speed")
            found |= {name: _ratio(pair, times, watch.load) for name, pair in PAIRS.items()
                      if name not in found or found[name].signs}
            if not any(ratio.signs for ratio in found.values()):
                break
    return found


def speed_steps(config: ExperimentConfig, folder: Path) -> dict[str, Step]:
    """What takes turns: generations of the baseline's systems, scores of fixed features, matrix products."""
    draw = torch.Generator().manual_seed(0)
    generated_NF, real_MF = (torch.randn(NUM_FEATURES, FEATURE_DIM, generator=draw).numpy() for _ in range(2))
    factor = torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, generator=draw)

    def latents(sampler: Sampler, policy: Literal["lean", "reference"]) -> Step:
        indices = range(BATCH_SIZE)
        labels = [label_of(index, config.data.num_classes) for index in indices]
        return lambda: sampler.latents(labels, indices, config.seed, cache_policy=policy)

    def scoring() -> None:
        FrechetReference(Moments.of(real_MF).gaussian()).distance(Moments.of(generated_NF).gaussian())
        precision_recall(generated_NF, real_MF)
        density_coverage(generated_NF, real_MF)

    def products() -> None:
        for _ in range(PRODUCTS):
            factor @ factor

    subnet, full = (accepted_sampler(name, config, folder) for name in (SUBNET, FULL))
    return {"reference": latents(full, "reference"), "lean": latents(full, "lean"), "subnet": latents(subnet, "lean"),
            "product": products, "scoring": scoring}


def _ratio(pair: Pair, times: Mapping[str, Times], load: MachineLoad | None) -> Measured:
    over, under = (times[name].latency() for name in (pair.over, pair.under))
    ratios = [above_s / below_s for above_s, below_s in zip(over.repeats_s, under.repeats_s, strict=True)]
    signs = turn_disturbances({f"{pair.over}: ": over, f"{pair.under}: ": under}, "ratios", ratios, load)
    return Measured(median(ratios), len(ratios), signs)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def speed_report(findings: Sequence[SpeedFinding]) -> str:
    """What was compared, as a Markdown table, with what disturbed it below."""
    table = markdown.table(("ratio of times", "accepted", "now", "change", "turns", ""), (
        (found.name, f"{found.accepted:.3f}", f"{found.now.value:.3f}",
         f"{found.now.value / found.accepted - 1:+.1%}", str(found.now.repeats), found.verdict) for found in findings))
    return table + disturbance_report({found.name: found.now for found in findings})


def disturbance_report(measured: Mapping[str, Measured]) -> str:
    """What disturbed ratios, a line for each; empty where nothing did."""
    said = [f"{name}: other work disturbed it ({'; '.join(ratio.signs)})" for name, ratio in measured.items()
            if ratio.signs]
    return "".join(f"\n{line}\n" for line in said)
