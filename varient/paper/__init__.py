"""The paper's printed numbers as data: tables 1 to 8 and the claims of the text, transcribed from arXiv 2511.16546v1.

Values are as printed, contradictions included; what they say is judged elsewhere.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Progressive Supernet Training for Efficient Visual Autoregressive Modeling (arXiv 2511.16546v1)"
DEPTH = 30
"""Layers of the paper's full network, VAR-d30."""
PAPER_DEPTHS = (16, 8, 4, 2)
"""Subnet depths of the paper, in the order of its Table 2."""


def paper_table(number: int) -> pd.DataFrame:
    """Table 1..8 of the paper, one row a printed row; cells are text as printed, empty where the paper has a dash."""
    import pandas as pd

    with (files(__package__) / f"table{number}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


def system_id(method: str) -> str:
    """The id of a method of Table 2: `variant-d16` for "VARiant-d16"."""
    return _IDS.get(method, method.lower())


_IDS = {"VAR-CoDe": "code-n6", "DiT-XL/2": "dit-xl2"}
