"""Tables 1, 4, 5 and 8: FID and held-out loss of the method's ablations, from records alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product

import pandas as pd

from varient.ablations import SKIP_ALL, THREE_PHASES, Arm, arms_of, zone_system
from varient.config import ExperimentConfig
from varient.paper import DEPTH, PAPER_DEPTHS, paper_table
from varient.pyramid import Pyramid, Zone
from varient.records import Record
from varient.report.cells import ARITHMETIC, NORMAL_95, Cell, Row, averaged, flatten, measured, number
from varient.report.needs import Needs, arm_systems, needs, needs_of_quality, shown_depths
from varient.report.table2 import NO_COUNTERPART
from varient.results import Results, SeedSpread
from varient.systems.ids import VarId, base_system

NO_RECORD = "no record"
LOSS_DIGITS = 3


def table1(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 1: the untrained subnet at early, middle or late scales, and how much of an image each scale determines.

    The paper has d = 16.  The rows of real images rebuilt from their first scales are ours: they show that the ranking
    of the zones also depends on the layout of scales.
    """
    pyramid, base = config.pyramid, base_system(config)
    depths = _zone_depths(config)
    rows: list[Row] = []
    for _, printed in paper_table(1).iterrows():
        zone = _zone(printed["subnet_scales"])
        here = zone is None or zone[1] <= pyramid.num_scales
        row: dict[str, str | Cell] = {"strategy": printed["strategy"], "scales": printed["subnet_scales"],
                                      "tokens": _share(pyramid, zone) if zone and here else ""}
        for paper_depth, depth in depths.items():
            system = base
            if zone and depth:
                system = str(zone_system(depth, *zone, bridge=config.supernet.bridge,
                                         num_scales=pyramid.num_scales))
            paper = printed["fid"] if paper_depth == int(printed["subnet_depth"] or PAPER_DEPTHS[0]) else ""
            row[f"fid_d{depth or paper_depth}"] = measured(results.scores.get(system) if here and depth else None,
                                                           "fid", 3, paper, NO_RECORD if here and depth else "")
        rows.append(row)
    scales = results.reconstruction.scales if results.reconstruction else ()
    source = f"measured ({config.name})"
    rows += [{"strategy": f"Real images rebuilt (r{scale.scale}: {scale.side} x {scale.side})",
              "scales": f"r1-r{scale.scale}", "tokens": _share(pyramid, (1, scale.scale)),
              "rebuilt_fid": Cell(number(scale.fid, 3), number(NORMAL_95 * scale.fid_sd, 3), source=source),
              "recognised": Cell(number(scale.recognised, 3), source=source)} for scale in scales]
    return flatten(rows)


def needs_of_table1(config: ExperimentConfig) -> Needs:
    """The subnets of all zones; reconstructions where the experiment's real images are archives and have a
    FID."""
    return needs(score=[base_system(config), *arm_systems(config, "zones")],
                 reconstruction=config.data.in_memory and config.evaluation.num_features is not None)


def _zone_depths(config: ExperimentConfig) -> dict[int, int | None]:
    """The paper's d = 16, whose values are printed, and the other depths whose zones the ablations measure."""
    here = {paper: config.counterpart(paper) for paper in PAPER_DEPTHS}
    measured_at = config.ablations.zone_depths if config.ablations else ()
    return {paper: depth for paper, depth in here.items() if paper == PAPER_DEPTHS[0] or depth in measured_at}


def _zone(scales: str) -> Zone | None:
    """(4, 6) for "r4-r6"; None for "none"."""
    if scales == "none":
        return None
    first, last = (int(scale.removeprefix("r")) for scale in scales.split("-"))
    return first, last


def _share(pyramid: Pyramid, zone: Zone) -> Cell:
    return Cell(f"{pyramid.share(zone):.1f} %", source=ARITHMETIC)


