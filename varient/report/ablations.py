"""All arms of the ablations: one row for each system as CSV, and their means and differences to be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from varient import markdown
from varient.ablations import OF_BASE, arms
from varient.claims.noise import Estimates, threshold
from varient.claims.records import Records
from varient.config import ExperimentConfig
from varient.files import write_text
from varient.report.cells import ABSENT, number
from varient.report.notes import loss_notes
from varient.results import (
    Paired,
    Results,
    SeedSpread,
    arm_scores,
    comparable,
    pooled_spread,
    resolved_difference,
)
from varient.spread import joined
from varient.targets import ablation_files

_ARM = ["comparison", "arm", "depth", "network"]
_SHOWN = {"fid": ("FID", 3), "fid_cross": ("FID, cross-fitted", 3), "inception_score": ("IS", 2), "loss": ("Loss", 3)}
"""Columns of `arm_scores` that are shown: heading and decimals."""
_COMPARED = ("fid", "loss")
"""Columns whose differences are shown."""


def write_ablations(config: ExperimentConfig, results: Results, output: Path) -> list[Path]:
    """Write all arms with their scores and losses as CSV, and beside it their means and differences as Markdown.

    The cells of an arm are empty if its record is missing or cannot be compared with the others.

    Returns:
        The files.

    Raises:
        ConfigError: the experiment has no ablations.
    """
    arms(config)
    results = comparable(config.name, results)
    frame = arm_scores(config, results)
    replicated = _with_bases_as_seeds(frame)
    means, differences = _means(replicated), _differences(replicated)
    parts = [*map(markdown.escaped, _notes(config, results, frame)),
             markdown.table(means.columns, means.values.tolist())]
    if len(differences):
        parts += [markdown.escaped(_PAIRED), markdown.table(differences.columns, differences.values.tolist())]
    paths = ablation_files(output)
    for path, text in zip(paths, (frame.to_csv(index=False, float_format="%.6g"), "\n\n".join(parts)), strict=True):
        write_text(path, text)
    return paths


_PAIRED = ("Differences between arms with the same seeds, seed by seed: the arm's value minus that of the arm that it "
           "is compared with. t is the mean difference in its standard errors, p the two-sided probability of such a t "
           "without a difference (Student's t). With many comparisons some p below 0.05 are due to chance.")


def _with_bases_as_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """The arms, where those from several base networks are one arm whose seed is that of the base network."""
    from_bases = frame["comparison"] == "bases"
    if not from_bases.any():
        return frame
    split = frame.loc[from_bases, "arm"].str.rpartition(OF_BASE)
    found = frame.copy()
    found.loc[from_bases, "arm"], found.loc[from_bases, "seed"] = split[0], split[2].astype(int)
    return found


def _notes(config: ExperimentConfig, results: Results, frame: pd.DataFrame) -> Iterator[str]:
    yield (f"All arms of the ablations ({config.name}): means over trainings that differ in the seed alone (under "
           f"bases, in the seed of the base network). {ABSENT} means no value; ± is half the width of a 95 % interval "
           "(Student's t) of the mean, and absent for one training.")
    yield from loss_notes(results)
    if power := " ".join(_power(config, results, frame)):
        yield power
    yield from (f"Left out: {remark}." for remark in results.remarks)


def _power(config: ExperimentConfig, results: Results, frame: pd.DataFrame) -> Iterator[str]:
    """What differences the number of trainings resolves, for each compared score, and how far base networks scatter."""
    estimates = Estimates(Records(config, results))
    for column in _COMPARED:
        relative, freedom = estimates.pooled(column)
        if relative is not None:
            trainings, errors = max(map(len, _values(frame.drop_duplicates("system"), column))), threshold(1, freedom)
            least = resolved_difference(relative, trainings, errors)
            yield (f"{_SHOWN[column][0]}: trainings of an arm scatter by {100 * relative:.2g} % (pooled), so with "
                   f"{trainings} an arm no difference below {100 * least:.2g} % is resolved ({errors:.3g} standard "
                   "errors).")
        from_bases = _values(_with_bases_as_seeds(frame[frame["comparison"] == "bases"]), column)
        if (spread := pooled_spread(from_bases)) is not None:
            yield f"Trainings from several base networks scatter by {100 * spread.relative:.2g} %."


def _values(frame: pd.DataFrame, column: str) -> list[list[float]]:
    """Values of each arm and network."""
    return [rows[column].dropna().tolist() for _, rows in frame.groupby(_ARM, sort=False)]


def _means(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each arm and network."""
    shown = {column: look for column, look in _SHOWN.items() if frame[column].notna().any()} or {"fid": _SHOWN["fid"]}
    rows = []
    for (comparison, arm, depth, network), found in frame.groupby(_ARM, sort=False):
        cells = [_mean(SeedSpread.of(found[column]), digits) for column, (_, digits) in shown.items()]
        measured = found.dropna(subset=list(shown), how="all")
        rows.append([comparison, arm, str(depth), network, str(len(measured)), *cells])
    return pd.DataFrame(rows, columns=["Comparison", "Arm", "d", "Network", "Trainings",
                                       *(heading for heading, _ in shown.values())])


def _mean(spread: SeedSpread | None, digits: int) -> str:
    if spread is None:
        return ABSENT
    return joined(number(spread.mean, digits), number(spread.half_width_95, digits))


def _differences(frame: pd.DataFrame) -> pd.DataFrame:
    """Each arm with several seeds against the first such arm of its comparison, depth and network."""
    rows = []
    for (comparison, depth, network), found in frame.groupby(["comparison", "depth", "network"], sort=False):
        several = {arm: trainings.set_index("seed") for arm, trainings in found.groupby("arm", sort=False)
                   if len(trainings) > 1}
        for arm, trainings in list(several.items())[1:]:
            first_arm, first = next(iter(several.items()))
            paired = {column: Paired.of(trainings[column].dropna().to_dict(), first[column].dropna().to_dict())
                      for column in _COMPARED}
            if any(paired.values()):
                cells = [_difference(paired[column], _SHOWN[column][1]) for column in _COMPARED]
                rows.append([comparison, arm, first_arm, str(depth), network, *cells])
    return pd.DataFrame(rows, columns=["Comparison", "Arm", "Compared with", "d", "Network",
                                       *(_SHOWN[column][0] for column in _COMPARED)])


def _difference(paired: Paired | None, digits: int) -> str:
    return ABSENT if paired is None else f"{paired.mean:+.{digits}f} (t = {paired.t:.1f}, p = {paired.p:.2g})"
