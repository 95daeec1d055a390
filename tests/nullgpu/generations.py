"""Generations of VAR-d30 and its subnets on a null GPU, as JSON: what the allocator hands out, launches, waits.

Runs in a process of a `machine.NullMachine`:  generations.py <fp16|fp32|fp16-autocast> <batch> ...
"""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from counters import MIB, counts, peak_mib, reserved_mib, reset

from varient.config import load_config
from varient.models.build import build_tokenizer, build_transformer
from varient.sampling import Guidance
from varient.systems.pipeline import Pipeline, decode_f_hat, ready
from varient.systems.registry import resolve_system

CONFIG = load_config(Path("workflow/config/imagenet256.yaml"))
SYSTEMS = ("var-d30", "variant-d16", "variant-d8", "variant-d4", "variant-d2")


def var_d30(precision: str) -> Pipeline:
    """The experiment's networks with weights that nobody has written."""
    with torch.device("cuda"):
        model, tokenizer = build_transformer(CONFIG), build_tokenizer(CONFIG)
    sampling = CONFIG.sampling
    return Pipeline(ready(model, precision), ready(tokenizer), CONFIG.plan(),
                    Guidance(sampling.cfg, sampling.top_k, sampling.top_p), sampling.decoded_at_once)


def autocast(precision: str) -> AbstractContextManager:
    """float32 weights and float16 products, where the precision says so: the released code's way."""
    return torch.autocast("cuda", torch.float16) if precision.endswith("autocast") else nullcontext()


def measure(pipeline: Pipeline, system: str, batch_size: int, policy: str, precision: str) -> dict[str, object]:
    """One generation and its decoding, 16 images at once and all of them."""
    pipeline = replace(pipeline, plan=resolve_system(system, CONFIG).plan)
    labels = indices = range(batch_size)
    reset()
    with autocast(precision):
        latents = pipeline.latents(list(labels), indices, 0, cache_policy=policy)
    found = {"system": system, "batch_size": batch_size, "cache_policy": policy, "precision": precision,
             "transformer_mib": peak_mib(), "transformer_reserved_mib": reserved_mib(), **counts()._asdict()}
    for name, at_once in (("decoder_mib", pipeline.decoded_at_once), ("decoder_whole_batch_mib", batch_size)):
        reset()
        decode_f_hat(pipeline.tokenizer, latents, at_once, torch.float32 if precision == "fp32" else torch.float16)
        found[name] = peak_mib()
    return found


def main(precision: str, *batches: str) -> None:
    pipeline = var_d30("fp32" if precision.endswith("autocast") else precision)
    stored = [t for network in pipeline.networks for t in (*network.parameters(), *network.buffers())]
    with autocast(precision):
        pipeline.latents([0], [0], 0)  # handles and their workspaces
    rows = [measure(pipeline, system, int(batch), policy, precision)
            for batch in batches for policy in ("reference", "lean") for system in SYSTEMS]
    reset()
    scales: list[int] = []

    def mark(k: int) -> None:
        torch.cuda.Event(enable_timing=True).record()
        scales.append(k)

    with autocast(precision):
        pipeline.latents([0], [0], 0, on_scale=mark)
    print(json.dumps({"parameters_mib": sum(t.numel() * t.element_size() for t in stored) / MIB, "rows": rows,
                      "marked": {"scales": len(scales), **counts()._asdict()}}))


if __name__ == "__main__":
    main(*sys.argv[1:])
