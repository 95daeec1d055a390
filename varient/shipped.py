"""Location of data that is kept outside the package: the configs, and the accepted baseline of `varient drift`.

In a checkout they are folders of the project; an installed package contains copies of them (pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from varient.systems.names import SupernetId

Data = Literal["config", "baseline"]

ACCEPTED_SUPERNET = str(SupernetId(4))
"""The system whose weights the baseline contains."""

_PACKAGE = Path(__file__).parent
_IN_PROJECT = {"config": "workflow/config", "baseline": "results/baseline"}


def shipped(data: Data) -> Path:
    """The folder of the configs, or of the baseline that `varient drift` compares with."""
    installed = _PACKAGE / "data" / data
    return installed if installed.is_dir() else _PACKAGE.parent / _IN_PROJECT[data]


def in_project() -> bool:
    """Whether the package runs from a checkout, where the shipped data may be regenerated."""
    return not (_PACKAGE / "data").is_dir()
