"""A diagnosis for a person to read: problems last, nearest to the prompt."""

from __future__ import annotations

from rich.table import Column, Table

from varient.cost.sizes import GIB
from varient.doctor.examine import Diagnosis
from varient.terminal import print_table

_ORDER = ("ok", "note", "problem")


def show(diagnosis: Diagnosis) -> None:
    """Print what each target takes, then all findings and whether the experiment is ready."""
    columns = ("trainings", "training h", "imports", "rows", "jobs", "sampling h", "disk GiB")
    targets = Table("target", *(Column(name, justify="right") for name in columns),
                    title=f"{diagnosis.experiment}: what is to come",
                    caption="Hours are predictions for the GPUs here (networks of the paper's size, image decoder left "
                            "out); -: nothing is predicted.")
    for target in diagnosis.targets:
        targets.add_row(target.name, str(len(target.trainings)), _hours(target.training_hours),
                        str(len(target.imports)), str(len(target.rows)), str(target.sampling_jobs),
                        _hours(target.sampling_hours), f"{target.disk_bytes / GIB:.1f}")
    print_table(targets)
    findings = Table("", "what", "found", title=f"{diagnosis.experiment}: what was looked at")
    for finding in sorted(diagnosis.findings, key=lambda finding: _ORDER.index(finding.level)):
        findings.add_row(finding.level, finding.subject, finding.text)
    print_table(findings)
    print("ready" if diagnosis.ready else f"not ready: {len(diagnosis.problems)} problems")


def _hours(hours: float | None) -> str:
    return "-" if hours is None else f"{hours:.1f}"
