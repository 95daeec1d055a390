"""Expected cost of each target of the workflow: trainings, rows, hours on the GPUs of this machine, bytes on disk.

Existing networks and rows are not counted.  Hours are predictions of the cost model (`varient.cost`) at its assumed
utilisation, for networks of the paper's size on GPUs that it knows.  Generation is counted without the image decoder,
as in Table 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from varient.ablations import arms
from varient.config import ExperimentConfig
from varient.cost.roofline import PAPER_DEVICE, SystemCost, system_cost
from varient.cost.training_plan import TrainingPlan, plan_base, plan_supernet
from varient.cost.training_setting import setting_of
from varient.paper_size import is_paper_size
from varient.report.rivals import needs_of_rivals
from varient.report.tables import TABLES
from varient.systems.names import BaseId, SupernetId
from varient.systems.protocol import Network
from varient.systems.registry import networks_of, resolve_system
from varient.systems.var import count_transformer
from varient.targets import folder_of
from varient.training.recipes import Supernet, supernet_of

FLOAT_BYTES = 4
STATES_ON_DISK, COPIES_IN_A_STATE = 4, 3
"""Copies of the weights that a training has on disk at most: three saved states are kept while a fourth is written,
each of weights and AdamW's two moments."""
FEATURES = {"adm": 2048 + 1008 + 2023, "torch-fidelity": 2048 + 1008, "clean-fid": 2048, "fd-dinov2": 1024,
            "cmmd": 768}
"""Feature values that scoring stores for each image, by protocol; those of a classifier are negligible."""


@dataclass(frozen=True)
class Target:
    """A target file of the workflow, and the remaining cost to produce it.

    Attributes:
        trainings, imports: networks to be trained, and to be imported from files.
        rows: systems whose images have to be generated.
        training_hours, sampling_hours: None if one of them cannot be predicted.
        sampling_jobs: number of processes that load networks and generate images.
        sample_bytes: size of images and features.
        weight_bytes: size of networks, including weights that trainings keep after phases.
        state_bytes: largest size of the saved states of a running training.
    """

    name: str
    trainings: tuple[str, ...]
    imports: tuple[str, ...]
    rows: tuple[str, ...]
    training_hours: float | None
    sampling_hours: float | None
    sampling_jobs: int
    sample_bytes: int
    weight_bytes: int
    state_bytes: int

    @property
    def disk_bytes(self) -> int:
        """Largest disk usage at any time."""
        return self.sample_bytes + self.weight_bytes + self.state_bytes


def trains_on(config: ExperimentConfig) -> tuple[str, ...]:
    """Splits of the image folder that trainings, and the losses on held-out images, read."""
    recipes = [config.recipe(name) for name in (None, *config.supernet.recipes)]
    validated = config.shows_held_out_loss or any(recipe.validate_every or recipe.automatic for recipe in recipes)
    return ("train", "val") if validated else ("train",)


