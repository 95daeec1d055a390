"""All checks of an experiment, in the order in which problems should be fixed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from varient.config import ExperimentConfig
from varient.doctor.findings import Finding
from varient.doctor.inputs import check_files, check_inputs, inputs_of
from varient.doctor.machine import Machine, check_devices, check_memory, check_versions
from varient.doctor.outlook import Outlook, Target
from varient.doctor.storage import check_disk, check_run_folder


@dataclass(frozen=True)
class Diagnosis:
    """Result of all checks: whether an experiment is ready, and the expected cost of its targets."""

    experiment: str
    findings: tuple[Finding, ...]
    targets: tuple[Target, ...]

    @property
    def ready(self) -> bool:
        """Whether no problem was found."""
        return not self.problems

    @property
    def problems(self) -> list[Finding]:
        """The problems that must be fixed."""
        return [finding for finding in self.findings if finding.level == "problem"]

    def as_dict(self) -> dict[str, Any]:
        """As a JSON-serializable dict: sizes in bytes, times in hours."""
        return {"experiment": self.experiment, "ready": self.ready, "findings": [asdict(it) for it in self.findings],
                "targets": [asdict(target) for target in self.targets]}


def examine(config: ExperimentConfig, run_dir: Path) -> Diagnosis:
    """Run all checks; nothing is written, computed or downloaded.

    Raises:
        ValueError: VARIENT_DEVICE or CUDA_VISIBLE_DEVICES is invalid.
    """
    machine = Machine.here()
    outlook = Outlook(config, run_dir, machine.known_gpu, len(machine.gpus) or 1)
    findings = (*check_versions(config), *check_inputs(config), *check_run_folder(config, run_dir),
                *check_disk(run_dir, outlook.targets[-1]), *check_devices(config, machine),
                *check_memory(config, machine, outlook))
    return Diagnosis(config.name, findings, outlook.targets)


def blocking(config: ExperimentConfig, read: Collection[str], *, on_these_devices: bool = True) -> list[str]:
    """What would make one job of the workflow after the other fail, each in a line.

    Args:
        read: files that the jobs to come read; others of the user's are not looked at.
        on_these_devices: whether jobs compute on the devices of this machine; under Slurm they do so on others.
    """
    inputs = [given for given in inputs_of(config) if str(given.path) in read]
    found = (*check_files(inputs), *(check_devices(config, Machine.here()) if on_these_devices else ()))
    return [f"{finding.subject}: {finding.text}" for finding in found if finding.blocks]
