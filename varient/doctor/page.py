"""Output of `varient doctor`; problems come last, nearest to the prompt."""

from __future__ import annotations

from varient.cost.sizes import GIB
from varient.doctor.examine import Diagnosis
from varient.terminal import Answer, Grid

_ORDER = ("ok", "note", "problem")


def diagnosis_answer(diagnosis: Diagnosis) -> Answer:
    """Output with the cost of each target, all findings, and whether the experiment is ready."""
    targets = Grid(
        f"{diagnosis.experiment}: expected cost",
        ("target", "trainings", "training h", "imports", "rows", "jobs", "sampling h", "disk GiB"),
        [(target.name, str(len(target.trainings)), _hours(target.training_hours), str(len(target.imports)),
          str(len(target.rows)), str(target.sampling_jobs), _hours(target.sampling_hours),
          f"{target.disk_bytes / GIB:.1f}")
         for target in diagnosis.targets],
        caption="Hours are predictions for the GPUs here (networks of the paper's size, without image decoder); "
                "-: no prediction.")
    findings = Grid(
        f"{diagnosis.experiment}: checks", ("", "checked", "found"),
        [(finding.level, finding.subject, finding.text)
         for finding in sorted(diagnosis.findings, key=lambda finding: _ORDER.index(finding.level))],
        words=("what", "found"))
    return Answer(diagnosis.as_dict(), [targets, findings],
                  notes=["ready" if diagnosis.ready else f"not ready: {len(diagnosis.problems)} problems"])


def _hours(hours: float | None) -> str:
    return "-" if hours is None else f"{hours:.1f}"
