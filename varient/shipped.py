"""Data that the project keeps outside the package, wherever the package runs: configs, and the accepted state.

In a checkout they are folders of the project; an installed package has copies of them inside (pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from varient.systems.names import SupernetId

Data = Literal["config", "baseline"]

ACCEPTED_SUPERNET = str(SupernetId(4))
"""Whose weights the accepted state holds."""

_PACKAGE = Path(__file__).parent
_IN_PROJECT = {"config": "workflow/config", "baseline": "results/baseline"}


def shipped(data: Data) -> Path:
    """The folder of the configs, or of the accepted state that `varient drift` compares with."""
    installed = _PACKAGE / "data" / data
    return installed if installed.is_dir() else _PACKAGE.parent / _IN_PROJECT[data]


def in_project() -> bool:
    """Whether the package runs from the project's own folder, where what is shipped may be made anew."""
    return not (_PACKAGE / "data").is_dir()
