"""One configuration of a system, profiled in a process of its own: latency and memory, or that memory ran out.

A process of its own, because what ran before would show in the resident memory and in the allocator's caches.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from varient.config import ExperimentConfig, Precision
from varient.files import sha256_of
from varient.generation import DTYPES, Pipeline, label_of, load_pipeline, random_pipeline
from varient.models.kv_cache import CachePolicy, KVCache
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.profiling.kv_accounting import check_policy
from varient.profiling.latency import summarise, time_repeats
from varient.profiling.memory import MemoryWatch, cap_allocator, is_out_of_memory, peak_rss_bytes, stored_bytes
from varient.profiling.nvml import Gpu
from varient.profiling.parameters import var_parameters
from varient.profiling.sizes import MIB
from varient.records import Latency, MemoryUse, ProfileRecord, provenance, read_record, write_record
from varient.sampling import DrawTokens, Generated, generate, image_uniforms
from varient.systems import resolve_system


@dataclass(frozen=True)
class Configuration:
    """What to profile.

    Attributes:
        batch_size: images.
        precision: of the transformer's weights.
        random_weights: draw them from the experiment's seed in place of loading trained ones.
        memory_cap_bytes: hold the CUDA allocator to it; None for the whole card.

    Raises:
        ValueError: a batch below 1, an unknown precision or cache policy.
    """

    system: str
    batch_size: int
    precision: Precision
    cache_policy: CachePolicy
    random_weights: bool = False
    memory_cap_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch size {self.batch_size} is below 1")
        if self.precision not in DTYPES:
            raise ValueError(f"precision {self.precision!r} is unknown; known: {', '.join(DTYPES)}")
        check_policy(self.cache_policy)


def profile_in_fresh_process(config_path: Path, config: ExperimentConfig, wanted: Configuration, run_dir: Path,
                             output: Path) -> ProfileRecord:
    """Start a process that profiles ``wanted`` and writes the record; a process that was killed makes a record too.

    Run it alone on the machine: other work shows in the spread.

    Args:
        config_path: the file that ``config`` was read from.
        run_dir: where trained weights are.

    Raises:
        ValueError: unknown system.
        SystemExit: the process stopped with an error, which it has printed.
        ChildProcessError: the process crashed.
    """
    resolve_system(wanted.system, config)  # a wrong name is told before a process starts
    command = [sys.executable, "-m", "varient", "profile-worker", "--config", config_path, "--run-dir", run_dir,
               "--output", output, json.dumps(asdict(wanted))]
    status = subprocess.run(list(map(str, command))).returncode
    if status == -signal.SIGKILL:
        record = _out_of_memory(config, wanted, run_dir,
                                "killed by the operating system (SIGKILL), as it does when memory runs out")
        write_record(output, record)
        return record
    if status < 0:
        raise ChildProcessError(f"{wanted.system}: the profiling process crashed ({signal.Signals(-status).name})")
    if status > 0:
        raise SystemExit(status)
    return read_record(output, ProfileRecord)


def profile_here(config: ExperimentConfig, wanted: Configuration, run_dir: Path, output: Path) -> ProfileRecord:
    """Profile ``wanted`` in this process and write the record.

    Raises:
        ValueError: unknown system, unusable weights, or a memory cap that the device cannot have.
        NvmlError: a GPU whose driver does not answer.
        GpuBusyError: a GPU that another process computes on.
    """
    torch.set_num_threads(config.profiling.threads)
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    gpu = None
    if device.type == "cuda":
        gpu = Gpu(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        gpu.require_idle()
    if wanted.memory_cap_bytes is not None:
        cap_allocator(wanted.memory_cap_bytes, device)
    try:
        record = _measured(config, wanted, run_dir, device, gpu)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if gpu:
            gpu.require_undisturbed()  # else memory may have run out by another's doing
        record = _out_of_memory(config, wanted, run_dir, str(error).splitlines()[0] if str(error) else "host memory")
    write_record(output, record)
    return record


def _measured(config: ExperimentConfig, wanted: Configuration, run_dir: Path, device: torch.device,
              gpu: Gpu | None) -> ProfileRecord:
    system, settings = resolve_system(wanted.system, config), config.profiling
    pipeline = _pipeline(config, wanted, run_dir)
    batch = _Batch(config, pipeline, system.plan, wanted)

    # Watched first and timed afterwards: watching is slow, and it warms up what the timed runs use.
    f_hat_BCHW, latents_peak_bytes, cache_and_activations = _watch_generation(batch, device)
    decoder_peak_bytes = _watch_decoding(pipeline, f_hat_BCHW, device)
    parameter_bytes = stored_bytes(pipeline.model, pipeline.tokenizer)
    parts = {"parameters_mib": _mib(parameter_bytes), "decoder_mib": _mib(decoder_peak_bytes)} | cache_and_activations

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    rounds = {"warmup": settings.warmup, "repeats": settings.repeats}
    latents_s = time_repeats(batch.generate, device, label=f"{system.name} latents", **rounds)
    decoder_s = time_repeats(lambda: pipeline.decode(f_hat_BCHW), device, label=f"{system.name} decoder", **rounds)
    whole = _driver_and_allocator(gpu, device) if gpu else {
        "tensors_mib": _mib(parameter_bytes + max(latents_peak_bytes, decoder_peak_bytes))}
    return _record(config, wanted, run_dir, latency=summarise(latents_s), decoder_latency=summarise(decoder_s),
                   gpu_driver=gpu and gpu.driver(), memory=parts | whole | {"rss_mib": _mib(peak_rss_bytes())})


def _pipeline(config: ExperimentConfig, wanted: Configuration, run_dir: Path) -> Pipeline:
    if wanted.random_weights:
        return random_pipeline(config, config.seed, wanted.precision)
    tokenizer, weights = _weight_files(config, wanted, run_dir)
    return load_pipeline(config, tokenizer, weights, wanted.precision)


class _Batch:
    """One batch of labels, drawn again and again with the same uniform numbers."""

    def __init__(self, config: ExperimentConfig, pipeline: Pipeline, plan: DepthPlan, wanted: Configuration) -> None:
        self.pipeline, self.plan, self.cache_policy = pipeline, plan, wanted.cache_policy
        images = range(wanted.batch_size)
        self.label_B = torch.tensor([label_of(i, config.data.num_classes) for i in images])
        self.readout = DrawTokens(pipeline.tokenizer.quantize,
                                  image_uniforms(config.seed, images, config.pyramid.length))

    def generate(self, model: VAR | None = None) -> Generated:
        """Labels to latents; ``model`` may stand in for the pipeline's."""
        return generate(model or self.pipeline.model, self.pipeline.tokenizer.quantize, self.label_B, self.plan,
                        self.pipeline.guidance, self.readout, cache_policy=self.cache_policy)


