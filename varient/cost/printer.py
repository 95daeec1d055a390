"""Answers of `varient cost`, `plan` and a training's dry run: a JSON document with units in its keys, and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from varient.cost.planner import Choice
from varient.cost.quantities import Work
from varient.cost.roofline import (
    ANCHOR,
    ROWS_PER_IMAGE,
    Comparison,
    StageCost,
    SystemCost,
    compare_with_paper,
    known_peak_memory,
)
from varient.cost.sizes import MIB
from varient.cost.training_plan import USABLE_MEMORY, Phase, TrainingPlan
from varient.cost.training_setting import ASSUMED_UTILISATION
from varient.terminal import Answer, Grid

NOT_MODELLED = "–"

_COST_SUMMARY = (
    ("transformer parameters", "transformer_parameters", "{:,}"),
    ("tokenizer parameters", "tokenizer_parameters", "{:,}"),
    ("parameters, MiB", "parameters_mib", "{:,.1f}"), ("KV cache, MiB", "kv_cache_mib", "{:,.2f}"),
    ("FLOPs", "flops", "{:.3e}"), ("bytes moved", "moved_bytes", "{:.3e}"),
    ("latency on {device}, s", "latency_s", "{:.3f}"),
    ("memory in the transformer phase, MiB", "transformer_phase_mib", "{:,.0f}"),
    ("memory in the decoder phase, MiB", "decoder_phase_mib", "{:,.0f}"),
    ("both fit in {device_memory_mib:,} MiB", "fits_device", "{}"))

_MEMORY = {
    "weights": "weights, float32", "gradients": "gradients, float32", "moments": "AdamW's two moments, float32",
    "buckets": "DDP's gradient buckets", "gathered": "fsdp: gathered parameters", "tokenizer": "tokenizer's weights",
    "weight_copies": "matrices in 16 bits (autocast)", "activations": "activations saved for the backward pass",
    "working": "temporary tensors at the peak", "update": "copies in the optimizer's step",
    "probe": "gradient probe, between steps",
}
_EXACT_MEMORY = ("weights", "gradients", "moments", "buckets", "tokenizer", "weight_copies")
"""Of `DeviceMemory`; the rest is estimated."""


# -- a system ----------------------------------------------------------------------------------------------------------

def cost_answer(cost: SystemCost) -> Answer:
    """A system's cost, its parts and its passes.

    In the document null stands for what is not modelled, ``sources`` tells what is counted and what is predicted, and
    ``flops`` are those of matrix products, attention and convolutions; those of sampling, an estimate, are listed by
    part alone.
    """
    setting = {"system": cost.system.name, "steps": cost.system.steps, "batch_size": cost.batch_size,
               "rows": ROWS_PER_IMAGE * cost.batch_size, "cache_policy": cost.policy,
               "precision": cost.precision.name, "device": cost.device.name,
               "device_memory_mib": cost.device.memory_mib, "device_source": cost.device.source}
    total = sum(cost.work.values(), Work())
    arithmetic = {
        "transformer_parameters": sum(cost.system.transformer_parameters),
        "transformer_parameters_by_network": list(cost.system.transformer_parameters),
        "tokenizer_parameters": cost.system.tokenizer_parameters,
        "parameters_mib": _mib(cost.system.parameter_bytes(cost.precision)),
        "kv_cache_mib": _mib(cost.kv_cache_bytes),
        "kv_cache_bytes": cost.kv_cache_bytes,
        "stages": [_stage(stage) for stage in cost.stages],
        "flops": total.flops - cost.work["sampling"].flops,
        "flops_by_part": {part: work.flops for part, work in cost.work.items()},
        "weight_bytes": total.weight_bytes, "kv_read_bytes": total.kv_read_bytes,
        "kv_written_bytes": total.kv_written_bytes,
    }
    peak = cost.peak_memory
    predicted = {
        "activation_bytes": total.activation_bytes,
        "moved_bytes": total.moved_bytes,
        "moved_bytes_by_part": {part: work.moved_bytes for part, work in cost.work.items()},
        "latency_s": round(cost.latency_s, 4),
        "latency_s_by_part": {part: round(s * cost.calibration, 4) for part, s in cost.roofline_s.items()},
        "roofline_latency_s": round(sum(cost.roofline_s.values()), 4),
        "calibration_factor": round(cost.calibration, 4),
        "launches": cost.launches,
        "host_launch_s": round(cost.host_s, 4),
        "transformer_phase_mib": peak and round(peak.transformer_mib, 1),
        "decoder_phase_mib": peak and round(peak.decoder_mib, 1),
        "peak_memory_mib": peak and round(peak.mib, 1),
        "fits_device": peak and peak.mib <= cost.device.memory_mib,
    }
    sources = {"arithmetic": list(arithmetic),
               "predicted": [*predicted, "stages.latency_s_by_pass", "flops_by_part.sampling"]}
    document = setting | {"sources": sources} | arithmetic | predicted
    cache = "no cache" if cost.policy == "none" else f"{cost.policy} cache"
    summary = [(label.format_map(setting), NOT_MODELLED if document[key] is None else pattern.format(document[key]),
                "predicted" if key in predicted else "arithmetic") for label, key, pattern in _COST_SUMMARY]
    return Answer(document, [
        Grid(f"{cost.system.name}, batch {cost.batch_size}, {cache}, {cost.precision.name}",
             ("quantity", "value", "source"), summary, words=("source",)),
        _parts_grid(cost), *map(_passes_grid, cost.stages)])


def _stage(cost: StageCost) -> dict[str, Any]:
    trips = cost.stage.passes
    return {"network": cost.stage.title, "depth": cost.stage.depth, "embed_dim": cost.stage.embed_dim,
            f"{cost.stage.pass_unit}_by_pass": [[trip.first, trip.last] for trip in trips],
            "times_by_pass": [trip.times for trip in trips],
            "tokens_by_pass": [trip.tokens for trip in trips],
            "guided_by_pass": [trip.guided for trip in trips],
            "layers_by_pass": [len(trip.layers) for trip in trips],
            "token_layers": cost.token_layers,
            "token_layers_share_of_full": round(cost.token_layers / cost.full_token_layers, 4),
            "kv_live_mib_by_pass": [_mib(count) for count in cost.kv_live_bytes],
            "kv_peak_mib_by_pass": [_mib(count) for count in cost.kv_peak_bytes],
            "kv_scratch_mib": _mib(cost.kv_scratch_bytes),
            "latency_s_by_pass": [round(seconds, 4) for seconds in cost.latency_s]}


def _parts_grid(cost: SystemCost) -> Grid:
    rows = []
    for part, work in cost.work.items():
        moved = (work.weight_bytes, work.kv_read_bytes + work.kv_written_bytes, work.activation_bytes)
        rows.append((part.replace("_", " "), f"{work.flops / 1e12:.3f}", *(f"{count / 1e9:.2f}" for count in moved),
                     f"{cost.roofline_s[part] * cost.calibration:.3f}"))
    return Grid("By part", ("part", "TFLOP", "weight GB", "KV GB", "activ. GB", "seconds"), rows)


def _passes_grid(cost: StageCost) -> Grid:
    share = cost.token_layers / cost.full_token_layers
    rows = []
    for trip, live, peak, seconds in zip(cost.stage.passes, cost.kv_live_bytes, cost.kv_peak_bytes, cost.latency_s,
                                         strict=True):
        entering = str(trip.first) if trip.first == trip.last else f"{trip.first}-{trip.last}"
        each = "" if trip.times == 1 else f"{trip.times} x "
        rows.append((entering, str(trip.tokens), str(len(trip.layers)), f"{live / MIB:.1f}", f"{peak / MIB:.1f}",
                     f"{each}{seconds:.3f}"))
    return Grid(f"By pass of {cost.stage.title}: {cost.token_layers:,} token-layers, {share:.3f} of all",
                (cost.stage.pass_unit, "tokens", "layers", "KV after, MiB", "KV peak, MiB", "latency, s"), rows)


# -- the paper's Table 2 -----------------------------------------------------------------------------------------------

def comparison_answer(rows: Sequence[Comparison], others: Sequence[Comparison]) -> Answer:
    """Predictions beside the paper's Table 2; errors are (ours - paper) / paper.

    Args:
        rows: of VAR, at one setting.
        others: of DiT and LlamaGen, which the paper gives a latency alone.
    """
    cost = rows[0].cost
    document = {
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
            "memory_error": row.memory_error and round(row.memory_error, 4)} for row in (*rows, *others)],
    }
    return Answer(document, lead=f"{cost.device.name}, batch {cost.batch_size}, {cost.policy} cache, "
                                 f"{cost.precision.name}; ours - paper relative to paper", grids=[
        _beside(f"Latency, s: roofline times {cost.calibration:.3f}, fitted to {ANCHOR} alone", rows, "{:.2f}",
                lambda cost: cost.latency_s, "latency_s"),
        _beside("KV cache, MiB: arithmetic", rows, "{:.1f}",
                lambda cost: cost.kv_cache_bytes / MIB, "kv_cache_mb"),
        _beside("Peak memory, MiB: predicted", rows, "{:.0f}",
                lambda cost: known_peak_memory(cost).mib, "memory_mb"),
        _beside("Latency of the other kinds of systems, s: same roofline and factor", others, "{:.2f}",
                lambda cost: cost.latency_s, "latency_s",
                name=lambda row: f"{row.cost.system.name}, {row.cost.precision.name}")])


def _beside(title: str, rows: Sequence[Comparison], pattern: str, ours_of: Callable[[SystemCost], float], column: str,
            name: Callable[[Comparison], str] = lambda row: row.cost.system.name) -> Grid:
    """Ours, the paper's as printed in a column of Table 2, and the relative error of ours."""
    cells = [(name(row), ours_of(row.cost), row.printed[column]) for row in rows]
    return Grid(title, ("system", "ours", "paper", "error"), [
        (system, pattern.format(ours), printed, f"{ours / float(printed) - 1:+.1%}")
        for system, ours, printed in cells])


