"""A training before its start, as a document (units in the keys) and as tables for the terminal."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from rich.table import Table

from varient.cost.sizes import MIB
from varient.cost.training_plan import USABLE_MEMORY, Phase, TrainingPlan
from varient.terminal import print_table

_MEMORY = {
    "weights": "weights, float32", "gradients": "gradients, float32", "moments": "AdamW's two moments, float32",
    "buckets": "DDP's gradient buckets", "gathered": "fsdp: units in one piece", "tokenizer": "tokenizer's weights",
    "weight_copies": "matrices in 16 bits (autocast)", "activations": "activations kept for backward",
    "working": "most beside them for a moment", "update": "copies in the optimizer's step",
    "probe": "the curves' gradient probe, another moment",
}
EXACT_MEMORY = ("weights", "gradients", "moments", "buckets", "tokenizer", "weight_copies")
"""Of `DeviceMemory`; the rest is estimated."""


def training_document(plan: TrainingPlan) -> dict[str, Any]:
    """All quantities of a plan, for JSON; ``sources`` tells which are exact, expected and estimated."""
    setting, memory, full = plan.setting, plan.memory, plan.kinds[0]
    return {
        "experiment": plan.experiment, "training": plan.name, "device": setting.device.name,
        "devices": setting.devices, "strategy": setting.strategy, "precision": setting.precision,
        "recompute": setting.recompute, "batch_size": plan.batch_size, "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation, "encodes_images": plan.encodes,
        "sources": {
            "exact": ["parameters", "steps", "images", "tokens", "token_layers_per_image", "flops_per_image",
                      "tokenizer_flops_per_image", *(f"memory_mib.{name}" for name in EXACT_MEMORY)],
            "expected": ["full_batches", "subnet_batches", "token_layers", "flops", "computed_flops"],
            "estimated": ["peak_memory_mib", "largest_micro_batch", "fits_device", "step_s", "hours", "device_hours",
                          *(f"memory_mib.{name}" for name in _MEMORY if name not in EXACT_MEMORY)],
            "assumed": ["usable_share_of_device_memory", *([] if setting.step_seconds else ["utilisation"])],
            "measured": ["full_step_s", "utilisation"] if setting.step_seconds else []},
        "parameters": plan.parameters, "tokens_per_image": plan.shape.pyramid.length,
        "training_images": plan.num_images, "steps_per_epoch": plan.steps_per_epoch, "epochs": plan.schedule.epochs,
        "full_step_s": setting.step_seconds,
        "utilisation": round(plan.utilisation, 4), "tokenizer_flops_per_image": plan.encoder_flops,
        "batches": [{"plan": kind.name, "token_layers_per_image": kind.token_layers,
                     "token_layers_share_of_full": round(kind.token_layers / full.token_layers, 4),
                     "flops_per_image": kind.flops, "flops_again_per_image": kind.extra_flops,
                     "expected_batches": round(sum(kind.batches), 1), "step_s": round(plan.step_seconds(kind), 3)}
                    for kind in plan.kinds],
        "phases": [_phase_document(plan, phase) for phase in plan.phases], "total": _phase_document(plan, plan.total),
        "memory_mib": {name: _mib(count) for name, count in asdict(memory).items()},
        "peak_memory_mib": _mib(memory.peak), "device_memory_mib": setting.device.memory_mib,
        "usable_share_of_device_memory": USABLE_MEMORY,
        "fits_device": plan.fits, "largest_micro_batch": plan.largest_micro_batch, "notes": list(plan.notes),
    }


def show_training(plan: TrainingPlan, *, as_json: bool = False) -> None:
    """Print a plan: as one JSON document, or as tables of the phases, the batches and the memory of a device."""
    if as_json:
        print(json.dumps(training_document(plan), indent=2))
        return
    setting = plan.setting
    print(
        f"{plan.name} of {plan.experiment}: {setting.devices} x {setting.device.name}, {setting.strategy}, "
        f"{setting.precision}{', recomputation' if setting.recompute else ''}; batch {plan.batch_size} = "
        f"{setting.devices} devices x {plan.accumulation} x {plan.micro_batch}; {plan.parameters:,} parameters")
    for table in (_phases_table(plan), _batches_table(plan), _memory_table(plan)):
        print_table(table)
    for note in plan.notes:
        print(f"* {note}")


def _phases_table(plan: TrainingPlan) -> Table:
    table = Table("phase", title="What is done, and when")
    phases = (*(plan.phases if len(plan.phases) > 1 else ()), plan.total)
    for phase in phases:
        table.add_column(phase.name, justify="right")
    table.add_column("source")
    for title, show, source in (
            ("epochs", lambda phase: f"{phase.first}-{phase.last}", "exact"), ("p(subnet)", _shares, "exact"),
            ("steps", lambda phase: f"{phase.steps:,}", "exact"),
            ("subnet batches", _subnet_batches, "expected"),
            ("images", lambda phase: f"{phase.images:,}", "exact"),
            ("tokens", lambda phase: f"{phase.tokens:.3e}", "exact"),
            ("token-layers", lambda phase: f"{phase.token_layers:.3e}", "expected"),
            ("FLOP, there and back", lambda phase: f"{phase.flops:.3e}", "expected"),
            ("FLOP, all", lambda phase: f"{phase.computed_flops:.3e}", "expected"),
            ("hours", lambda phase: f"{phase.hours:.2f}", "estimated")):
        table.add_row(title, *(show(phase) for phase in phases), source)
    return table


def _shares(phase: Phase) -> str:
    first, last = phase.probabilities
    return f"{first:.2f}" if first == last else f"{first:.2f}-{last:.2f}"


def _subnet_batches(phase: Phase) -> str:
    return f"{phase.subnet_batches:,.0f}" + (f" ± {phase.subnet_deviation:.0f}" if phase.subnet_deviation else "")


def _batches_table(plan: TrainingPlan) -> Table:
    title = "A step: work exact, seconds estimated"
    table = Table("plan", title=title)
    for heading in ("token-layers an image", "of full", "TFLOP an image", "again", "step, s"):
        table.add_column(heading, justify="right")
    for kind in plan.kinds:
        again = kind.extra_flops + plan.encoder_flops
        table.add_row(kind.name, f"{kind.token_layers:,}", f"{kind.token_layers / plan.kinds[0].token_layers:.3f}",
                      f"{kind.flops / 1e12:.3f}", f"{again / 1e12:.3f}", f"{plan.step_seconds(kind):.3f}")
    return table


def _memory_table(plan: TrainingPlan) -> Table:
    memory, best = plan.memory, plan.largest_micro_batch
    table = Table("memory of a device", title=f"micro-batch {plan.micro_batch}; largest that fits: {best or 'none'}")
    table.add_column("MiB", justify="right")
    table.add_column("source")
    for name, title in _MEMORY.items():
        if count := getattr(memory, name):
            table.add_row(title, f"{count / MIB:,.0f}", "exact" if name in EXACT_MEMORY else "estimated")
    table.add_section()
    table.add_row(f"peak, of {plan.setting.device.memory_mib:,} ({USABLE_MEMORY:.0%} usable)",
                  f"{memory.peak / MIB:,.0f}", "estimated" + ("" if plan.fits else ", DOES NOT FIT"))
    return table


def _phase_document(plan: TrainingPlan, phase: Phase) -> dict[str, Any]:
    return {"phase": phase.name, "first_epoch": phase.first, "last_epoch": phase.last,
            "subnet_probability": [round(p, 6) for p in phase.probabilities], "steps": phase.steps,
            "images": phase.images, "tokens": phase.tokens, "full_batches": round(phase.full_batches, 1),
            "subnet_batches": round(phase.subnet_batches, 1),
            "subnet_batches_standard_deviation": round(phase.subnet_deviation, 1),
            "token_layers": round(phase.token_layers), "flops": phase.flops, "computed_flops": phase.computed_flops,
            "hours": round(phase.hours, 3), "device_hours": round(phase.hours * plan.setting.devices, 2)}


def _mib(count: int) -> float:
    return round(count / MIB, 2)
