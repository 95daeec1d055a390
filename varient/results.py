"""Results of an experiment: its records by system, its ablations as one table, statistics over trainings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from varient.ablations import arms
from varient.config import ExperimentConfig
from varient.image_tree import is_hidden
from varient.profile_records import ProfileRecord
from varient.records import (
    Fidelity,
    FidelityRecord,
    HeldOutLoss,
    HeldOutRecord,
    ReconstructionRecord,
    Record,
    RecordError,
    ScoreRecord,
    read_record,
)
from varient.targets import sweep_records

SCORES = ("fid", "inception_score", "precision", "recall", "recognised", "fid_cross")


@dataclass(frozen=True)
class Results:
    """Records of an experiment by system."""

    scores: dict[str, ScoreRecord]
    profiles: dict[str, ProfileRecord]
    all_profiles: tuple[ProfileRecord, ...] = ()
    """All profiles, including several of one system with different batch sizes, caches or precisions."""
    reconstruction: ReconstructionRecord | None = None
    benchmarks: tuple[ProfileRecord, ...] = ()
    """Profiles of the paper's networks with random weights (`benchmarks/`), whatever the experiment."""
    held_out: tuple[HeldOutRecord, ...] = ()
    """Losses on held-out images, one record for each network."""
    fidelity: tuple[FidelityRecord, ...] = ()
    """Comparisons with the full network's pictures, one record for each network."""
    sweeps: tuple[ProfileRecord, ...] = ()
    """Profiles of systems at doubled batches, from small to large, one system after the other."""
    remarks: tuple[str, ...] = ()
    """Reasons why records were left out, such as contradictions between them."""
    marks: tuple[str, ...] = ()
    """What has to be said beside the others (`varient.paper_size.marks`)."""

    @classmethod
    def read(cls, scores: Sequence[Path], profiles: Sequence[Path] = (), reconstruction: Path | None = None,
             found_in: Path | None = None, benchmarks: Sequence[Path] = (),
             held_out: Sequence[Path] = (), fidelity: Sequence[Path] = (), sweeps: Sequence[Path] = ()) -> Results:
        """Read record files.

        Args:
            sweeps: folders of `varient sweep`.
            found_in: run folder whose records are read in addition; damaged ones are left out and named in the remarks.

        Raises:
            RecordError: a named file is not such a record, or ``found_in`` is a file.
        """
        found, damaged = _found_in(found_in) if found_in else ([], ())
        by_score, remarks = _one_each([*(read_record(path, ScoreRecord) for path in scores),
                                       *(record for record in found if isinstance(record, ScoreRecord))])
        all_profiles = (*(read_record(path, ProfileRecord) for path in profiles),
                        *(record for record in found if isinstance(record, ProfileRecord)))
        of_scales = reconstruction and read_record(reconstruction, ReconstructionRecord)
        of_scales = of_scales or next((record for record in found if isinstance(record, ReconstructionRecord)), None)
        by_network, twice = _one_each([*(read_record(path, HeldOutRecord) for path in held_out),
                                       *(record for record in found if isinstance(record, HeldOutRecord))])
        compared, again = _one_each([*(read_record(path, FidelityRecord) for path in fidelity),
                                     *(record for record in found if isinstance(record, FidelityRecord))])
        return cls(by_score, {record.system: record for record in all_profiles}, all_profiles, of_scales,
                   tuple(read_record(path, ProfileRecord) for path in benchmarks), tuple(by_network.values()),
                   tuple(compared.values()), read_sweeps(sweeps),
                   (*remarks, *twice, *again, *damaged))

    @classmethod
    def found_in(cls, run_dir: Path) -> Results:
        """Read all records in a run folder."""
        return cls.read([], found_in=run_dir)

    @property
    def losses(self) -> dict[str, HeldOutLoss]:
        """The held-out loss of each system, under its own layers."""
        return {loss.system: loss for record in self.held_out for loss in record.losses}

    @property
    def fidelities(self) -> dict[str, Fidelity]:
        """How far the pictures of each system are from the full network's."""
        return {found.system: found for record in self.fidelity for found in record.systems}


AnyRecord = TypeVar("AnyRecord", ScoreRecord, ProfileRecord, HeldOutRecord, FidelityRecord)