# -- a budget ----------------------------------------------------------------------------------------------------------

def plan_answer(chosen: Sequence[Choice], *, batch_size: int, device: str, memory_mib: float,
                latency_s: float | None, unknown: Sequence[str]) -> Answer:
    """Configurations that fit a budget, best first.

    Args:
        unknown: methods that none of them has, because their quality is not known.
    """
    miss = max(abs(row.latency_error) for row in compare_with_paper())
    document = {
        "device": device.lower(), "batch_size": batch_size, "memory_mib": round(memory_mib, 2), "latency_s": latency_s,
        "largest_latency_error_in_table2": round(miss, 4),
        "sources": {"predicted": ["configurations.peak_memory_mib", "configurations.latency_s"]},
        "not_considered": list(unknown),
        "configurations": [{
            "system": str(choice.system), "depth": choice.system.depth, "bridge": choice.bridge,
            "precision": choice.precision,
            "cache_policy": choice.policy, "fid": choice.quality.fid, "fid_source": choice.quality.source,
            "peak_memory_mib": round(choice.memory_mib, 1), "latency_s": round(choice.latency_s, 4)}
            for choice in chosen],
    }
    return Answer(document, [Grid(
        f"batch {batch_size} on {device.lower()}, at most {memory_mib:.0f} MiB"
        + (f" and {latency_s:g} s" if latency_s else ""),
        ("configuration", "FID", "source", "peak MiB", "time s"),
        [(choice.name, f"{choice.quality.fid:.2f}", choice.quality.source, f"{choice.memory_mib:.0f}",
          f"{choice.latency_s:.2f}") for choice in chosen],
        words=("source",),
        caption="Peak and time are predicted; the same predictions miss latencies of the paper's Table 2 by up to "
                f"{miss:.0%} (varient cost --compare)."
                + (f"  Not considered, because their quality is not known here: {', '.join(unknown)}." * bool(unknown)),
        )])


