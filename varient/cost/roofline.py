"""What a system of the paper costs before anything is run: exact counts, and predictions for a named GPU.

Latency is a roofline: each part of each pass takes the longer of its FLOPs at the device's peak and its bytes at the
device's bandwidth, one part after the other.  The sum is multiplied by one factor, fitted to a single row of the paper:
VAR-d30 on an L20 at batch 64, 3.62 s (Table 2), with the released code's cache and number formats.  No other latency of
the paper is fitted.  The factor says by how much real kernels miss the roofline; other devices borrow the L20's, for
want of a row of their own.

How far that carries (`varient cost --compare`): the roofline alone gives 3.11 s for VAR-d30, 86 % of what was measured.
With the factor, 1.165, Table 2's rows for CoDe, d16 and d8 come out within 4 %, and so do five rows that Table 1 of
CoDe's own paper has beside them, on the same GPU: N = 7..9, VAR-d24 and VAR-d20.  It does NOT explain d4 and d2, which
it puts 20 % and 26 % too low.  Nothing proportional to work or bytes could: from d8 to d4 the paper saves 0.19 s by
leaving out 2356 token-layers of an image, from d4 to d2 0.18 s by half as many.  A cost for each pass would lift all
rows, and the ten passes of CoDe and VAR-d20 leave no room for one.  What the rest is (another implementation, launch
overhead, noise) the paper does not say.

DiT-XL/2 and LlamaGen-XXL get the same roofline and the same factor, and come out FAR OFF.  Nothing is fitted to them,
and what was run for their rows is not known: they are CoDe's, almost digit for digit.
* DiT-XL/2, 50 steps, printed 19.20 s: 22.5 s (+17 %) in the formats of VAR's rows, 38.3 s (+100 %) in float32, which
  its script uses with TF32.  The second cannot be what was timed if 50 guided steps were: their 1.52e15 FLOP take
  25.4 s at the L20's 59.8 TFLOP/s, its peak for TF32 too.  16-bit operands are likelier (12.7 s at peak), and a third
  of our 22.5 s is element-wise work that fused kernels, or a large L2 cache, may save.  `fp32` here is float32 outside
  tensor cores: on an L20 the same rate as TF32, elsewhere slower (A100: 19.5 against 156 TFLOP/s), so there it says
  nothing of the script.
* LlamaGen-XXL, printed 74.27 s: 21.2 s (-71 %) in the bfloat16 of its script, 27.7 s (-63 %) in VAR's formats.  Four
  fifths of the 21.2 s are one reading of the cache a token.  Likely reasons for the rest: its code copies all keys and
  values at each step before it attends (`repeat_interleave` in gpt.py, for one repetition), its script forces the
  attention kernel that writes down each intermediate result, and 576 passes of 48 layers with one token a row launch
  very many small kernels.  Which weighs what only a measurement can say.

No latency is below what the host needs to launch the kernels, which is what bounds small batches: so many launches
as the null GPU counts (docs/cuda.md), at `HOST_S_PER_LAUNCH` each.  That time is an assumption; no row of the paper's
setting comes near it.

Peak memory is stored parameters plus the larger of two phases, because the cache is freed before the image decoder
runs.  The transformer's phase is that of its worst pass: the cache within the pass, and activations in proportion to
the tokens that enter.  The two constants, `RUNNING_MIB_PER_IMAGE` and `DECODER_MIB_PER_IMAGE`, are fitted to totals of
Table 3 and hold for 16-bit operands; the first includes the copies of the `reference` cache and is taken for `lean`
too.  torch's own allocator, simulated (`varient.cost.simulated_memory`), agrees within 3 % for all depths and both
caches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from varient.config import CachePolicy
from varient.cost.gpus import Device, device
from varient.cost.kv_accounting import policy_named, token_layers
from varient.cost.paper_systems import DEPTH, PaperSystem, paper_system
from varient.cost.sizes import MIB
from varient.cost.work import PARTS, PRECISIONS, VECTOR_PARTS, NetworkPasses, NumberFormats, PassWork, Work
from varient.paper import paper_rows, system_id
from varient.pyramid import VAR_256
from varient.systems.ids import VarId

RUNNING_MIB_PER_IMAGE = 34.5
"""Activations while the transformer runs at scale 10: what the totals of Table 3 leave after parameters and KV cache,
34.5 MiB an image for VAR-d30 and d8 at batch 64, 34.2 for d8 at 128 (d16's 27015 leaves 28.7).  fp16 autocast, width
1920.  The simulated allocator: 38 with the reference cache, 33 with the lean one."""
RUNNING_TOKENS = VAR_256.tokens(VAR_256.num_scales)
"""Tokens of an image that these activations are of."""
DECODER_MIB_PER_IMAGE = 168.4
"""Activations of the VQVAE decoder, all images at once: what the totals of VARiant-d2 in Table 3 leave after
parameters, 168.5 MiB an image at batch 64, 168.4 at 128.  Its 40927 at 256 leaves 128: all images at once would not fit
the L20.  fp16 autocast, 256 x 256.  The simulated allocator: 140, to which a GPU adds cuDNN's workspaces."""
HOST_S_PER_LAUNCH = 6e-6
"""Of one kernel, on the host: assumed, not measured here."""

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
        kv_live_bytes: alive after each pass.
        kv_peak_bytes: most alive within each pass, the layer in flight included.
        kv_scratch_bytes: most in copies beside the live entries, of one layer.
        token_layers: of one row.
        full_token_layers: of one row in the full network at all scales.
        latency_s: predicted, of each pass; where a pass stands for several, of one.
        launches: of kernels, over all passes.
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
    """The cost of one batch.  Latency leaves the image decoder out, as Table 2 does.

    Attributes:
        policy: of the KV cache; "none" for DiT and "static" for LlamaGen, whatever was asked for.
        work: operations and bytes by part, over all passes and stages.
        kv_cache_bytes: most bytes of keys and values alive at once; CoDe frees the drafter's before it refines.
        roofline_s: latency by part before calibration.
        calibration: the factor on it.
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
        """Predicted: the calibrated roofline, or the launches where the host needs longer for them."""
        return max(sum(self.roofline_s.values()) * self.calibration, self.host_s)

    @property
    def launches(self) -> int:
        """Kernels that the host launches for the batch, however large it is."""
        return sum(stage.launches for stage in self.stages)

    @property
    def host_s(self) -> float:
        """What the host needs for them, assumed."""
        return self.launches * HOST_S_PER_LAUNCH


def system_cost(name: str, *, batch_size: int = PAPER_BATCH_SIZE, policy: str = "lean",
                precision: str = PAPER_PRECISION, device_key: str = PAPER_DEVICE) -> SystemCost:
    """The cost of one batch of images of a system.

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
    """Measured over roofline latency of the anchor: VAR-d30, L20, batch 64, 3.62 s (Table 2)."""
    anchor = _cost(paper_system(ANCHOR), PAPER_BATCH_SIZE, PAPER_POLICY, PRECISIONS[PAPER_PRECISION],
                   device(PAPER_DEVICE), 1.0)
    return float(_paper_rows()[ANCHOR]["latency_s"]) / anchor.latency_s


def part_seconds(part: str, work: Work, gpu: Device, precision: NumberFormats) -> float:
    """Roofline time of a part: the longer of computing and moving, at the device's peaks."""
    on_tensor_cores = precision.compute_bytes == 2 and part not in VECTOR_PARTS
    tflops = gpu.tensor_tflops if on_tensor_cores else gpu.fp32_tflops
    return max(work.flops / (tflops * 1e12), work.moved_bytes / (gpu.bandwidth_gb_s * 1e9))


def peak_memory(parameter_bytes: int, passes: Sequence[tuple[int, int]], batch_size: int) -> PeakMemory:
    """Parameters and cache as given, activations by the two fitted constants.

    Args:
        passes: most bytes of the cache within each pass, and the tokens of an image that enter it.
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
        """(predicted - paper) / paper; zero for the anchor by construction."""
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
    fitted = system.cache is None and precision.compute_bytes == 2
    kv_of_passes = [(kv_bytes, trip.tokens) for stage in stages
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
    return StageCost(stage=stage, kv_live_bytes=kv.live, kv_peak_bytes=kv.peak, kv_scratch_bytes=kv.scratch,
                     token_layers=token_layers(stage.passes), full_token_layers=stage.full_token_layers,
                     latency_s=tuple(latency_s),
                     launches=sum(trip.times * (len(trip.layers) * stage.launches_per_layer + stage.launches_per_pass)
                                  for trip in stage.passes))


def _by_part(trips: Sequence[PassWork]) -> dict[str, Work]:
    return {part: sum((trip.parts[part] * trip.trip.times for trip in trips), Work()) for part in PARTS}


@cache
def _paper_rows() -> dict[str, dict[str, str]]:
    """Table 2 by system id."""
    return {system_id(row["method"]): row for row in paper_rows("table2")}
