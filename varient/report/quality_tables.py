"""Tables 1, 4, 5 and 8: FID of the method's ablations, from score records alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from varient.ablations import Arm, arms_of, zone_system
from varient.config import ExperimentConfig
from varient.paper import DEPTH, PAPER_DEPTHS, paper_table
from varient.pyramid import Pyramid, Zone
from varient.records import ScoreRecord
from varient.report.cells import ARITHMETIC, NORMAL_95, Cell, Row, averaged, flatten, measured, number
from varient.report.needs import Needs, arm_systems, needs, shown_depths
from varient.report.table2 import NO_COUNTERPART
from varient.results import Results, SeedSpread
from varient.systems.ids import VarId, base_system

NO_RECORD = "no record"
THREE_PHASES = "three phases"


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
    """The subnets of all zones; reconstructions where the experiment's real images are archives."""
    return needs(score=[base_system(config), *arm_systems(config, "zones")],
                 reconstruction=config.data.in_memory)


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
    """Table 4: FID of subnet and full network before and after joint training, for each subnet depth.

    Each depth has a supernet, and so a full network, of its own.  After the paper's rows come ways of training that it
    does not have, such as one supernet for all depths.
    """
    base = results.scores.get(base_system(config))
    rows = [_table4_row(config, results, printed, base) for _, printed in paper_table(4).iterrows()]
    for arm in arms_of(config, "extensions"):
        if arm.network == "subnet":
            pair = {"joint_subnet_fid": arm.system, "joint_full_fid": str(replace(arm.id, full=True))}
            rows.append({"training": _training(config, arm), "subnet_depth": str(arm.depth)} | {
                column: measured(results.scores.get(system), "fid", 3, missing=NO_RECORD)
                for column, system in pair.items()})
    return flatten(rows)


def _training(config: ExperimentConfig, arm: Arm) -> str:
    """What a recipe changes, in words."""
    recipe = config.recipe(arm.arm)
    phases = config.supernet.phases_of(arm.depth, recipe)
    changes = {f"one supernet for all depths, {sum(phases)} epochs in all": recipe.shared,
               "ends of phases found": recipe.automatic,
               f"phases of {'+'.join(map(str, phases))} epochs": bool(recipe.phases),
               f"distillation, weight {recipe.distillation:g}": recipe.distillation > 0}
    return f"{arm.arm}: " + ", ".join(words for words, changed in changes.items() if changed)


def needs_of_table4(config: ExperimentConfig) -> Needs:
    """Subnets and full networks before and after training, and the recipes that the paper does not have."""
    depths = shown_depths(config)
    pairs = [system for depth in depths for system in (VarId("free", depth), VarId("variant", depth, full=True))]
    return needs(score=[base_system(config), *(VarId("variant", depth) for depth in depths), *pairs,
                        *arm_systems(config, "extensions")])


_TABLE4_COLUMNS = ("training_free_subnet_fid", "training_free_full_fid", "joint_subnet_fid", "joint_full_fid")


def _table4_row(config: ExperimentConfig, results: Results, printed: pd.Series, base: ScoreRecord | None) -> Row:
    depth = config.counterpart(int(printed["subnet_depth"]))
    systems = {} if depth is None else {
        "training_free_subnet_fid": VarId("free", depth), "joint_subnet_fid": VarId("variant", depth),
        "joint_full_fid": VarId("variant", depth, full=True)}
    found = {column: results.scores.get(str(system)) for column, system in systems.items()}
    found["training_free_full_fid"] = base
    row: dict[str, str | Cell] = {"training": THREE_PHASES,
                                  "subnet_depth": Cell(str(depth or NO_COUNTERPART), paper=printed["subnet_depth"])}
    return row | {column: measured(found.get(column) if depth else None, "fid", 3, printed[column],
                                   NO_RECORD if depth else "") for column in _TABLE4_COLUMNS}


_DESIGNS = {"skip r1-r10": "skip all", "skip r7-r10": "bridge"}
"""Our name of each design in the paper."""


def table5(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 5: training and sampling with the subnet at every scale, against a bridge zone of full depth.

    The paper has d = 16; ours is at the depth of the ablations, as the mean over several trainings.
    """
    depth = config.ablations.depth if config.ablations else config.counterpart(16)
    found = arms_of(config, "bridge")
    rows = []
    for _, printed in paper_table(5).iterrows():
        skips_all = _DESIGNS[printed["design"]] == "skip all"
        row: dict[str, str | Cell] = {"design": printed["design"], "subnet_depth": Cell(str(depth or ""), paper="16")}
        for network in ("subnet", "full"):
            systems = [arm.system for arm in found if arm.network == network and (arm.arm == "skip all") == skips_all]
            for column, name, digits in ((f"{network}_fid", "fid", 3), (f"{network}_is", "inception_score", 2)):
                row[column] = averaged(_over(results, systems, name), digits, config.name, printed[column], NO_RECORD)
        rows.append(row)
    return flatten(rows)


def needs_of_table5(config: ExperimentConfig) -> Needs:
    """Both designs, all trainings."""
    return needs(score=arm_systems(config, "bridge"))


def _over(results: Results, systems: Iterable[str], name: str) -> SeedSpread | None:
    return SeedSpread.of(getattr(results.scores.get(system), name, None) for system in systems)


def table8(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 8: FID over subnet depth d and bridge zone N; with N = K the subnet is the full network of its supernet."""
    base = base_system(config)
    grid: dict[tuple[int | None, str], str] = {(arm.depth, arm.arm): arm.system for arm in arms_of(config, "grid")}
    rows = []
    for _, printed in paper_table(8).iterrows():
        paper_depth = int(printed["depth"])
        depth = config.transformer.depth if paper_depth == DEPTH else config.counterpart(paper_depth)
        row: dict[str, str | Cell] = {"depth": Cell(str(depth or NO_COUNTERPART), paper=printed["depth"])}
        for column in printed.index.drop("depth"):
            system = base if paper_depth == DEPTH else grid.get((depth, f"N = {column.removeprefix('N')}"))
            row[column] = measured(results.scores.get(system or ""), "fid", 3, printed[column],
                                   NO_RECORD if depth else "")
        rows.append(row)
    return flatten(rows)


def needs_of_table8(config: ExperimentConfig) -> Needs:
    """The grid, and the network before any of its trainings."""
    return needs(score=[base_system(config), *arm_systems(config, "grid")])
