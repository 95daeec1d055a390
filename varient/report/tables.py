"""The paper's tables, ours beside the paper's, from records alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from varient.config import ExperimentConfig
from varient.files import write_text
from varient.paper import TITLE
from varient.report.cells import ABSENT, ARITHMETIC, MARKS, PREDICTED, latex, markdown, side_by_side
from varient.report.inputs import table_inputs
from varient.report.quality_tables import table1, table4, table5, table8
from varient.report.results import Results, comparable
from varient.report.table2 import table2
from varient.report.table3 import TABLE3_NOTE, table3
from varient.report.training_tables import table6, table7


def _table3(_config: ExperimentConfig, results: Results) -> pd.DataFrame:
    return table3(results.all_profiles)


TABLES: dict[int, Callable[[ExperimentConfig, Results], pd.DataFrame]] = {
    1: table1, 2: table2, 3: _table3, 4: table4, 5: table5, 6: table6, 7: table7, 8: table8}

_REDRAWS = ("± is half of the 95 % interval over redraws of the generated images; what another training would change "
            "comes on top.")
_TRAININGS = "± is half of the 95 % interval (Student's) of a mean over trainings that differ in the seed alone."
_NOTES = {
    1: f"Subnets are not trained. The order of the zones belongs to this layout of scales, not to depth alone: compare "
       f"it with what the scales hold, in the rows of real images. {_REDRAWS}",
    2: f"What was published elsewhere is listed, first- and second-hand, in baselines/sources.yaml. {_REDRAWS}",
    4: f"Rows behind the paper's four are other ways of training, in as many epochs. {_REDRAWS}",
    5: f"The paper has d = 16. {_TRAININGS}",
    6: "Ours is the config that ran; the device is that of the records.",
    7: "Ours is the config that ran.",
    8: f"Each row is one supernet, trained with one N and sampled with all. {_REDRAWS}"}

_HEADINGS = {"method": "Method", "system": "Counterpart here", "steps": "#Steps", "speedup": "Speedup",
             "latency_s": "Latency (s)", "memory_mb": "Mem (MiB)", "kv_cache_mb": "KV (MiB)", "params": "#Param",
             "fid": "FID", "is": "IS", "precision": "Prec", "recall": "Rec", "recognised": "Recognised",
             "published": "Published elsewhere", "subnet_depth": "d", "training": "Training",
             "training_free_subnet_fid": "Training-free subnet FID", "training_free_full_fid": "Training-free full FID",
             "joint_subnet_fid": "Joint subnet FID", "joint_full_fid": "Joint full FID",
             "block": "Cache, weights, decoder", "batch_size": "Batch", "params_mb": "Params (MiB)",
             "total_mb": "Total (MiB)", "predicted_total_mb": "Predicted total (MiB)",
             "measured_total_mb": "Measured total (MiB)", "measured_kv_mb": "Measured KV (MiB)",
             "set_by": "Peak set by", "largest_batch_48gb": "Largest batch in 48 GB", "note": "Note",
             "source": "Source of ours", "strategy": "Strategy", "scales": "Scales", "tokens": "Share of tokens",
             "rebuilt_fid": "FID rebuilt", "design": "Design", "subnet_fid": "Subnet FID",
             "subnet_is": "Subnet IS", "full_fid": "Full FID", "full_is": "Full IS", "configuration": "Configuration",
             "value": "Value", "depth": "d", "phase1_epochs": "Phase 1", "phase2_epochs": "Phase 2",
             "phase3_epochs": "Phase 3", "total_epochs": "Total", "batches_per_epoch": "Batches an epoch",
             **{f"N{n}": f"N = {n}" for n in range(6, 11)}, **{f"fid_d{d}": f"FID at d = {d}" for d in range(2, 31)}}


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
        results = comparable(config.name, results)
    frame = TABLES[number](config, results)
    shown = side_by_side(frame, _HEADINGS)
    notes = "\n\n".join(_notes(number, config, results))
    texts = {".csv": frame.to_csv(index=False), ".md": f"{notes}\n\n{markdown(shown)}", ".tex": latex(shown, notes)}
    for suffix, text in texts.items():
        write_text(stem.with_suffix(suffix), text)
    return [stem.with_suffix(suffix) for suffix in texts]


def _notes(number: int, config: ExperimentConfig, results: Results) -> list[str]:
    """What the table is and how to read it, and which records it lacks."""
    title = f"Table {number} of {TITLE}. Each cell: ours / the paper's."
    if number == 3:
        return [f"{title} {TABLE3_NOTE}"]
    counted, predicted = MARKS[ARITHMETIC], MARKS[PREDICTED]
    notes = [f"{title} Ours ({config.name}): {ABSENT} where there is none, {counted} exact from shapes, {predicted} "
             f"predicted by the cost model, the rest measured. {_NOTES[number]}"]
    wanted = table_inputs(number, config)
    absent = {kind: [name for name in wanted[kind] if name not in getattr(results, f"{kind}s")]
              for kind in ("score", "profile")}
    gaps = [f"{kind} of {', '.join(names)}" for kind, names in absent.items() if names]
    gaps += ["reconstructions"] if wanted.get("reconstruction") and not results.reconstruction else []
    notes += [f"No record: {'; '.join(gaps)}."] if gaps else []
    return notes + [f"Left out: {remark}." for remark in results.remarks]
