"""What the scores of 50,000 images cost, from features to numbers, and in how much memory.

    OMP_NUM_THREADS=2 python benchmarks/scoring.py -o benchmarks/records/scoring-50k.json --spread

Seeded random features with the size of Inception's and correlated as such are (eigenvalues of the covariance fall as
1/i, all values positive); of the numbers that come out only the time is of interest. Seconds are by the wall clock,
CPU seconds are those of all threads of the process: on a shared machine the latter move less. RSS is the highest so
far, features included.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from varient.evaluation.moments import FrechetReference, Moments
from varient.evaluation.neighbours import density_coverage, precision_recall
from varient.evaluation.protocols import CMMD, EmbeddingRule
from varient.evaluation.scores import (
    adm_blocks,
    fixed_permutation,
    inception_score,
    kernel_distance,
    monge_distance,
    unbiased_logits,
    vendi_by_class,
)
from varient.evaluation.uncertainty import (
    embedding_spread,
    frechet_infinity,
    frechet_spread,
    inception_spread,
    kernel_spread,
)
from varient.files import write_text
from varient.profiling.memory import peak_rss_bytes
from varient.records import provenance

CLASSES = 1008
"""Of the released Inception."""
LABELS = 1000
"""Of ImageNet: 50 images each."""


def main(
    output: Annotated[Path, typer.Option("--output", "-o")],
    generated: int = 50_000,
    reference: int = 10_000,
    features: int = 2048,
    threads: Annotated[int, typer.Option(help="CPU threads; set OMP_NUM_THREADS to the same")] = 2,
    spread: Annotated[bool, typer.Option("--spread", help="standard deviations and FID-infinity as well")] = False,
) -> None:
    """Measure and write one record."""
    torch.set_num_threads(threads)
    generated_NF, real_MF = _features(generated, features, 1), _features(reference, features, 2)
    weight_KF = np.random.default_rng(3).standard_normal((CLASSES, features), np.float32)
    blocks, permutation = adm_blocks(generated), fixed_permutation(generated)
    rows: list[dict[str, Any]] = []
    load_before = os.getloadavg()

    def timed(name: str, part: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows.append({"part": part, "name": name, "wall_s": wall, "cpu_s": cpu, "rss_peak_mib": _rss_mib(),
                     "load_1min": os.getloadavg()[0]})
        print(f"{part:>7} {name:<28} {wall:7.1f} s, {cpu:7.1f} CPU-s, {rows[-1]['rss_peak_mib']:6.0f} MiB", flush=True)
        return result

    real = timed("reference moments and root", "scores", lambda: _reference(real_MF))
    moments = timed("moments", "scores", lambda: Moments.of(generated_NF))
    timed("fid", "scores", lambda: real.distance(moments.gaussian()))
    logit_NK = timed("logits", "scores", lambda: unbiased_logits(generated_NF, weight_KF))
    timed("inception score", "scores", lambda: inception_score(logit_NK, blocks, permutation))
    kid = timed("kid", "scores", lambda: kernel_distance(generated_NF, real_MF))
    timed("precision and recall", "scores", lambda: precision_recall(generated_NF, real_MF))
    timed("density and coverage", "scores", lambda: density_coverage(generated_NF, real_MF))
    timed("mind", "scores", lambda: monge_distance(generated_NF, real_MF))
    timed("vendi by class", "scores", lambda: vendi_by_class(generated_NF, np.arange(generated) % LABELS))
    if spread:
        timed("inception score", "spread", lambda: inception_spread(logit_NK, blocks, permutation))
        timed("fid, 10 pairs", "spread", lambda: frechet_spread(generated_NF, real))
        timed("kid", "spread", lambda: kernel_spread(generated_NF, real_MF, kid))
        timed("fid-infinity, 15 points", "spread", lambda: frechet_infinity(generated_NF, real))
    pair, rule = (_embeddings(generated_NF), _embeddings(real_MF)), EmbeddingRule()
    timed("cmmd and its spread", "cmmd", lambda: embedding_spread(*pair, rule.bandwidth, rule.scale))
    totals = {part: {key: sum(row[key] for row in rows if row["part"] == part) for key in ("wall_s", "cpu_s")}
              for part in ("scores", "spread")}
    write_text(output, json.dumps({
        "kind": "scoring-benchmark", "generated": generated, "reference": reference, "features": features,
        "classes": CLASSES, "dtype": "float32", "omp_num_threads": os.environ.get("OMP_NUM_THREADS"), "rows": rows,
        "totals": totals, "rss_peak_mib": _rss_mib(), "load_before": load_before, "load_after": os.getloadavg(),
        "provenance": provenance(experiment="scoring-benchmark", seed=1, settings="", weights_sha256={}).model_dump(),
    }, indent=2) + "\n")
    print(f"scores {totals['scores']['wall_s']:.1f} s, {_rss_mib():.0f} MiB; wrote {output}")


def _features(count: int, features: int, seed: int) -> np.ndarray:
    """Positive features (count, features), float32, with a long-tailed spectrum."""
    mixing = np.random.default_rng(0).standard_normal((features, features), np.float32)
    mixing *= (1 / np.sqrt(np.arange(1, features + 1, dtype=np.float32) * np.log(features)))[:, None]
    draw = np.random.default_rng(seed)
    rows = np.empty((count, features), np.float32)
    for at in range(0, count, 5000):
        noise = draw.standard_normal((min(5000, count - at), features), np.float32)
        rows[at:at + 5000] = np.log1p(np.exp(noise @ mixing))
    return rows


def _embeddings(feature_NF: np.ndarray) -> np.ndarray:
    """As many numbers as CLIP has, or all if there are fewer, scaled to length 1."""
    short_NF = feature_NF[:, :CMMD.num_features]
    return short_NF / np.linalg.norm(short_NF, axis=1, keepdims=True)


def _reference(real_MF: np.ndarray) -> FrechetReference:
    real = FrechetReference(Moments.of(real_MF).gaussian())
    _ = real.root  # computed when first asked for: here, so that it counts as the reference's
    return real


def _rss_mib() -> float:
    return (peak_rss_bytes() or 0) / 2 ** 20


if __name__ == "__main__":
    typer.run(main)