def comparable(experiment: str, results: Results) -> Results:
    """The records of an experiment that can be compared in one column; the remarks name the others, with reasons.

    Records of another experiment are left out.  Of those that differ in protocol, reference, images, tokenizer (of
    losses) or device (of profiles), only the largest group is kept.
    """
    remarks = list(results.remarks)
    scores = _largest_group(_own(experiment, results.scores.values(), remarks), remarks, "score", lambda record: {
        "protocol": record.protocol, "extractor": record.extractor, "reference": record.reference_sha256[:8],
        **({} if record.system.startswith("real-") else {"images": record.num_images})})
    single, twice = _one_each(_own(experiment, results.all_profiles or results.profiles.values(), remarks))
    profiles = _largest_group(single.values(), remarks, "profile", lambda record: {
        "batch": record.batch_size, "precision": record.precision, "weights": record.weights,
        "device": record.provenance.device, "threads": record.provenance.threads,
        "acceleration": ", ".join(record.acceleration) or "none"})
    held_out = _largest_group(_own(experiment, results.held_out, remarks), remarks, "held-out loss", lambda record: {
        "images": record.images_sha256[:8], "tokenizer": record.provenance.weights_sha256.get("tokenizer", "")[:8]})
    fidelity = _largest_group(_own(experiment, results.fidelity, remarks), remarks, "fidelity", lambda record: {
        "pictures": f"{record.reference} {record.reference_sha256[:8]}", "protocol": record.protocol,
        "extractor": record.extractor, "judge": record.judge})
    sweeps = _largest_group(_own(experiment, results.sweeps, remarks), remarks, "sweep", lambda record: {
        "precision": record.precision, "device": record.provenance.device, "threads": record.provenance.threads,
        "memory cap": record.memory.memory_cap_mib, "acceleration": ", ".join(record.acceleration) or "none"})
    reconstruction = results.reconstruction
    if reconstruction and reconstruction.provenance.experiment != experiment:
        remarks.append(f"reconstructions of {reconstruction.provenance.experiment}")
        reconstruction = None
    return Results({record.system: record for record in scores}, {record.system: record for record in profiles},
                   tuple(profiles), reconstruction, results.benchmarks, tuple(held_out), tuple(fidelity),
                   tuple(sweeps), (*remarks, *twice))


def _own(experiment: str, records: Iterable[AnyRecord], remarks: list[str]) -> list[AnyRecord]:
    found = list(records)
    remarks += [f"{record.kind} of {_subject(record)}, which belongs to {record.provenance.experiment}"
                for record in found if record.provenance.experiment != experiment]
    return [record for record in found if record.provenance.experiment == experiment]


def _one_each(records: Sequence[AnyRecord]) -> tuple[dict[str, AnyRecord], tuple[str, ...]]:
    """Records by system or network, and the contradictions: if two records of one differ, both are dropped."""
    found: dict[str, AnyRecord] = {}
    contradicted: dict[str, str] = {}
    for record in records:
        if found.setdefault(subject := _subject(record), record) != record:
            contradicted[subject] = f"two {record.kind} records of {subject} that differ"
    return ({subject: record for subject, record in found.items() if subject not in contradicted},
            tuple(contradicted.values()))


def _subject(record: AnyRecord) -> str:
    """What a record is of."""
    if isinstance(record, FidelityRecord):
        return record.network or ", ".join(found.system for found in record.systems)
    return record.network if isinstance(record, HeldOutRecord) else record.system


def _largest_group(records: Iterable[AnyRecord], remarks: list[str], kind: str,
                   setting: Callable[[AnyRecord], dict[str, object]]) -> list[AnyRecord]:
    """The records that have the most common value of each of the given settings."""
    left = list(records)
    for part in dict.fromkeys(name for record in left for name in setting(record)):
        counts = Counter(setting(record)[part] for record in left if part in setting(record))
        (common, _), *others = counts.most_common()
        if others:
            remarks += [f"{kind} of {_subject(record)}, whose {part} is {setting(record)[part]} and not {common}"
                        for record in left if setting(record).get(part, common) != common]
            left = [record for record in left if setting(record).get(part, common) == common]
    return left


def _found_in(run_dir: Path) -> tuple[list[Record], tuple[str, ...]]:
    """Valid records of a run folder, and the errors of the others."""
    kinds: dict[str, type[Record]] = {"score": ScoreRecord, "profile": ProfileRecord,
                                      "reconstruction": ReconstructionRecord, "heldout": HeldOutRecord,
                                      "fidelity": FidelityRecord}
    if run_dir.exists() and not run_dir.is_dir():
        raise RecordError(f"{run_dir}: a file, not a run folder")
    found: list[Record] = []
    damaged: list[str] = []
    for path in sorted((run_dir / "records").glob("*.json")):
        if is_hidden(path.name):  # a killed write
            continue
        kind = kinds.get(path.stem.partition("-")[0])
        if kind is None:
            damaged.append(f"{path}: not a record by its name; those of records begin with {', '.join(kinds)}")
            continue
        try:
            found.append(read_record(path, kind))
        except RecordError as error:
            damaged.append(str(error))
    return found, tuple(damaged)