class _CacheShown:
    """The transformer, handing its cache to a watch as soon as it gets one; `generate` makes the cache itself."""

    def __init__(self, model: VAR, watch: MemoryWatch) -> None:
        self._model, self._watch = model, watch

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def scale_step(self, k: int, x_BlC: Tensor, plan: DepthPlan, cache: KVCache, *arguments: object) -> Tensor:
        self._watch.cache = cache
        return self._model.scale_step(k, x_BlC, plan, cache, *arguments)


def _watch_generation(batch: _Batch, device: torch.device) -> tuple[Tensor, int, dict[str, float]]:
    """The latents, the peak in bytes without parameters, and what of it are cache and activations.

    The cache itself ends here: it must not be there any more when the decoder is watched.
    """
    pipeline = batch.pipeline
    with MemoryWatch((pipeline.model, pipeline.tokenizer), device) as watch:
        generated = batch.generate(_CacheShown(pipeline.model, watch))
    return generated.f_hat_BCHW, watch.peak_bytes, {
        "kv_cache_mib": generated.cache.peak_bytes / MIB, "kv_scratch_mib": generated.cache.scratch_bytes / MIB,
        "activations_mib": watch.peak_beside_cache_bytes / MIB}


def _watch_decoding(pipeline: Pipeline, f_hat_BCHW: Tensor, device: torch.device) -> int:
    """The peak in bytes without parameters."""
    with MemoryWatch((pipeline.model, pipeline.tokenizer), device) as watch:
        pipeline.decode(f_hat_BCHW)
    return watch.peak_bytes


def _driver_and_allocator(gpu: Gpu, device: torch.device) -> dict[str, float | None]:
    gpu.require_undisturbed()
    return {"nvml_process_mib": _mib(gpu.process_bytes()), "nvml_device_mib": _mib(gpu.device_bytes()),
            "allocator_reserved_mib": _mib(torch.cuda.max_memory_reserved(device)),
            "allocator_allocated_mib": _mib(torch.cuda.max_memory_allocated(device))}


def _out_of_memory(config: ExperimentConfig, wanted: Configuration, run_dir: Path, reason: str) -> ProfileRecord:
    return _record(config, wanted, run_dir, reason=reason)


def _record(config: ExperimentConfig, wanted: Configuration, run_dir: Path, *, reason: str | None = None,
            latency: Latency | None = None, decoder_latency: Latency | None = None, gpu_driver: str | None = None,
            memory: dict[str, float | None] | None = None) -> ProfileRecord:
    files = () if wanted.random_weights else _weight_files(config, wanted, run_dir)
    cap_mib = _mib(wanted.memory_cap_bytes)
    return ProfileRecord(
        system=wanted.system, status="out_of_memory" if reason else "ok", reason=reason,
        steps=resolve_system(wanted.system, config).steps, batch_size=wanted.batch_size, precision=wanted.precision,
        cache_policy=wanted.cache_policy, weights=f"random, seed {config.seed}" if wanted.random_weights else "trained",
        num_parameters=_transformer_parameters(config), latency=latency, decoder_latency=decoder_latency,
        warmup=config.profiling.warmup, memory=MemoryUse(**memory or {}, memory_cap_mib=cap_mib),
        gpu_driver=gpu_driver,
        provenance=provenance(experiment=config.name, seed=config.seed, settings=config.digest("sampling", "profiling"),
                              weights_sha256={path.stem: sha256_of(path) for path in files}))


def _weight_files(config: ExperimentConfig, wanted: Configuration, run_dir: Path) -> tuple[Path, Path]:
    """Tokenizer and transformer."""
    return run_dir / "tokenizer.safetensors", resolve_system(wanted.system, config).weights_path(run_dir)


def _transformer_parameters(config: ExperimentConfig) -> int:
    """By formula: a network that does not fit is counted too."""
    tokenizer = config.tokenizer.model
    return var_parameters(config.transformer, config.pyramid, num_classes=config.data.num_classes,
                          vocab_size=tokenizer.vocab_size, z_channels=tokenizer.z_channels)


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB
