"""Costs as documents (units in the keys) and as tables for the terminal."""

from __future__ import annotations

import json
from typing import Any

from rich.table import Table

from varient.cost.roofline import (
    ANCHOR,
    MIB,
    ROWS_PER_IMAGE,
    Comparison,
    StageCost,
    SystemCost,
    compare_baselines,
)
from varient.cost.work import Work
from varient.terminal import print_table

_PREDICTED = ("activation_bytes", "moved_bytes", "moved_bytes_by_part", "latency_s", "latency_s_by_part",
              "roofline_latency_s", "calibration_factor", "transformer_phase_mib", "decoder_phase_mib",
              "peak_memory_mib", "fits_device")
NOT_MODELLED = "–"


def cost_document(cost: SystemCost) -> dict[str, Any]:
    """All quantities of a cost, for JSON; null where they are not modelled.  ``sources`` tells which are which.

    ``flops`` are those of matrix products, attention and convolutions; those of sampling, an estimate, are listed by
    part alone.
    """
    setting = {"system": cost.system.name, "steps": cost.system.steps, "batch_size": cost.batch_size,
               "rows": ROWS_PER_IMAGE * cost.batch_size, "cache_policy": cost.policy,
               "precision": cost.precision.name, "device": cost.device.name,
               "device_memory_mib": cost.device.memory_mib, "device_source": cost.device.source}
    arithmetic = {
        "transformer_parameters": sum(cost.system.transformer_parameters),
        "transformer_parameters_by_network": list(cost.system.transformer_parameters),
        "tokenizer_parameters": cost.system.tokenizer_parameters,
        "parameters_mib": _mib(cost.system.parameter_bytes(cost.precision)),
        "kv_cache_mib": _mib(cost.kv_cache_bytes),
        "kv_cache_bytes": cost.kv_cache_bytes,
        "stages": [_stage_document(stage) for stage in cost.stages],
        **_work_document(cost),
    }
    predicted = _predictions(cost)
    sources = {"arithmetic": list(arithmetic),
               "predicted": [*predicted, "stages.latency_s_by_pass", "flops_by_part.sampling"]}
    return setting | {"sources": sources} | arithmetic | predicted


def comparison_document(rows: list[Comparison]) -> dict[str, Any]:
    """Predictions beside the paper's Table 2, for JSON; errors are (ours - paper) / paper."""
    cost = rows[0].cost
    return {
        "device": cost.device.name, "batch_size": cost.batch_size, "calibrated_on": ANCHOR,
        "calibration_factor": round(cost.calibration, 4),
        "systems": [{
            "system": row.cost.system.name, "cache_policy": row.cost.policy, "precision": row.cost.precision.name,
            "latency_s": round(row.cost.latency_s, 3), "paper_latency_s": row.paper_latency_s,
            "latency_error": round(row.latency_error, 4),
            "kv_cache_mib": _mib(row.cost.kv_cache_bytes), "paper_kv_cache_mib": row.paper_kv_cache_mib,
            "kv_cache_error": row.kv_cache_error and round(row.kv_cache_error, 4),
            "peak_memory_mib": row.cost.peak_memory and round(row.cost.peak_memory.mib, 1),
            "paper_memory_mib": row.paper_memory_mib,
            "memory_error": row.memory_error and round(row.memory_error, 4)} for row in rows],
    }


def show_cost(cost: SystemCost, *, as_json: bool = False) -> None:
    """Print a cost: as one JSON document, or as tables of the summary, the parts and the passes."""
    document = cost_document(cost)
    if as_json:
        print(json.dumps(document, indent=2))
        return
    summary = Table(title=f"{cost.system.name}, batch {cost.batch_size}, {_cache(cost)}, {cost.precision.name}")
    for heading in ("quantity", "value", "source"):
        summary.add_column(heading, justify="right" if heading == "value" else "left")
    for label, key, pattern in (
            ("transformer parameters", "transformer_parameters", "{:,}"),
            ("tokenizer parameters", "tokenizer_parameters", "{:,}"),
            ("parameters, MiB", "parameters_mib", "{:,.1f}"), ("KV cache, MiB", "kv_cache_mib", "{:,.2f}"),
            ("FLOPs", "flops", "{:.3e}"), ("bytes moved", "moved_bytes", "{:.3e}"),
            (f"latency on {cost.device.name}, s", "latency_s", "{:.3f}"),
            ("memory in the transformer phase, MiB", "transformer_phase_mib", "{:,.0f}"),
            ("memory in the decoder phase, MiB", "decoder_phase_mib", "{:,.0f}"),
            (f"both fit in {cost.device.memory_mib:,} MiB", "fits_device", "{}")):
        shown = NOT_MODELLED if document[key] is None else pattern.format(document[key])
        summary.add_row(label, shown, "predicted" if key in _PREDICTED else "arithmetic")
    for table in (summary, _parts_table(cost), *map(_passes_table, cost.stages)):
        print_table(table)


