"""The paper's tables, ours beside the paper's, from records alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from varient.config import ExperimentConfig
from varient.report.fidelity_columns import FIDELITY_HEADINGS
from varient.report.needs import Needs, nothing
from varient.report.notes import table_notes
from varient.report.quality_tables import (
    needs_of_table1,
    needs_of_table4,
    needs_of_table5,
    needs_of_table8,
    table1,
    table4,
    table5,
    table8,
)
from varient.report.table2 import needs_of_table2, table2
from varient.report.table3 import table3
from varient.report.table_writing import with_unknown_weights_said, write_table
from varient.report.training_tables import table6, table7
from varient.results import Results, comparable


def _table3(_config: ExperimentConfig, results: Results) -> pd.DataFrame:
    return table3((*results.all_profiles, *results.benchmarks))


class Table(NamedTuple):
    """A table of the paper: the function that builds it, and the one that returns its inputs."""

    build: Callable[[ExperimentConfig, Results], pd.DataFrame]
    needs: Callable[[ExperimentConfig], Needs]


# Table 3 is at the paper's size, Tables 6 and 7 are of the config alone.
TABLES = {1: Table(table1, needs_of_table1), 2: Table(table2, needs_of_table2), 3: Table(_table3, nothing),
          4: Table(table4, needs_of_table4), 5: Table(table5, needs_of_table5), 6: Table(table6, nothing),
          7: Table(table7, nothing), 8: Table(table8, needs_of_table8)}

_HEADINGS = {"method": "Method", "system": "Counterpart here", "steps": "#Steps", "speedup": "Speedup",
             "latency_s": "Latency (s)", "images_per_s": "Images/s", "memory_mb": "Mem (MiB)",
             "kv_cache_mb": "KV (MiB)", "params": "#Param", "work_ratio": "Token-layers, VAR's over own",
             "fid": "FID", "fid_ratio": "FID over VAR's", "is": "IS", "precision": "Prec", "recall": "Rec",
             "fid_test": "FID to test set", "fid_cross": "FID, cross-fitted", "recognised": "Judge accuracy",
             "published": "Published elsewhere", "cpu_speedup": "CPU: speedup", "cpu_latency_s": "CPU: latency (s)",
             "cpu_kv_cache_mb": "CPU: KV (MiB)", "subnet_depth": "d", "training": "Training",
             "training_free_subnet_fid": "Training-free subnet FID", "training_free_full_fid": "Training-free full FID",
             "joint_subnet_fid": "Joint subnet FID", "joint_full_fid": "Joint full FID",
             "block": "Cache, weights, decoder", "batch_size": "Batch", "params_mb": "Params (MiB)",
             "total_mb": "Total (MiB)", "predicted_total_mb": "Predicted total (MiB)",
             "simulated_total_mb": "Simulated allocator (MiB)",
             "measured_total_mb": "Measured total (MiB)", "measured_kv_mb": "Measured KV (MiB)",
             "set_by": "Peak set by", "largest_batch_48gb": "Largest batch in 48 GB", "note": "Note",
             "source": "Source of ours", "strategy": "Strategy", "scales": "Scales", "tokens": "Share of tokens",
             "rebuilt_fid": "FID rebuilt", "design": "Design", "subnet_fid": "Subnet FID",
             "subnet_is": "Subnet IS", "full_fid": "Full FID", "full_is": "Full IS", "configuration": "Configuration",
             "value": "Value", "depth": "d", "phase1_epochs": "Phase 1", "phase2_epochs": "Phase 2",
             "phase3_epochs": "Phase 3", "total_epochs": "Total", "batches_per_epoch": "Batches per epoch",
             "training_free_subnet_loss": "Training-free subnet loss",
             "training_free_full_loss": "Training-free full loss", "joint_subnet_loss": "Joint subnet loss",
             "joint_full_loss": "Joint full loss", "subnet_loss": "Subnet loss", "full_loss": "Full loss",
             **{f"N{n}_loss": f"Loss, N = {n}" for n in range(6, 11)}, **{f"N{n}": f"N = {n}" for n in range(6, 11)},
             **FIDELITY_HEADINGS, **{f"fid_d{d}": f"FID at d = {d}" for d in range(2, 31)}}


def _of_these_scales(config: ExperimentConfig, results: Results) -> Results:
    """The results without reconstructions that were made with other scales than the config's."""
    if results.reconstruction is None or results.reconstruction.patch_nums == config.patch_nums:
        return results
    return replace(results, reconstruction=None, remarks=(
        *results.remarks, f"reconstructions of patch_nums = {list(results.reconstruction.patch_nums)}"))


def render(number: int, config: ExperimentConfig, results: Results, stem: Path) -> list[Path]:
    """Write <stem>.csv, .md and .tex; return the paths.

    Records that are missing, of another experiment or not comparable with the rest leave their cells empty, and the
    note above the table names them.

    Raises:
        ValueError: a table that the paper does not have.
    """
    if number not in TABLES:
        raise ValueError(f"table {number} is unknown; the paper has {', '.join(map(str, TABLES))}")
    if number != 3:  # Table 3 is at the paper's size, whatever the experiment
        results = _of_these_scales(config, comparable(config.name, results))
    frame = TABLES[number].build(config, results)
    frame = with_unknown_weights_said(frame, config, results)
    notes = table_notes(number, config, results, frame, TABLES[number].needs(config))
    return write_table(frame, _HEADINGS, notes, stem)