# -- a training --------------------------------------------------------------------------------------------------------

def training_answer(plan: TrainingPlan) -> Answer:
    """A training before its start: its phases, its kinds of batches and the memory of a device.

    In the document ``sources`` tells which quantities are exact, expected, estimated and assumed.
    """
    setting, memory, full = plan.setting, plan.memory, plan.kinds[0]
    document = {
        "experiment": plan.experiment, "training": plan.name, "device": setting.device.name,
        "devices": setting.devices, "strategy": setting.strategy, "precision": setting.precision,
        "recompute": setting.recompute, "batch_size": plan.batch_size, "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation, "encodes_images": plan.encodes,
        "sources": {
            "exact": ["parameters", "steps", "images", "tokens", "token_layers_per_image", "flops_per_image",
                      "tokenizer_flops_per_image", *(f"memory_mib.{name}" for name in _EXACT_MEMORY)],
            "expected": ["full_batches", "subnet_batches", "token_layers", "flops", "computed_flops"],
            "estimated": ["peak_memory_mib", "largest_micro_batch", "fits_device", "step_s", "hours", "device_hours",
                          *(f"memory_mib.{name}" for name in _MEMORY if name not in _EXACT_MEMORY)],
            "assumed": ["usable_share_of_device_memory", "utilisation"]},
        "parameters": plan.parameters, "tokens_per_image": plan.shape.pyramid.length,
        "training_images": plan.num_images, "steps_per_epoch": plan.steps_per_epoch, "epochs": plan.schedule.epochs,
        "utilisation": ASSUMED_UTILISATION, "tokenizer_flops_per_image": plan.encoder_flops,
        "batches": [{"plan": kind.name, "token_layers_per_image": kind.token_layers,
                     "token_layers_share_of_full": round(kind.token_layers / full.token_layers, 4),
                     "flops_per_image": kind.flops, "flops_again_per_image": kind.extra_flops,
                     "expected_batches": round(sum(kind.batches), 1), "step_s": round(plan.step_seconds(kind), 3)}
                    for kind in plan.kinds],
        "phases": [_phase(plan, phase) for phase in plan.phases], "total": _phase(plan, plan.total),
        "memory_mib": {name: _mib(count) for name, count in asdict(memory).items()},
        "peak_memory_mib": _mib(memory.peak), "device_memory_mib": setting.device.memory_mib,
        "usable_share_of_device_memory": USABLE_MEMORY,
        "fits_device": plan.fits, "largest_micro_batch": plan.largest_micro_batch, "notes": list(plan.notes),
    }
    lead = (f"{plan.name} of {plan.experiment}: {setting.devices} x {setting.device.name}, {setting.strategy}, "
            f"{setting.precision}{', recomputation' if setting.recompute else ''}; batch {plan.batch_size} = "
            f"{setting.devices} devices x {plan.accumulation} x {plan.micro_batch}; {plan.parameters:,} parameters")
    return Answer(document, [_phases_grid(plan), _batches_grid(plan), _memory_grid(plan)], lead,
                  [f"* {note}" for note in plan.notes])


