"""Data that the project keeps outside the package, wherever the package runs: configs, and the accepted state.

In a checkout they are folders of the project; an installed package has copies of them inside (pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Data = Literal["config", "baseline"]

_PACKAGE = Path(__file__).parent
_IN_PROJECT = {"config": "workflow/config", "baseline": "results/baseline"}


def shipped(data: Data) -> Path:
    """The folder of the configs, or of the accepted state that `varient drift` compares with."""
    installed = _PACKAGE / "data" / data
    return installed if installed.is_dir() else _PACKAGE.parent / _IN_PROJECT[data]
