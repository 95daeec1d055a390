"""Which records each table is made of; asked by the workflow, so it imports neither torch nor pandas."""

from __future__ import annotations

from varient.config import ExperimentConfig

PAPER_DEPTHS = (16, 8, 4, 2)
"""Subnet depths of the paper, in the order of its Table 2."""


def table_inputs(number: int, config: ExperimentConfig) -> dict[str, list[str]]:
    """Systems whose `score` and `profile` records table ``number`` shows.

    Raises:
        ValueError: a table that is not built.
    """
    base = f"var-d{config.transformer.depth}"
    depths = [depth for paper_depth in PAPER_DEPTHS if (depth := config.counterpart(paper_depth))]
    variants = [f"variant-d{depth}" for depth in depths]
    if number == 2:
        systems = [base, *variants, *config.rows]
        floor = ["real-holdout"] if config.data.holdout else []
        return {"score": [*systems, *floor], "profile": systems}
    if number == 3:
        return {"score": [], "profile": []}  # arithmetic at the paper's size; what a GPU gave is in benchmarks/records
    if number == 4:
        pairs = [name for depth in depths for name in (f"free-d{depth}", f"variant-d{depth}-full")]
        return {"score": [base, *variants, *pairs], "profile": []}
    raise ValueError(f"table {number} is not built; built: 2, 3, 4")
