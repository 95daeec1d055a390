"""What the lean cache and the subnets cost against the reference cache and the full network, in one run.

    python benchmarks/engine.py --depth 16 -o benchmarks/records/cpu-d16-b1.json
    python benchmarks/engine.py --depth 30 --subnets 16 --subnets 8 --subnets 4 --subnets 2 -o cpu-d30-b1.json
    python benchmarks/engine.py --depth 30 --cache lean --system var-d30-w1 --system var-d30-kv8 -o cpu-d30-kv.json

Seeded random weights, the real ten scales (680 tokens) and vocabulary; labels to latents, without the image decoder.
Variants take turns within each repeat, so that a drift of the machine meets all of them; the first round is dropped.
Each ratio is the median of the ratios within a round.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm import tqdm

from varient.config import TokenizerSpec, TransformerSpec
from varient.cost.quantities import PRECISIONS
from varient.cost.work import VECTOR_PARTS, VARPasses, VARShape, var_work
from varient.files import write_text
from varient.models.kv_cache import CachePolicy
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR, initialize
from varient.plan import DepthPlan
from varient.pyramid import VAR_256
from varient.records import provenance, random_weights
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms
from varient.systems.ids import VarId, forms
from varient.systems.pipeline import DTYPES


def main(
    output: Annotated[Path, typer.Option("--output", "-o")],
    depth: int = 16,
    width: int = 1024,
    batch: int = 1,
    subnets: Annotated[list[int] | None, typer.Option(help="d of further variants, N = 6")] = None,
    systems: Annotated[list[str] | None, typer.Option("--system", help="ids of further variants; those whose cache is "
                                                                       "not plain need --cache lean")] = None,
    caches: Annotated[list[str] | None, typer.Option("--cache", help="lean or reference; default both")] = None,
    precision: str = "fp32",
    repeats: int = 5,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 leaves torch's choice")] = 0,
) -> None:
    """Measure and write one record."""
    if threads:
        torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, quantizer = _networks(depth, width, precision, device)
    plans = {"full": DepthPlan.full(depth, 10)} | {f"d{d}": DepthPlan.bridge(depth, d, 6, 10) for d in subnets or []}
    plans |= {name: _plan(name, depth) for name in systems or []}
    policies = caches or ["reference", "lean"]
    variants = [(name, policy) for name in plans for policy in policies]
    labels = torch.arange(batch) % 1000
    readout = SampledReadout(quantizer, image_uniforms(0, range(batch), VAR_256.length))

    seconds: dict[tuple[str, str], list[float]] = {variant: [] for variant in variants}
    tokens = {}
    for _ in tqdm(range(repeats + 1), desc=f"d{depth} width {width} batch {batch}"):
        for name, policy in variants:
            begin = _now(device)
            result = generate(model, quantizer, labels, plans[name], Guidance(), readout, cache_policy=policy)
            seconds[name, policy].append(_now(device) - begin)
            tokens[name, policy] = result.idx_BL
            del result  # it holds the cache, which must not stand beside the next variant's
    for times in seconds.values():
        del times[0]

    peak_gflops = _peak_gflops(device, DTYPES[precision])
    rows, longest = [], max(map(len, plans))
    for name, policy in variants:
        flops = _flops(model, plans[name], batch, policy, precision)
        median = statistics.median(seconds[name, policy])
        rows.append({
            "plan": name, "cache": policy, "latency_s": median, "latency_repeats_s": seconds[name, policy],
            f"ratio_to_{policies[0]}": _ratio(seconds[name, policy], seconds[name, policies[0]]),
            "ratio_to_full": _ratio(seconds[name, policy], seconds["full", policy]),
            "token_layer_ratio": _token_layers(plans[name]) / _token_layers(plans["full"]),
            f"same_tokens_as_{policies[0]}": bool(torch.equal(tokens[name, policy], tokens[name, policies[0]])),
            "gflop": flops / 1e9, "share_of_peak": flops / 1e9 / median / peak_gflops})
        print(f"{name:>{longest}} {policy:>9}: {median:7.3f} s, "
              f"{rows[-1][f'ratio_to_{policies[0]}']:.3f} of {policies[0]}, {rows[-1]['ratio_to_full']:.3f} of full "
              f"(token-layers {rows[-1]['token_layer_ratio']:.3f}), "
              f"{100 * rows[-1]['share_of_peak']:.0f} % of {peak_gflops:.0f} GFLOP/s")
    made = provenance(experiment="engine-benchmark", seed=0, settings="", weights_sha256={})
    write_text(output, json.dumps({
        "kind": "engine-benchmark", "depth": depth, "width": width, "batch": batch, "precision": precision,
        "weights": random_weights(0, "cpu"), "peak_gflops": peak_gflops, "rows": rows, "provenance": made.model_dump(),
    }, indent=2) + "\n")
    print(f"wrote {output}")


def _plan(system: str, depth: int) -> DepthPlan:
    found = VarId.parse(system)
    if found is None:
        raise ValueError(f"{system!r} is no system of VAR: {forms()}")
    return found.plan(depth, 10, 6)


def _networks(depth: int, width: int, precision: str, device: str) -> tuple[VAR, MultiScaleQuantizer]:
    torch.manual_seed(0)
    spec = TransformerSpec(depth=depth, embed_dim=width, num_heads=width // 64)
    model = VAR(spec, VAR_256, num_classes=1000, vocab_size=4096, z_channels=32)
    initialize(model, gamma=1.0)
    quantizer = MultiScaleQuantizer(TokenizerSpec(), VAR_256)
    return model.eval().requires_grad_(False).to(device, DTYPES[precision]), quantizer.requires_grad_(False).to(device)


def _flops(model: VAR, plan: DepthPlan, batch: int, policy: CachePolicy, precision: str) -> int:
    trips = var_work(VARPasses(VARShape(model.spec), plan), batch, 2 * batch, policy, PRECISIONS[precision])
    return sum(work.flops for trip in trips for part, work in trip.parts.items() if part not in VECTOR_PARTS)


def _token_layers(plan: DepthPlan) -> int:
    return sum(VAR_256.tokens(k) * len(plan.layers(k)) for k in VAR_256.scales)


def _ratio(times: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(times, base, strict=True))


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_gflops(device: str, dtype: torch.dtype) -> float:
    """Best of six large square matrix products."""
    side = 8192 if device == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(6):
        begin = _now(device)
        a @ a
        best = min(best, _now(device) - begin)
    return 2 * side ** 3 / best / 1e9


if __name__ == "__main__":
    typer.run(main)