def _phase(plan: TrainingPlan, phase: Phase) -> dict[str, Any]:
    return {"phase": phase.name, "first_epoch": phase.first, "last_epoch": phase.last,
            "subnet_probability": [round(p, 6) for p in phase.probabilities], "steps": phase.steps,
            "images": phase.images, "tokens": phase.tokens, "full_batches": round(phase.full_batches, 1),
            "subnet_batches": round(phase.subnet_batches, 1),
            "subnet_batches_standard_deviation": round(phase.subnet_deviation, 1),
            "token_layers": round(phase.token_layers), "flops": phase.flops, "computed_flops": phase.computed_flops,
            "hours": round(phase.hours, 3), "device_hours": round(phase.hours * plan.setting.devices, 2)}


def _phases_grid(plan: TrainingPlan) -> Grid:
    phases = (*(plan.phases if len(plan.phases) > 1 else ()), plan.total)
    quantities: tuple[tuple[str, Callable[[Phase], str], str], ...] = (
        ("epochs", lambda phase: f"{phase.first}-{phase.last}", "exact"), ("p(subnet)", _shares, "exact"),
        ("steps", lambda phase: f"{phase.steps:,}", "exact"),
        ("subnet batches", _subnet_batches, "expected"),
        ("images", lambda phase: f"{phase.images:,}", "exact"),
        ("tokens", lambda phase: f"{phase.tokens:.3e}", "exact"),
        ("token-layers", lambda phase: f"{phase.token_layers:.3e}", "expected"),
        ("FLOPs, forward and backward", lambda phase: f"{phase.flops:.3e}", "expected"),
        ("FLOPs, all", lambda phase: f"{phase.computed_flops:.3e}", "expected"),
        ("hours", lambda phase: f"{phase.hours:.2f}", "estimated"))
    return Grid("Phases", ("phase", *(phase.name for phase in phases), "source"),
                [(title, *map(show, phases), source) for title, show, source in quantities], words=("source",))


def _shares(phase: Phase) -> str:
    first, last = phase.probabilities
    return f"{first:.2f}" if first == last else f"{first:.2f}-{last:.2f}"


def _subnet_batches(phase: Phase) -> str:
    return f"{phase.subnet_batches:,.0f}" + (
        f" (sd {phase.subnet_deviation:.0f})" if phase.subnet_deviation else "")


def _batches_grid(plan: TrainingPlan) -> Grid:
    return Grid("A step: work exact, seconds estimated",
                ("plan", "token-layers an image", "of full", "TFLOP an image", "extra", "step, s"),
                [(kind.name, f"{kind.token_layers:,}", f"{kind.token_layers / plan.kinds[0].token_layers:.3f}",
                  f"{kind.flops / 1e12:.3f}", f"{(kind.extra_flops + plan.encoder_flops) / 1e12:.3f}",
                  f"{plan.step_seconds(kind):.3f}") for kind in plan.kinds])


def _memory_grid(plan: TrainingPlan) -> Grid:
    memory, best = plan.memory, plan.largest_micro_batch
    return Grid(f"micro-batch {plan.micro_batch}; largest that fits: {best or 'none'}",
                ("memory of a device", "MiB", "source"),
                [(title, f"{count / MIB:,.0f}", "exact" if name in _EXACT_MEMORY else "estimated")
                 for name, title in _MEMORY.items() if (count := getattr(memory, name))],
                words=("source",),
                total=(f"peak, of {plan.setting.device.memory_mib:,} ({USABLE_MEMORY:.0%} usable)",
                       f"{memory.peak / MIB:,.0f}", "estimated" + ("" if plan.fits else ", DOES NOT FIT")))


def _mib(count: int) -> float:
    return round(count / MIB, 2)
