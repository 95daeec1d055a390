"""Predicted cost of one generated batch, at the paper's sizes, on a named GPU; nothing is run.

Latency is a roofline: each part of each forward pass takes the longer of its FLOPs at the device's peak and its bytes
at the device's bandwidth, and parts do not overlap.  The sum is multiplied by one calibration factor, fitted to one row
of the paper's Table 2: VAR-d30 on an L20 at batch 64, 3.62 s.  The same factor is used for every other device and
system.  docs/performance.md compares the predictions with the paper's other rows.

No latency is below the time that the host needs to launch the kernels, which bounds small batches.  The number of
launches is counted on a simulated GPU (docs/cuda.md), and each is assumed to take `HOST_S_PER_LAUNCH`; no row at the
paper's setting is near that bound.

Peak memory is stored parameters plus the larger of two phases, because the KV cache is freed before the image decoder
runs.  The transformer's phase is the peak over its passes: the cache within the pass, and activations in proportion to
the tokens that enter.  The two constants, `RUNNING_MIB_PER_IMAGE` and `DECODER_MIB_PER_IMAGE`, are fitted to totals of
Table 3 and hold for 16-bit operands; the first includes the copies of the `reference` cache and is used for `lean` too.
A simulation of torch's allocator (`varient.cost.simulated_memory`) agrees within 3 % for all depths and both caches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from varient.config import CachePolicy
from varient.cost.gpus import Device, device
from varient.cost.kv_accounting import policy_named, token_layers
from varient.cost.paper_systems import DEPTH, PaperSystem, paper_system
from varient.cost.quantities import PRECISIONS, NumberFormats, Work
from varient.cost.sizes import MIB
from varient.cost.work import PARTS, VECTOR_PARTS, NetworkPasses, PassWork
from varient.paper import paper_rows, system_id
from varient.pyramid import VAR_256
from varient.systems.ids import VarId

RUNNING_MIB_PER_IMAGE = 34.5
"""Activations while the transformer runs at scale 10: the totals of Table 3 less parameters and KV cache.  That is 34.5
MiB an image for VAR-d30 and d = 8 at batch 64, and 34.2 for d = 8 at batch 128 (28.7 for d = 16).  fp16 autocast, width
1920.  The simulated allocator gives 38 with the reference cache and 33 with the lean one."""
RUNNING_TOKENS = VAR_256.tokens(VAR_256.num_scales)
"""Tokens of an image at scale 10, which `RUNNING_MIB_PER_IMAGE` belongs to."""
DECODER_MIB_PER_IMAGE = 168.4
"""Activations of the VQVAE decoder, all images decoded at once: the totals of VARiant-d2 in Table 3 less parameters.
That is 168.5 MiB an image at batch 64 and 168.4 at 128.  At batch 256 it is 128, where decoding all images at once
would not fit the L20.  fp16 autocast, 256 x 256.  The simulated allocator gives 140, without cuDNN's workspaces."""
HOST_S_PER_LAUNCH = 6e-6
"""Host time of one kernel launch, seconds: assumed, not measured."""

ROWS_PER_IMAGE = 2
"""Classifier-free guidance: a conditional and an unconditional row."""

PAPER_BATCH_SIZE, PAPER_DEVICE, PAPER_PRECISION = 64, "l20", "fp16-autocast"
PAPER_POLICY: CachePolicy = "reference"
"""Setting of Table 2 (Sec. 4.1): one L20, batch 64; precision and cache follow from its memory columns."""
ANCHOR = str(VarId("var", DEPTH))
"""The row of Table 2 that latency is calibrated on."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one transformer of a system over its forward passes.

    Attributes:
        kv_live_bytes: size of the KV cache after each pass.
        kv_peak_bytes: largest size of the KV cache within each pass, new entries of the running layer included.
        kv_scratch_bytes: largest temporary copy of one layer's entries.
        token_layers: number of (token, layer) pairs that run, for one row.
        full_token_layers: the same for the full network at all scales.
        latency_s: predicted seconds of each pass; of one repetition where a pass is repeated.
        launches: number of kernel launches over all passes.
    """

    stage: NetworkPasses
    kv_live_bytes: tuple[int, ...]
    kv_peak_bytes: tuple[int, ...]
    kv_scratch_bytes: int
    token_layers: int
    full_token_layers: int
    latency_s: tuple[float, ...]
    launches: int


@dataclass(frozen=True)
class PeakMemory:
    """Memory of a VAR system at 256 x 256 in its two phases, MiB, stored parameters included."""

    transformer_mib: float
    decoder_mib: float
    """With all images decoded at once, as in the paper's totals; a decoder that takes a few at a time needs less."""

    @property
    def mib(self) -> float:
        """The larger of both."""
        return max(self.transformer_mib, self.decoder_mib)


