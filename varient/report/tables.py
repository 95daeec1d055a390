"""The paper's tables, ours beside the paper's, from records alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from baselines.sources import published
from varient.config import ExperimentConfig
from varient.files import write_text
from varient.paper import DEPTH, TITLE, paper_table, system_id
from varient.records import ProfileRecord, RecordError, ScoreRecord, read_record
from varient.report.inputs import table_inputs
from varient.report.table3 import TABLE3_NOTE, table3
from varient.systems import resolve_system

NO_COUNTERPART = "none"
ABSENT = "–"
OUT_OF_MEMORY = "OOM"
NORMAL_95 = 1.96
"""Half of a 95 % interval in standard deviations."""


@dataclass(frozen=True)
class Results:
    """Records of an experiment by system."""

    scores: dict[str, ScoreRecord]
    profiles: dict[str, ProfileRecord]
    all_profiles: tuple[ProfileRecord, ...] = ()
    """Where one system has several: other batch sizes, caches, precisions."""

    @classmethod
    def read(cls, scores: Sequence[Path], profiles: Sequence[Path] = ()) -> Results:
        """Read record files.

        Raises:
            RecordError: a file that is no such record, or two scores of one system.
        """
        by_score = [read_record(path, ScoreRecord) for path in scores]
        by_profile = [read_record(path, ProfileRecord) for path in profiles]
        systems = [record.system for record in by_score]
        if twice := sorted({system for system in systems if systems.count(system) > 1}):
            raise RecordError(f"two score records of {', '.join(twice)}")
        return cls({r.system: r for r in by_score}, {r.system: r for r in by_profile}, tuple(by_profile))


def table2(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 2: each row of the paper with our value and the paper's for each column, and what others published.

    Behind the paper's rows come those that the config adds (other protocols, other systems) and the real images.  Ours
    is empty where no record says it.  Latency and memory of the digits experiment are those of a miniature on this
    machine's CPU; compare ratios with the paper's, not seconds.
    """
    printed = {system_id(row["method"]): row for _, row in paper_table(2).iterrows()}
    systems = (resolve_system(name, config) for name in table_inputs(2, config)["profile"])
    here = {system.published_as: system for system in systems}
    baseline = results.profiles.get(here[f"var-d{DEPTH}"].name)
    rows = []
    for published_as in (*printed, *(other for other in here if other not in printed)):
        system, cells = here.get(published_as), printed.get(published_as, {})
        ours = _our_cells(results, system.name if system else None, baseline)
        source = published(published_as)
        row = {"method": cells.get("method") or (source.name if source else system.name),
               "system": system.name if system else NO_COUNTERPART,
               "source": f"measured ({config.name})" if any(ours.values()) else "paper"}
        for column in _TABLE2_COLUMNS:
            row[column] = ours.get(column, "")
            if column in _UNCERTAIN:
                row[f"{column}_pm"] = ours.get(f"{column}_pm", "")
            row[f"{column}_paper"] = cells.get(column, "")
        row["recognised"] = ours.get("recognised", "")
        row["published"] = source.cell() if source else ""
        rows.append(row)
    floor = results.scores.get("real-holdout")
    if floor:
        row = {"method": "real images not trained on", "system": floor.system, "source": f"measured ({config.name})"}
        rows.append(row | _score_cells(floor))
    return pd.DataFrame(rows).fillna("")


