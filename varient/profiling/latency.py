"""Latency of a system, without the image decoder: warm-up dropped, median and spread of the repeats."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from tqdm import tqdm

from varient.config import ExperimentConfig
from varient.files import sha256_of
from varient.generation import label_of, load_pipeline
from varient.records import ProfileRecord, provenance, write_record
from varient.sampling import DrawTokens, generate, image_uniforms
from varient.systems import resolve_system

MIB = 2 ** 20


def profile_system(config: ExperimentConfig, system: str, run_dir: Path, output: Path) -> ProfileRecord:
    """Time one batch of a system, from labels to latents, and write the record.

    Run it alone on the machine: other work shows in the spread.
    """
    resolved = resolve_system(system, config)
    tokenizer_path, weights_path = run_dir / "tokenizer.safetensors", resolved.weights_path(run_dir)
    settings = config.profiling
    torch.set_num_threads(settings.threads)
    pipeline = load_pipeline(config, tokenizer_path, weights_path)
    quantizer = pipeline.tokenizer.quantize
    device = pipeline.model.pos_1LC.device
    indices = range(settings.batch_size)
    label_B = torch.tensor([label_of(i, config.data.num_classes) for i in indices], device=device)
    readout = DrawTokens(quantizer, image_uniforms(config.seed, indices, config.pyramid.length))

    seconds = []
    for _ in tqdm(range(settings.warmup + settings.repeats), desc=f"profile {system}", mininterval=2):
        _synchronize(device)
        begin = time.perf_counter()
        generated = generate(pipeline.model, quantizer, label_B, resolved.plan, pipeline.guidance, readout)
        _synchronize(device)
        seconds.append(time.perf_counter() - begin)
    repeats = seconds[settings.warmup:]
    record = ProfileRecord(
        system=system, steps=resolved.steps, batch_size=settings.batch_size, dtype="float32", cache_policy="lean",
        num_parameters=sum(p.numel() for p in pipeline.model.parameters()),
        kv_cache_mib=generated.cache.peak_bytes / MIB,
        latency_s=statistics.median(repeats), latency_repeats_s=repeats, latency_iqr_s=_iqr(repeats),
        warmup=settings.warmup,
        provenance=provenance(experiment=config.name, seed=config.seed,
                              settings=config.digest("sampling", "profiling"),
                              weights_sha256={weights_path.stem: sha256_of(weights_path)}))
    write_record(output, record)
    return record


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _iqr(values: list[float]) -> float:
    """Distance between the quartiles; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    lower, _, upper = statistics.quantiles(values, n=4)
    return upper - lower