@dataclass(frozen=True)
class SystemCost:
    """The cost of one batch.  Latency excludes the image decoder, as in Table 2.

    Attributes:
        policy: of the KV cache; the system's only one, whatever was asked for, where it has only one.
        work: operations and bytes by part, over all passes and stages.
        kv_cache_bytes: peak size of the KV cache; CoDe frees the drafter's before the refiner starts.
        roofline_s: seconds of each part before calibration.
        calibration: the factor that the sum of `roofline_s` is multiplied by.
        peak_memory: None where its constants were not fitted: 32-bit operands, DiT and LlamaGen.
    """

    system: PaperSystem
    batch_size: int
    policy: CachePolicy
    precision: NumberFormats
    device: Device
    stages: tuple[StageCost, ...]
    work: dict[str, Work]
    kv_cache_bytes: int
    roofline_s: dict[str, float]
    calibration: float
    peak_memory: PeakMemory | None

    @property
    def latency_s(self) -> float:
        """Predicted seconds of one batch: the calibrated roofline, or the host's launches if they take longer."""
        return max(sum(self.roofline_s.values()) * self.calibration, self.host_s)

    @property
    def launches(self) -> int:
        """Number of kernel launches for one batch of any size."""
        return sum(stage.launches for stage in self.stages)

    @property
    def host_s(self) -> float:
        """Seconds that the host needs for the launches, by the assumed `HOST_S_PER_LAUNCH`."""
        return self.launches * HOST_S_PER_LAUNCH


def system_cost(name: str, *, batch_size: int = PAPER_BATCH_SIZE, policy: str = "lean",
                precision: str = PAPER_PRECISION, device_key: str = PAPER_DEVICE) -> SystemCost:
    """The cost of one batch of images of a system.

    Args:
        name: id of the system at the paper's size (`varient.cost.paper_systems`).
        batch_size: images; guidance doubles the rows.
        policy: of the KV cache, "lean" or "reference".
        precision: a key of `PRECISIONS`.
        device_key: a key of `varient.cost.gpus.known_devices`.

    Raises:
        ValueError: unknown system, precision, cache policy or device, or a batch below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} is below 1")
    known = policy_named(policy)
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; known: {', '.join(PRECISIONS)}")
    return _cost(paper_system(name), batch_size, known, PRECISIONS[precision], device(device_key),
                 calibration_factor())


@cache
def calibration_factor() -> float:
    """The paper's latency of VAR-d30 on an L20 at batch 64 (Table 2, 3.62 s) over its uncalibrated roofline."""
    anchor = _cost(paper_system(ANCHOR), PAPER_BATCH_SIZE, PAPER_POLICY, PRECISIONS[PAPER_PRECISION],
                   device(PAPER_DEVICE), 1.0)
    return float(_paper_rows()[ANCHOR]["latency_s"]) / anchor.latency_s


def part_seconds(part: str, work: Work, gpu: Device, precision: NumberFormats) -> float:
    """Seconds of a part by the roofline: the longer of compute and memory traffic, at the device's peaks."""
    on_tensor_cores = precision.compute_bytes == 2 and part not in VECTOR_PARTS
    tflops = gpu.tensor_tflops if on_tensor_cores else gpu.fp32_tflops
    return max(work.flops / (tflops * 1e12), work.moved_bytes / (gpu.bandwidth_gb_s * 1e9))


def peak_memory(parameter_bytes: int, passes: Sequence[tuple[int, float]], batch_size: int) -> PeakMemory:
    """Peak memory from bytes of parameters and KV cache, with activations by the two fitted constants.

    Args:
        passes: for each pass the peak bytes of the cache, and the tokens of an image that enter, those without
            guidance as half.
    """
    running_mib = max(kv_bytes / MIB + RUNNING_MIB_PER_IMAGE * batch_size * tokens / RUNNING_TOKENS
                      for kv_bytes, tokens in passes)
    return PeakMemory(parameter_bytes / MIB + running_mib, parameter_bytes / MIB + DECODER_MIB_PER_IMAGE * batch_size)


def known_peak_memory(cost: SystemCost) -> PeakMemory:
    """The predicted peak memory of a system for which there is a prediction.

    Raises:
        ValueError: none for this system and number format, see `SystemCost.peak_memory`.
    """
    if cost.peak_memory is None:
        raise ValueError(f"{cost.system.name}: its peak memory is not known; the constants are of VAR in 16 bits")
    return cost.peak_memory


def peak_mib(cost: SystemCost, decoded_at_once: int | None = None) -> float:
    """Predicted peak memory of a VAR system, MiB, with the image decoder taking some images at a time (None: all).

    Raises:
        ValueError: as `known_peak_memory`.
    """
    peak = known_peak_memory(cost)
    at_once = min(decoded_at_once or cost.batch_size, cost.batch_size)
    return max(peak.transformer_mib, peak.decoder_mib - DECODER_MIB_PER_IMAGE * (cost.batch_size - at_once))