def table4(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 4: FID, and held-out loss, of subnet and full network before and after joint training, for each depth.

    Each depth has a supernet, and so a full network, of its own.  After the paper's rows come ways of training that it
    does not have, such as one supernet for all depths.
    """
    rows = [_table4_row(config, results, printed) for _, printed in paper_table(4).iterrows()]
    for arm in arms_of(config, "extensions"):
        if arm.network == "subnet":
            pair = {"joint_subnet": arm.system, "joint_full": str(replace(arm.id, full=True))}
            cells = {f"{column}_fid": measured(results.scores.get(system), "fid", 3, missing=NO_RECORD)
                     for column, system in pair.items()}
            rows.append({"training": _training(config, arm), "subnet_depth": str(arm.depth)} | cells
                        | _losses(config, results, pair))
    return flatten(rows)


def _training(config: ExperimentConfig, arm: Arm) -> str:
    """What a recipe changes, in words."""
    recipe = config.recipe(arm.arm)
    phases = config.supernet.phases_of(arm.depth, recipe)
    training = config.supernet.training_of(recipe)
    changes = {f"one supernet for all depths, {sum(phases)} epochs in all": recipe.shared,
               "ends of phases found": recipe.automatic,
               f"phases of {'+'.join(map(str, phases))} epochs": bool(recipe.phases),
               f"distillation, weight {recipe.distillation:g}": recipe.distillation > 0,
               f"shares of subnet batches {recipe.order}": recipe.order is not None,
               f"p = {recipe.last_ratio or 0:g} in phase 3": recipe.last_ratio is not None,
               f"learning rate {training.learning_rate:g}, {training.schedule}": training != config.supernet.training}
    return f"{arm.arm}: " + ", ".join(words for words, changed in changes.items() if changed)


def needs_of_table4(config: ExperimentConfig) -> Needs:
    """Subnets and full networks before and after training, and the recipes that the paper does not have."""
    depths = shown_depths(config)
    pairs = [system for depth in depths for system in (VarId("free", depth), VarId("variant", depth, full=True))]
    return needs_of_quality(config, [base_system(config), *(VarId("variant", depth) for depth in depths), *pairs,
                                     *arm_systems(config, "extensions")])


def _table4_row(config: ExperimentConfig, results: Results, printed: pd.Series) -> Row:
    depth = config.counterpart(int(printed["subnet_depth"]))
    systems: dict[str, str | None] = dict.fromkeys(
        ("training_free_subnet", "training_free_full", "joint_subnet", "joint_full"))
    if depth:
        systems |= {"training_free_subnet": str(VarId("free", depth)), "training_free_full": base_system(config),
                    "joint_subnet": str(VarId("variant", depth)),
                    "joint_full": str(VarId("variant", depth, full=True))}
    row: dict[str, str | Cell] = {"training": THREE_PHASES,
                                  "subnet_depth": Cell(str(depth or NO_COUNTERPART), paper=printed["subnet_depth"])}
    row |= {f"{column}_fid": measured(results.scores.get(system or ""), "fid", 3, printed[f"{column}_fid"],
                                      NO_RECORD if depth else "") for column, system in systems.items()}
    return row | _losses(config, results, systems)


def _losses(config: ExperimentConfig, results: Results, systems: Mapping[str, str | None]) -> dict[str, str | Cell]:
    """The held-out loss of each column's system, where the experiment shows losses; a column of None stays empty.

    Without an interval: the images are the same for all systems, so their choice hardly moves a difference.
    """
    if not config.shows_held_out_loss:
        return {}
    losses, cells = results.losses, dict[str, str | Cell]()
    for column, system in systems.items():
        loss = losses.get(system) if system else None
        cells[f"{column}_loss"] = Cell(source=NO_RECORD if system else "") if loss is None else Cell(
            number(loss.loss, LOSS_DIGITS), source=f"measured ({config.name})")
    return cells


_SKIPS_ALL = {"skip r1-r10": True, "skip r7-r10": False}
"""Whether each design of the paper is without a bridge."""


def table5(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 5: training and sampling with the subnet at every scale, against a bridge zone of full depth.

    The paper has d = 16; ours is at the depths of the ablations, each the mean over its trainings.  Held-out losses are
    those of the plan that a column's network is sampled with.
    """
    found = arms_of(config, "bridge")
    depths = dict.fromkeys(arm.depth for arm in found) or [
        config.ablations.depth if config.ablations else config.counterpart(PAPER_DEPTHS[0])]
    rows = []
    for depth, (_, printed) in product(depths, paper_table(5).iterrows()):
        row: dict[str, str | Cell] = {"design": printed["design"], "subnet_depth": Cell(str(depth or ""), paper="16")}
        for network in ("subnet", "full"):
            systems = [arm.system for arm in found if arm.network == network and arm.depth == depth
                       and (arm.arm == SKIP_ALL) == _SKIPS_ALL[printed["design"]]]
            for column, name, digits in ((f"{network}_fid", "fid", 3), (f"{network}_is", "inception_score", 2)):
                row[column] = averaged(_over(results.scores, systems, name), digits, config.name, printed[column],
                                       NO_RECORD)
            if config.shows_held_out_loss:
                row[f"{network}_loss"] = averaged(_over(results.losses, systems, "loss"), LOSS_DIGITS, config.name,
                                                  missing=NO_RECORD)
        rows.append(row)
    return flatten(rows)


def needs_of_table5(config: ExperimentConfig) -> Needs:
    """Both designs, all trainings."""
    return needs_of_quality(config, arm_systems(config, "bridge"))


def _over(records: Mapping[str, Record], systems: Iterable[str], name: str) -> SeedSpread | None:
    return SeedSpread.of(getattr(records.get(system), name, None) for system in systems)


def table8(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 8: FID, and held-out loss, over subnet depth d and bridge zone N.

    With N = K the subnet is the full network of its supernet.
    """
    base = base_system(config)
    grid: dict[tuple[int | None, str], str] = {(arm.depth, arm.arm): arm.system for arm in arms_of(config, "grid")}
    rows = []
    for _, printed in paper_table(8).iterrows():
        paper_depth = int(printed["depth"])
        depth = config.transformer.depth if paper_depth == DEPTH else config.counterpart(paper_depth)
        row: dict[str, str | Cell] = {"depth": Cell(str(depth or NO_COUNTERPART), paper=printed["depth"])}
        systems = {column: base if paper_depth == DEPTH else grid.get((depth, f"N = {column.removeprefix('N')}"))
                   for column in printed.index.drop("depth")}
        row |= {column: measured(results.scores.get(system or ""), "fid", 3, printed[column],
                                 NO_RECORD if depth else "") for column, system in systems.items()}
        rows.append(row | _losses(config, results, systems))
    return flatten(rows)


def needs_of_table8(config: ExperimentConfig) -> Needs:
    """The grid, and the network before any of its trainings."""
    return needs_of_quality(config, [base_system(config), *arm_systems(config, "grid")])