@dataclass(frozen=True)
class Outlook:
    """Expected cost of an experiment on a number of GPUs of one model.

    Attributes:
        gpu: id of the GPU in the cost model; None for a CPU or an unknown GPU, for which no hours are predicted.
    """

    config: ExperimentConfig
    run_dir: Path
    gpu: str | None
    gpus: int = 1

    @cached_property
    def targets(self) -> tuple[Target, ...]:
        """The tables that need records, and everything together."""
        needed = {f"table{number}": table.needs(self.config) for number, table in TABLES.items()}
        needed["rivals"] = needs_of_rivals(self.config)
        by_table = {name: {*needs.score, *needs.profile} for name, needs in needed.items()}
        everything = set().union(*by_table.values(), {arm.system for arm in arms(self.config)}
                                 if self.config.ablations else ())
        results = folder_of("results", self.config.name)
        return (*(self._target(f"{results}/{name}.csv", systems) for name, systems in by_table.items() if systems),
                self._target("all", everything))

    def costs(self) -> Iterator[SystemCost]:
        """Cost of a batch of each row that the cost model knows."""
        everything = self.targets[-1]
        yield from filter(None, map(self._cost, everything.rows))

    def plans(self) -> Iterator[TrainingPlan]:
        """Plan of each remaining training that the cost model knows."""
        yield from filter(None, map(self._plan, self.targets[-1].trainings))

    def _target(self, name: str, systems: Iterable[str]) -> Target:
        rows = sorted(system for system in systems if not system.startswith("real-") and not self._sampled(system))
        needed = self._networks(rows)
        trainings = sorted(name for name in needed if not self._released(name))
        sampling = self.config.sampling
        protocol = self.config.evaluation.protocol
        image_bytes = 3 * self.config.data.image_size ** 2 + FLOAT_BYTES * FEATURES.get(protocol, 0)
        return Target(
            name, tuple(trainings), tuple(sorted(set(needed) - set(trainings))), tuple(rows),
            training_hours=_total(self._training_hours(training) for training in trainings),
            sampling_hours=_total(self._sampling_hours(row) for row in rows),
            sampling_jobs=len(rows) * sampling.shards,
            sample_bytes=len(rows) * sampling.num_images * image_bytes,
            weight_bytes=sum(self._weights_kept(name) * self._parameters(name) * FLOAT_BYTES for name in needed),
            state_bytes=max((STATES_ON_DISK * COPIES_IN_A_STATE * self._parameters(name) * FLOAT_BYTES
                             for name in trainings), default=0))

    def _sampled(self, system: str) -> bool:
        return (self.run_dir / f"records/score-{system}.json").exists()

    def _networks(self, systems: Iterable[str]) -> set[str]:
        """Missing networks that systems need, including those that their trainings start from."""
        waiting = [name for system in systems for name in resolve_system(system, self.config).weights]
        found: set[str] = set()
        while waiting:
            named = SupernetId.parse(name := waiting.pop())
            name = str(replace(named, epoch=None)) if named else name
            if name not in found and not (self.run_dir / f"{name}.safetensors").exists():
                found.add(name)
                waiting += self._starts_from(name)
        return found

    @cached_property
    def _families(self) -> dict[str, Network]:
        return networks_of(self.config)

    def _starts_from(self, name: str) -> tuple[str, ...]:
        if name in self._families:
            return self._families[name].needs
        if supernet := self._supernet(name):
            return ("tokenizer", supernet.starts_from)
        return ("tokenizer",) if BaseId.parse(name) else ()

    def _released(self, name: str) -> Path | None:
        if BaseId.parse(name):
            return self.config.base.weights
        if name == "tokenizer":
            return self.config.tokenizer.weights
        return self._families[name].released if name in self._families else None

    def _supernet(self, name: str) -> Supernet | None:
        return supernet_of(name, self.config) if SupernetId.parse(name) else None

    def _weights_kept(self, name: str) -> int:
        if (supernet := self._supernet(name)) is None:
            return 1
        return 1 + len(self.config.supernet.kept_epochs(supernet.depth, self.config.recipe(supernet.recipe)))

    def _parameters(self, name: str) -> int:
        """Number of parameters of a network; for other families, estimated from the size of the file, if any."""
        if BaseId.parse(name) or SupernetId.parse(name):
            return count_transformer(self.config, self.config.transformer)
        released = self._released(name)
        return released.stat().st_size // FLOAT_BYTES if released and released.is_file() else 0

    def _plan(self, name: str) -> TrainingPlan | None:
        supernet, training = self._supernet(name), self.config.base.training
        if not (supernet or (BaseId.parse(name) and training)):
            return None
        setting = setting_of(f"{self._any_gpu}:{self.gpus}", self.config.supernet.training if supernet else training)
        try:
            return plan_supernet(self.config, supernet, setting) if supernet else plan_base(self.config, setting)
        except ValueError:  # the number of GPUs does not divide the batch: the training reports that
            return None

    def _cost(self, system: str) -> SystemCost | None:
        if not is_paper_size(self.config):
            return None
        sampling = self.config.sampling
        try:
            return system_cost(resolve_system(system, self.config).published_as, batch_size=sampling.batch_size,
                               precision=sampling.precision, device_key=self._any_gpu)
        except ValueError:
            return None

    @property
    def _any_gpu(self) -> str:
        """A GPU for questions about memory, which do not depend on the GPU model."""
        return self.gpu or PAPER_DEVICE

    def _training_hours(self, name: str) -> float | None:
        plan = self._plan(name) if self.gpu else None
        return plan.total.hours if plan else None

    def _sampling_hours(self, system: str) -> float | None:
        cost, sampling = self._cost(system) if self.gpu else None, self.config.sampling
        batches = math.ceil(sampling.num_images / sampling.batch_size)
        return batches * cost.latency_s / 3600 / self.gpus if cost else None


def _total(hours: Iterable[float | None]) -> float | None:
    """Their sum; None where one is unknown."""
    found = list(hours)
    known = [value for value in found if value is not None]
    return math.fsum(known) if len(known) == len(found) else None