def arm_scores(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """One row for each arm of the ablations: its fields, the scores, the held-out loss and their ``_sd``; NaN without
    a record.

    Empty, with the same columns, if the experiment has no ablations.
    """
    spreads = [f"{name}_sd" for name in SCORES if f"{name}_sd" in ScoreRecord.model_fields]
    described, of_score, of_loss = (["comparison", "arm", "depth", "seed", "network", "system"], [*SCORES, *spreads],
                                    ["loss", "loss_sd"])
    losses, rows = results.losses, []
    for arm in arms(config) if config.ablations else ():
        record, loss = results.scores.get(arm.system), losses.get(arm.system)
        rows.append([*(getattr(arm, name) for name in described), *(getattr(record, name, None) for name in of_score),
                     *(getattr(loss, name, None) for name in of_loss)])
    frame = pd.DataFrame(rows, columns=[*described, *of_score, *of_loss])
    return frame.astype(dict.fromkeys([*of_score, *of_loss], float))


@dataclass(frozen=True)
class SeedSpread:
    """Mean and spread of a score over several trainings that differ only in the seed."""

    mean: float
    sd: float | None
    """Sample standard deviation; None for a single training."""
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> SeedSpread | None:
        """Spread of the values that are not None; None if there is none."""
        found = [value for value in values if value is not None and value == value]
        return cls(mean(found), stdev(found) if len(found) > 1 else None, len(found)) if found else None

    @property
    def half_width_95(self) -> float | None:
        """Half width of the 95 % confidence interval of the mean (Student's t); None for a single training."""
        if self.sd is None:
            return None
        return float(stdtrit(self.count - 1, 0.975)) * self.sd / math.sqrt(self.count)


@dataclass(frozen=True)
class Paired:
    """Difference of a score between two arms, taken seed by seed, because trainings of one seed see the same batches.

    Attributes:
        mean: of the first arm's value minus the second's.
        sd: sample standard deviation of the differences.
        count: number of seeds.
    """

    mean: float
    sd: float
    count: int

    @classmethod
    def of(cls, first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
        """Over the seeds that both have (seed -> value); None if there are fewer than two."""
        differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
        return cls(mean(differences), stdev(differences), len(differences)) if len(differences) > 1 else None

    @property
    def t(self) -> float:
        """The mean in its standard errors; infinite where all differences are equal and not 0."""
        if self.sd == 0:
            return math.copysign(math.inf, self.mean) if self.mean else 0.0
        return self.mean / (self.sd / math.sqrt(self.count))

    @property
    def p(self) -> float:
        """Two-sided probability of such a t without a difference (Student's t)."""
        return float(2 * stdtr(self.count - 1, -abs(self.t)))


class PooledSpread(NamedTuple):
    """Relative standard deviation between trainings of an arm, pooled over arms, and its degrees of freedom."""

    relative: float
    freedom: int


def pooled_spread(groups: Iterable[Sequence[float]]) -> PooledSpread | None:
    """The spread between trainings of an arm over several arms; None if no arm has several trainings."""
    squares, freedom = 0.0, 0
    for values in groups:
        if len(values) > 1 and mean(values):
            squares += (len(values) - 1) * (stdev(values) / mean(values)) ** 2
            freedom += len(values) - 1
    return PooledSpread(math.sqrt(squares / freedom), freedom) if freedom else None


def resolved_difference(spread: float, trainings: int, errors: float) -> float:
    """Relative difference of two arms' means that is ``errors`` standard errors.

    Args:
        spread: relative standard deviation between trainings.
        trainings: of each arm.
    """
    return errors * spread * math.sqrt(2 / trainings)


_LARGEST_BATCH = 2 ** 20
"""Of a sweep (`varient sweep --most`)."""


def read_sweeps(folders: Iterable[Path]) -> tuple[ProfileRecord, ...]:
    """The records of sweeps, one after the other.

    Raises:
        RecordError: as `read_sweep`, or two sweeps of one system.
    """
    by_system: dict[str, list[ProfileRecord]] = {}
    for folder in folders:
        found = read_sweep(folder)
        if by_system.setdefault(found[0].system, found) is not found:
            raise RecordError(f"{folder}: a second sweep of {found[0].system}")
    return tuple(record for found in by_system.values() for record in found)


def read_sweep(folder: Path) -> list[ProfileRecord]:
    """The records of a sweep, from small to large batches.

    Raises:
        RecordError: no such folder, a folder without a record, or a record that is damaged, of another batch than its
            name says, or of another configuration than the first.
    """
    found: list[ProfileRecord] = []
    for path, batch_size in sweep_records(folder, _LARGEST_BATCH).items():
        if path.exists():
            found.append(record := read_record(path, ProfileRecord))
            first = found[0]
            if (record.system, record.precision, record.cache_policy, record.batch_size) \
                    != (first.system, first.precision, first.cache_policy, batch_size):
                raise RecordError(f"{path}: not batch {batch_size} of {first.system} ({first.precision}, "
                                  f"{first.cache_policy} cache)")
    if not found:
        raise RecordError(f"{folder}: no folder with the records of a sweep (profile-b1.json, ...)")
    return found


def curves_of(run_dir: Path, network: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Training curves of a network: name -> steps and values; empty if it was not trained here."""
    from varient.training.curves import read_curves  # imports torch

    path = run_dir / f"training-{network}" / "curves.npz"
    return read_curves(path) if path.exists() else {}