def show_comparison(rows: list[Comparison], *, as_json: bool = False) -> None:
    """Print the comparison with Table 2: as one JSON document, or as a table each for latency, cache and memory.

    DiT and LlamaGen follow the rows given: in the same document, or in a table of latency of their own.
    """
    others = compare_baselines()
    if as_json:
        print(json.dumps(comparison_document([*rows, *others]), indent=2))
        return
    cost = rows[0].cost
    print(f"{cost.device.name}, batch {cost.batch_size}, {cost.policy} cache, {cost.precision.name}; "
          "ours - paper relative to paper")
    print_table(_comparison_table(
        f"Latency, s: roofline times {cost.calibration:.3f}, fitted to {ANCHOR} alone", "{:.2f}", "latency_s",
        [(row, row.cost.latency_s, row.latency_error) for row in rows]))
    print_table(_comparison_table(
        "KV cache, MiB: arithmetic", "{:.1f}", "kv_cache_mb",
        [(row, row.cost.kv_cache_bytes / MIB, row.kv_cache_error) for row in rows]))
    print_table(_comparison_table(
        "Peak memory, MiB: predicted", "{:.0f}", "memory_mb",
        [(row, row.cost.peak_memory.mib, row.memory_error) for row in rows]))
    print_table(_comparison_table(
        "Latency of the other kinds of systems, s: same roofline and factor", "{:.2f}", "latency_s",
        [(row, row.cost.latency_s, row.latency_error) for row in others], with_precision=True))


def _cache(cost: SystemCost) -> str:
    return "no cache" if cost.policy == "none" else f"{cost.policy} cache"


def _comparison_table(title: str, pattern: str, column: str, lines: list[tuple[Comparison, float, float]], *,
                      with_precision: bool = False) -> Table:
    """Ours beside the paper's as printed in a column of Table 2, and the error."""
    table = Table("system", title=title)
    for heading in ("ours", "paper", "error"):
        table.add_column(heading, justify="right")
    for row, ours, error in lines:
        name = row.cost.system.name + (f", {row.cost.precision.name}" if with_precision else "")
        table.add_row(name, pattern.format(ours), row.printed[column], f"{error:+.1%}")
    return table


def _parts_table(cost: SystemCost) -> Table:
    table = Table("part", title="By part")
    for heading in ("TFLOP", "weight GB", "KV GB", "activ. GB", "seconds"):
        table.add_column(heading, justify="right")
    for part, work in cost.work.items():
        moved = (work.weight_bytes, work.kv_read_bytes + work.kv_written_bytes, work.activation_bytes)
        table.add_row(part.replace("_", " "), f"{work.flops / 1e12:.3f}", *(f"{count / 1e9:.2f}" for count in moved),
                      f"{cost.roofline_s[part] * cost.calibration:.3f}")
    return table


def _passes_table(cost: StageCost) -> Table:
    share = cost.token_layers / cost.full_token_layers
    title = f"By pass of {cost.stage.title}: {cost.token_layers:,} token-layers, {share:.3f} of all"
    table = Table(cost.stage.pass_unit, title=title)
    for heading in ("tokens", "layers", "KV after, MiB", "KV peak, MiB", "latency, s"):
        table.add_column(heading, justify="right")
    for trip, live, peak, seconds in zip(cost.stage.passes, cost.kv_live_bytes, cost.kv_peak_bytes, cost.latency_s,
                                         strict=True):
        entering = str(trip.first) if trip.first == trip.last else f"{trip.first}-{trip.last}"
        each = "" if trip.times == 1 else f"{trip.times} x "
        table.add_row(entering, str(trip.tokens), str(len(trip.layers)), f"{live / MIB:.1f}", f"{peak / MIB:.1f}",
                      f"{each}{seconds:.3f}")
    return table


def _stage_document(cost: StageCost) -> dict[str, Any]:
    trips = cost.stage.passes
    return {"network": cost.stage.title, "depth": cost.stage.depth, "embed_dim": cost.stage.embed_dim,
            f"{cost.stage.pass_unit}_by_pass": [[trip.first, trip.last] for trip in trips],
            "times_by_pass": [trip.times for trip in trips],
            "tokens_by_pass": [trip.tokens for trip in trips],
            "layers_by_pass": [len(trip.layers) for trip in trips],
            "token_layers": cost.token_layers,
            "token_layers_share_of_full": round(cost.token_layers / cost.full_token_layers, 4),
            "kv_live_mib_by_pass": [_mib(count) for count in cost.kv_live_bytes],
            "kv_peak_mib_by_pass": [_mib(count) for count in cost.kv_peak_bytes],
            "kv_scratch_mib": _mib(cost.kv_scratch_bytes),
            "latency_s_by_pass": [round(seconds, 4) for seconds in cost.latency_s]}


def _work_document(cost: SystemCost) -> dict[str, Any]:
    total = sum(cost.work.values(), Work())
    return {"flops": total.flops - cost.work["sampling"].flops,
            "flops_by_part": {part: work.flops for part, work in cost.work.items()},
            "weight_bytes": total.weight_bytes, "kv_read_bytes": total.kv_read_bytes,
            "kv_written_bytes": total.kv_written_bytes}


def _predictions(cost: SystemCost) -> dict[str, Any]:
    total, peak = sum(cost.work.values(), Work()), cost.peak_memory
    return {
        "activation_bytes": total.activation_bytes,
        "moved_bytes": total.moved_bytes,
        "moved_bytes_by_part": {part: work.moved_bytes for part, work in cost.work.items()},
        "latency_s": round(cost.latency_s, 4),
        "latency_s_by_part": {part: round(s * cost.calibration, 4) for part, s in cost.roofline_s.items()},
        "roofline_latency_s": round(sum(cost.roofline_s.values()), 4),
        "calibration_factor": round(cost.calibration, 4),
        "transformer_phase_mib": peak and round(peak.transformer_mib, 1),
        "decoder_phase_mib": peak and round(peak.decoder_mib, 1),
        "peak_memory_mib": peak and round(peak.mib, 1),
        "fits_device": peak and peak.mib <= cost.device.memory_mib,
    }


def _mib(count: int) -> float:
    return round(count / MIB, 2)
