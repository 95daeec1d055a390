"""What each table and figure is made of; asked by the workflow, so it imports neither torch nor pandas."""

from __future__ import annotations

from pathlib import Path

from varient.ablations import arms_of
from varient.config import ExperimentConfig

DEFAULT_EXPERIMENT = "digits"
"""Its results lie in results/ and figures/ themselves, those of others in a folder of their own there."""

PAPER_DEPTHS = (16, 8, 4, 2)
"""Subnet depths of the paper, in the order of its Table 2."""

FIGURES = {
    "fig1": ("varient.report.figures.framework", "draw_framework"),
    "fig2": ("varient.report.figures.ratios", "draw_ratios"),
    "fig3": ("varient.report.figures.schedule", "draw_schedule"),
    "fig4": ("varient.report.figures.pictures", "draw_depths"),
    "fig5": ("varient.report.figures.configurations", "draw_configurations"),
    "fig6": ("varient.report.figures.pictures", "draw_depths_and_bridges"),
    "fig7": ("varient.report.figures.pictures", "draw_evolution"),
    "quality-cost": ("varient.report.figures.frontier", "draw_frontier"),
    "kv-live": ("varient.report.figures.kv_live", "draw_kv_live"),
}
"""Figure -> module and its function (config, results, run_dir) -> Figure."""


def table_files(stem: Path) -> list[Path]:
    """What a table is written to; ``stem`` may have a suffix, which these take the place of."""
    return [stem.with_suffix(suffix) for suffix in (".csv", ".md", ".tex")]


def figure_files(stem: Path) -> list[Path]:
    """What a figure is written to."""
    return [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf")]


def claims_files(stem: Path) -> list[Path]:
    """What the verdicts are written to."""
    return [stem.with_name(stem.name + suffix) for suffix in (".csv", ".md")]


def table_inputs(number: int, config: ExperimentConfig) -> dict[str, list[str]]:
    """Systems whose `score` and `profile` records table ``number`` shows; `reconstruction` is not empty
    where it shows that record too.

    Raises:
        ValueError: a table that the paper does not have.
    """
    base, depths = f"var-d{config.transformer.depth}", shown_depths(config)
    variants = [f"variant-d{depth}" for depth in depths]
    if number == 1:
        return {"score": _once(base, *_of(config, "zones")), "profile": [],
                # Of the experiments whose real images are archives.
                "reconstruction": ["tokenizer"] if config.data.in_memory else []}
    if number == 2:
        systems = [base, *variants, *config.rows]
        floor = [f"real-{config.data.floor_split}"] if config.data.holdout else []
        return {"score": [*systems, *floor], "profile": systems}
    if number == 3:
        return {"score": [], "profile": []}  # arithmetic at the paper's size; what a GPU gave is in benchmarks/records
    if number == 4:
        pairs = [name for depth in depths for name in (f"free-d{depth}", f"variant-d{depth}-full")]
        return {"score": _once(base, *variants, *pairs, *_of(config, "extensions")), "profile": []}
    if number in (5, 6, 7, 8):
        shown = {5: _of(config, "bridge"), 8: [base, *_of(config, "grid")]}.get(number, [])  # 6 and 7: the config alone
        return {"score": _once(*shown), "profile": []}
    raise ValueError(f"table {number} is unknown; the paper has 1 to 8")


def shown_depths(config: ExperimentConfig) -> list[int]:
    """The depths that stand for the paper's subnets, in its order; all of them from deep to shallow if none does."""
    found = [depth for paper_depth in PAPER_DEPTHS if (depth := config.counterpart(paper_depth))]
    return found or sorted(config.supernet.depths, reverse=True)


def figure_inputs(name: str, config: ExperimentConfig) -> dict[str, list[str]]:
    """What a figure is drawn from: systems whose `score` and `profile` records and `samples` it shows, and networks
    whose training `curves` it does.

    Raises:
        ValueError: no such figure.
    """
    base, depths = f"var-d{config.transformer.depth}", shown_depths(config)
    variants = [f"variant-d{depth}" for depth in depths]
    settings = config.ablations
    inputs: dict[str, list[str]] = {"score": [], "profile": [], "samples": [], "curves": []}
    if name in ("fig1", "kv-live"):
        return inputs  # shapes alone
    if name == "fig2":
        inputs["score"] = [base, *_of(config, "ratios", "stages")]
        extremes = [recipe for recipe in settings.ratios if config.recipe(recipe).validate_every] if settings else []
        inputs["curves"] = [f"supernet-d{settings.depth}-{recipe}" for recipe in extremes]
    elif name == "fig3":
        inputs["curves"] = [f"supernet-d{depths[0]}"]
    elif name == "fig4":
        inputs |= {"score": [base, *variants], "samples": [base, *variants]}
    elif name == "fig5":
        inputs["score"] = [base, *variants, *_of(config, "grid")]
    elif name == "fig6":
        bridges = [arm.system for arm in arms_of(config, "grid") if arm.depth == depths[0]]
        inputs |= {"score": [base, *variants, *bridges], "samples": [base, *variants, *bridges]}
    elif name == "fig7":
        before = [f"free-d{depth}" for depth in settings.evolution] if settings else []
        story = [*before, *_of(config, "evolution")]
        inputs |= {"score": [base, *story], "samples": [base, *story]}
    elif name == "quality-cost":
        systems = [base, *variants, *config.rows]
        inputs |= {"score": systems, "profile": systems}
    else:
        raise ValueError(f"figure {name!r} is not drawn")
    return {kind: _once(*names) for kind, names in inputs.items()}


def _once(*names: str) -> list[str]:
    return list(dict.fromkeys(names))


def _of(config: ExperimentConfig, *comparisons: str) -> list[str]:
    return [arm.system for arm in arms_of(config, *comparisons)]