@dataclass(frozen=True)
class Comparison:
    """A system beside its row of Table 2: latency in seconds, KV cache and peak memory in MiB (the paper's "MB").

    The paper prints neither of the two for DiT and LlamaGen.

    Attributes:
        printed: the row, text as printed.
    """

    cost: SystemCost
    printed: Mapping[str, str]

    @property
    def paper_latency_s(self) -> float:
        """As a number."""
        return float(self.printed["latency_s"])

    @property
    def paper_kv_cache_mib(self) -> float | None:
        """As a number."""
        return float(self.printed["kv_cache_mb"]) if self.printed["kv_cache_mb"] else None

    @property
    def paper_memory_mib(self) -> float | None:
        """As a number."""
        return float(self.printed["memory_mb"]) if self.printed["memory_mb"] else None

    @property
    def latency_error(self) -> float:
        """(predicted - paper) / paper; zero by construction for VAR-d30, on which latency is calibrated."""
        return self.cost.latency_s / self.paper_latency_s - 1

    @property
    def kv_cache_error(self) -> float | None:
        """(arithmetic - paper) / paper."""
        return self.paper_kv_cache_mib and self.cost.kv_cache_bytes / MIB / self.paper_kv_cache_mib - 1

    @property
    def memory_error(self) -> float | None:
        """(predicted - paper) / paper."""
        peak = self.cost.peak_memory
        return peak.mib / self.paper_memory_mib - 1 if peak and self.paper_memory_mib else None


def compare_with_paper() -> list[Comparison]:
    """Every VAR row of Table 2, at the paper's setting."""
    return [Comparison(system_cost(name, policy=PAPER_POLICY), row)
            for name, row in _paper_rows().items() if row["kv_cache_mb"]]


def compare_baselines() -> list[Comparison]:
    """The other rows of Table 2, DiT and LlamaGen: in the number formats of the VAR rows and in their authors'."""
    return [Comparison(system_cost(name, precision=precision), row)
            for name, row in _paper_rows().items() if not row["kv_cache_mb"]
            for precision in (PAPER_PRECISION, paper_system(name).authors_precision) if precision]


def _cost(system: PaperSystem, batch_size: int, policy: CachePolicy, precision: NumberFormats, gpu: Device,
          factor: float) -> SystemCost:
    rows, policy = ROWS_PER_IMAGE * batch_size, system.cache or policy
    works = [stage.work(batch_size, rows, policy, precision) for stage in system.stages]
    seconds = [[{part: part_seconds(part, work, gpu, precision) for part, work in trip.parts.items()} for trip in trips]
               for trips in works]
    stages = tuple(_stage_cost(stage, rows, policy, precision, [factor * sum(parts.values()) for parts in by_pass])
                   for stage, by_pass in zip(system.stages, seconds, strict=True))
    fitted = system.cache in (None, "lean") and precision.compute_bytes == 2
    kv_of_passes = [(kv_bytes, trip.tokens * trip.rows(rows) / rows) for stage in stages
                    for kv_bytes, trip in zip(stage.kv_peak_bytes, stage.stage.passes, strict=True)]
    return SystemCost(
        system=system, batch_size=batch_size, policy=policy, precision=precision, device=gpu, stages=stages,
        work=_by_part([trip for trips in works for trip in trips]),
        kv_cache_bytes=max(kv_bytes for kv_bytes, _ in kv_of_passes),
        roofline_s={part: sum(parts[part] * trip.trip.times for trips, by_pass in zip(works, seconds, strict=True)
                              for trip, parts in zip(trips, by_pass, strict=True)) for part in PARTS},
        calibration=factor,
        peak_memory=peak_memory(system.parameter_bytes(precision), kv_of_passes, batch_size) if fitted else None)


def _stage_cost(stage: NetworkPasses, rows: int, policy: CachePolicy, precision: NumberFormats,
                latency_s: Sequence[float]) -> StageCost:
    kv = stage.kv(rows, policy, precision)
    per_layer = stage.launches_per_layer + (policy == "reference")  # which joins keys and values into new tensors
    return StageCost(stage=stage, kv_live_bytes=kv.live, kv_peak_bytes=kv.peak, kv_scratch_bytes=kv.scratch,
                     token_layers=token_layers(stage.passes), full_token_layers=stage.full_token_layers,
                     latency_s=tuple(latency_s),
                     launches=sum(trip.times * (len(trip.layers) * per_layer + stage.launches_per_pass)
                                  for trip in stage.passes))


def _by_part(trips: Sequence[PassWork]) -> dict[str, Work]:
    return {part: sum((trip.parts[part] * trip.trip.times for trip in trips), Work()) for part in PARTS}


@cache
def _paper_rows() -> dict[str, dict[str, str]]:
    """Table 2 by system id."""
    return {system_id(row["method"]): row for row in paper_rows("table2")}
