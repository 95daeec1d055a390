"""Profiles of one system at batches of 1, 2, 4, ... images, until one does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from varient.config import ExperimentConfig
from varient.cost.sizes import MIB
from varient.profile_records import ProfileRecord
from varient.profiling.profiler import Configuration, profile_in_fresh_process, settings_digest, weights_sha256
from varient.records import CPU, Provenance, read_record
from varient.systems.registry import resolve_system
from varient.targets import sweep_records


class SweepError(ValueError):
    """A folder that holds profiles of another configuration."""


def sweep(config_path: Path, config: ExperimentConfig, wanted: Configuration, run_dir: Path, folder: Path, *, most: int,
          told: Callable[[ProfileRecord], None]) -> list[ProfileRecord]:
    """Profile a system at doubled batches, each in a fresh process that leaves one record in ``folder``.

    The last batch is the first that does not fit into memory, or the largest up to ``most``.  A record that is there is
    not made again, so that an interrupted sweep goes on.

    Args:
        config_path: the file that ``config`` was read from.
        wanted: the configuration, whatever its batch size.
        told: called with each record, also with those that were there.

    Returns:
        The records, from small to large batches.

    Raises:
        SweepError: a record there is of another configuration, or two are of different devices.
        RecordError: a damaged record there.
        SystemExit, ChildProcessError: as `profile_in_fresh_process`.
    """
    records: list[ProfileRecord] = []
    for path, batch_size in sweep_records(folder, most).items():
        configuration = replace(wanted, batch_size=batch_size)
        if path.exists():
            record = read_record(path, ProfileRecord)
            _check_same(path, record, config, configuration, run_dir)
        else:
            record = profile_in_fresh_process(config_path, config, configuration, run_dir, path, quiet=True)
        records.append(record)
        _check_one_machine(path, records)
        told(record)
        if record.status == "out_of_memory":
            break
    return records


def _check_one_machine(path: Path, records: list[ProfileRecord]) -> None:
    """Check that the last record, of ``path``, was made on the same kind of device as the first.

    One of a batch that did not fit ends the sweep; it may come from another process than the one that used the device.
    """
    if records[-1].status == "out_of_memory":
        return
    machines = [_machine(record.provenance) for record in (records[0], records[-1])]
    if machines[0] != machines[1]:
        raise SweepError(f"{path}: measured on {machines[1]}, but a batch of {records[0].batch_size} on {machines[0]}; "
                         "a sweep is of one device: choose another --output, or remove the records of one of the two")


def _machine(made: Provenance) -> str:
    """The device, and on a CPU the number of threads."""
    threads = f", {made.threads} thread{'s' * (made.threads != 1)}" if made.device.startswith(CPU) else ""
    return made.device + threads


def _check_same(path: Path, record: ProfileRecord, config: ExperimentConfig, wanted: Configuration,
                run_dir: Path) -> None:
    """Check that a record is of a configuration, as far as that is known without its device."""
    cap_mib = None if wanted.memory_cap_bytes is None else wanted.memory_cap_bytes / MIB
    expected: dict[str, tuple[object, object]] = {
        "system": (record.system, wanted.system),
        "batch size": (record.batch_size, wanted.batch_size),
        "precision": (record.precision, wanted.precision),
        "cache policy": (record.cache_policy, wanted.cache_policy),
        "parameters": (record.parameters, resolve_system(wanted.system, config).parameters()),
        "memory cap in MiB": (record.memory.memory_cap_mib, cap_mib),
        "weights": ("trained" if record.weights == "trained" else "random",
                    "random" if wanted.random_weights else "trained"),
        "experiment": (record.provenance.experiment, config.name),
        "digest of the settings": (record.provenance.settings, settings_digest(config, wanted)),
        "weight files": (record.provenance.weights_sha256, weights_sha256(config, wanted, run_dir))}
    for what, (found, needed) in expected.items():
        if found != needed:
            said = "" if isinstance(needed, dict) else f" ({found}, not {needed})"
            raise SweepError(f"{path}: the record of another configuration, by its {what}{said}; choose another "
                             "--output, or remove it to measure again")