def table4(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 4: FID of subnet and full network before and after joint training, for each subnet depth.

    The supernet of each depth is another training run, so each row has a full network of its own.
    """
    base = results.scores.get(f"var-d{config.transformer.depth}")
    rows = []
    for _, printed in paper_table(4).iterrows():
        depth = config.counterpart(int(printed["subnet_depth"]))
        row = {"subnet_depth_paper": printed["subnet_depth"], "subnet_depth": depth or NO_COUNTERPART}
        sources = {"training_free_subnet_fid": results.scores.get(f"free-d{depth}"), "training_free_full_fid": base,
                   "joint_subnet_fid": results.scores.get(f"variant-d{depth}"),
                   "joint_full_fid": results.scores.get(f"variant-d{depth}-full")}
        for column, record in sources.items():
            found = record if depth else None
            row[column] = _number(found and found.fid, 3)
            row[f"{column}_pm"] = _half_width(found and found.fid_sd, 3)
            row[f"{column}_paper"] = printed[column]
        row["source"] = f"measured ({config.name})" if depth else "paper"
        rows.append(row)
    return pd.DataFrame(rows)


def _table3(_config: ExperimentConfig, results: Results) -> pd.DataFrame:
    return table3(results.all_profiles)


TABLES: dict[int, Callable[[ExperimentConfig, Results], pd.DataFrame]] = {2: table2, 3: _table3, 4: table4}

_TABLE2_COLUMNS = ("steps", "speedup", "latency_s", "memory_mb", "kv_cache_mb", "params", "fid", "is", "precision",
                   "recall")

_PM_NOTE = ("What was published elsewhere is listed, first- and second-hand, in baselines/sources.yaml. "
            "± is half of the 95 % interval over redraws of the generated images; what another training would change "
            "comes on top.")

_UNCERTAIN = ("fid", "is", "precision", "recall")
"""Columns with an interval: x_pm is half of it."""

_HEADINGS = {"method": "Method", "system": "Counterpart here", "source": "Source of ours", "steps": "#Steps",
             "speedup": "Speedup", "latency_s": "Latency (s)", "memory_mb": "Mem (MiB)", "kv_cache_mb": "KV (MiB)",
             "params": "#Param", "fid": "FID", "is": "IS", "precision": "Prec", "recall": "Rec",
             "recognised": "Recognised", "published": "Published elsewhere", "subnet_depth": "d",
             "training_free_subnet_fid": "Training-free subnet FID",
             "training_free_full_fid": "Training-free full FID", "joint_subnet_fid": "Joint subnet FID",
             "joint_full_fid": "Joint full FID", "block": "Cache, weights, decoder", "batch_size": "Batch",
             "params_mb": "Params (MiB)", "total_mb": "Total (MiB)", "predicted_total_mb": "Predicted total (MiB)",
             "measured_total_mb": "Measured total (MiB)", "measured_kv_mb": "Measured KV (MiB)",
             "set_by": "Peak set by", "largest_batch_48gb": "Largest batch in 48 GB", "note": "Note"}


def render(number: int, config: ExperimentConfig, results: Results, stem: Path) -> list[Path]:
    """Write <stem>.csv, .md and .tex; return the paths.

    Raises:
        ValueError: a table that is not built.
        RecordError: records of another experiment.
    """
    if number not in TABLES:
        raise ValueError(f"table {number} is not built; built: {', '.join(map(str, TABLES))}")
    records = (*results.scores.values(), *results.profiles.values())
    strangers = {record.provenance.experiment for record in records} - {config.name}
    if strangers and number != 3:  # Table 3 is at the paper's size, whatever the experiment
        raise RecordError(f"table {number} of {config.name} was given records of {', '.join(sorted(strangers))}")
    if number != 3:
        _check_comparable(results)
    frame = TABLES[number](config, results)
    shown = _side_by_side(frame)
    note = f"Table {number} of {TITLE}. Each cell: ours / the paper's. " + (
        TABLE3_NOTE if number == 3 else f"Ours ({config.name}) is {ABSENT} where nothing was measured. {_PM_NOTE}")
    texts = {".csv": frame.to_csv(index=False), ".md": f"{note}\n\n{_markdown(shown)}", ".tex": _latex(shown, note)}
    for suffix, text in texts.items():
        write_text(stem.with_suffix(suffix), text)
    return [stem.with_suffix(suffix) for suffix in texts]


def _check_comparable(results: Results) -> None:
    """Raise RecordError where one column would hold numbers that mean different things."""
    systems = [record for record in results.scores.values() if not record.system.startswith("real-")]
    groups = {
        "scores": [(record.system, (record.protocol, record.extractor, record.reference_sha256))
                   for record in results.scores.values()],
        "scores of generated images": [(record.system, record.num_images) for record in systems],
        "profiles": [(record.system, (record.batch_size, record.precision, record.weights, record.provenance.device,
                                      record.provenance.threads)) for record in results.all_profiles],
    }
    for name, members in groups.items():
        if others := [(system, kind) for system, kind in members if kind != members[0][1]]:
            raise RecordError(f"{name} of {members[0][0]} and {others[0][0]} are not comparable: {members[0][1]} and "
                              f"{others[0][1]}")
    names = [record.system for record in results.all_profiles]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RecordError(f"two profile records of {', '.join(twice)}")


def _our_cells(results: Results, system: str | None, baseline: ProfileRecord | None) -> dict[str, str]:
    cells: dict[str, str] = {}
    if profile := results.profiles.get(system or ""):
        cells |= {"steps": profile.steps, "params": _parameters(profile)}
        cells |= _cost_cells(profile, baseline)
    if score := results.scores.get(system or ""):
        cells |= _score_cells(score)
    return cells


def _cost_cells(profile: ProfileRecord, baseline: ProfileRecord | None) -> dict[str, str]:
    """Time and memory; a system that does not fit has neither, and no cell of it is a number."""
    if not profile.latency:
        return {"latency_s": OUT_OF_MEMORY, "memory_mb": OUT_OF_MEMORY}
    latency_s, memory = profile.latency.median_s, profile.memory
    speedup = baseline.latency.median_s / latency_s if baseline and baseline.latency else None
    return {"latency_s": _number(latency_s, 4), "speedup": _number(speedup, 2),
            "memory_mb": _number(memory.peak_mib, 1), "kv_cache_mb": _number(memory.kv_cache_mib, 3)}


def _score_cells(score: ScoreRecord) -> dict[str, str]:
    cells = {}
    for column, name, digits in (("fid", "fid", 3), ("is", "inception_score", 2), ("precision", "precision", 3),
                                 ("recall", "recall", 3)):
        cells |= {column: _number(getattr(score, name), digits),
                  f"{column}_pm": _half_width(getattr(score, f"{name}_sd"), digits)}
    return cells | {"recognised": _number(score.recognised, 3)}


def _half_width(sd: float | None, digits: int) -> str:
    """Half of the 95 % interval over redraws of the generated images."""
    return _number(None if sd is None else NORMAL_95 * sd, digits)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _parameters(profile: ProfileRecord) -> str:
    """Of each network, as in the paper's "2.0+0.3B"."""
    return " + ".join(_count(value) for value in profile.parameters.values()) or _count(profile.num_parameters)


def _count(value: int) -> str:
    for factor, suffix in ((10 ** 9, "B"), (10 ** 6, "M"), (10 ** 3, "K")):
        if value >= factor:
            return f"{value / factor:.3g}{suffix}"
    return str(value)


def _side_by_side(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns x, x_pm, x_paper folded into one column "ours ± half-width / paper's"."""
    shown = {}
    for column in frame.columns:
        if column.endswith(("_paper", "_pm")):
            continue
        ours = frame[column].astype(str).replace("", ABSENT)
        if (half_width := f"{column}_pm") in frame:
            ours += frame[half_width].astype(str).map(lambda pm: f" ± {pm}" if pm else "")
        if (paper := f"{column}_paper") in frame:
            ours = ours + " / " + frame[paper].astype(str).replace("", ABSENT)
        shown[_HEADINGS.get(column, column)] = ours
    return pd.DataFrame(shown)


def _markdown(shown: pd.DataFrame) -> str:
    lines = [list(shown.columns), ["---"] * len(shown.columns), *shown.values.tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _latex(shown: pd.DataFrame, note: str) -> str:
    def escape(text: str) -> str:
        for plain, safe in (("±", r"$\pm$"), ("&", r"\&"), ("%", r"\%"), ("#", r"\#"), ("_", r"\_"), (ABSENT, "--")):
            text = text.replace(plain, safe)
        return text

    body = [" & ".join(escape(cell) for cell in line) + r" \\" for line in shown.values.tolist()]
    head = " & ".join(escape(name) for name in shown.columns) + r" \\"
    return "\n".join([f"% {note}", rf"\begin{{tabular}}{{l{'r' * (len(shown.columns) - 1)}}}", r"\toprule", head,
                      r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])
