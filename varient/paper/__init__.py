"""The paper's printed numbers as data: tables 1 to 8 and the claims of the text, transcribed from arXiv 2511.16546v1.

Values are as printed, contradictions included; what they say is judged elsewhere.

| file | a row is |
|---|---|
| `table1.csv` ... `table8.csv` | a row of the table |
| `claims.csv` | a number or a sentence of the text |
| `cells.csv` | what a column of a table holds, or one of its cells; `{name}` is what the table's row has in a column |
| `rankings.csv` | a ranking of systems that text or tables claim, the larger number first |

`kind`, `of` and `order` say what a row denotes, in the words of `varient.claims.quantity` and `varient.claims.claims`;
`reading` says how we read it where that is a choice.  Where the text prints words, `means` has the number that they are
read as.  Rows about one quantity are one finding; `finding` names it where rows about several quantities are one.
"""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

TITLE = "Progressive Supernet Training for Efficient Visual Autoregressive Modeling (arXiv 2511.16546v1)"
DEPTH = 30
"""Layers of the paper's full network, VAR-d30."""
TABLES = range(1, 9)
PAPER_DEPTHS = (16, 8, 4, 2)
"""Subnet depths of the paper, in the order of its Table 2."""


def paper_rows(name: str) -> list[dict[str, str]]:
    """The rows of one of the module's files; cells are text as printed, empty where the paper has a dash.

    Raises:
        ValueError: a row with more or fewer cells than the head.
    """
    with (files(__package__) / f"{name}.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        if None in row or None in row.values():
            raise ValueError(f"varient/paper/{name}.csv, row {next(iter(row.values()))}: expected a cell for each of "
                             f"{', '.join(filter(None, row))}")
    return rows


def paper_table(number: int) -> pd.DataFrame:
    """Table 1..8 of the paper as a frame of text, one row a printed row."""
    import pandas as pd

    return pd.DataFrame(paper_rows(f"table{number}"), dtype=str)


def system_id(method: str) -> str:
    """The id of a method of Table 2: `variant-d16` for "VARiant-d16"."""
    return _IDS.get(method, method.lower())


_IDS = {"VAR-CoDe": "code-n6", "DiT-XL/2": "dit-xl2"}
