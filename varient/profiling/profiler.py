"""One configuration of a system, profiled in a process of its own: latency and memory, or that memory ran out.

A process of its own, because what ran before would show in the resident memory and in the allocator's caches.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from varient.config import PROFILED, CachePolicy, ExperimentConfig, Precision
from varient.cost.sizes import MIB
from varient.devices import visible_gpus, wanted_device
from varient.files import sha256_kept
from varient.generation import label_of
from varient.profiling.latency import load_1min, measure, usable_cores
from varient.profiling.memory import MemoryWatch, cap_allocator, is_out_of_memory, peak_rss_bytes, stored_bytes
from varient.profiling.nvml import Gpu, NvmlError
from varient.profiling.process import oom_kills
from varient.records import (
    Latency,
    MachineLoad,
    MemoryUse,
    ProfileRecord,
    provenance,
    random_weights,
    read_record,
    write_record,
)
from varient.systems.lineage import imported_sha256
from varient.systems.pipeline import DTYPES, default_device, named_device
from varient.systems.protocol import CountedCache, Sampler
from varient.systems.registry import family_of, resolve_system, user_files

ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""How torch's CUDA allocator of a profile is set, unless the environment says otherwise.  By default storage that grows
leaves holes: VAR-d30 at batch 64 with the reference cache then takes 59 GB from the device for the 35 in use."""


@dataclass(frozen=True)
class Configuration:
    """What to profile.

    Attributes:
        batch_size: images.
        precision: of the transformer's weights.
        random_weights: draw them from the experiment's seed in place of loading trained ones.
        memory_cap_bytes: hold the CUDA allocator to it; None for the whole card.

    Raises:
        ValueError: a batch below 1, or an unknown precision.
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
        _precision_named(self.precision)

    @classmethod
    def of(cls, config: ExperimentConfig, system: str, *, batch_size: int | None = None,
           precision: str | None = None, cache_policy: str | None = None, random_weights: bool = False,
           memory_cap_bytes: int | None = None) -> Configuration:
        """A configuration with the experiment's settings where nothing is said (None).

        Raises:
            ValueError: as the class, an unknown system, or a cache policy that the system does not have.
        """
        settings, policies = config.profiling, resolve_system(system, config).cache_policies
        if cache_policy is None:
            cache_policy = settings.cache_policy if settings.cache_policy in policies else policies[0]
        if cache_policy not in policies:
            raise ValueError(f"cache policy {cache_policy!r} is unknown to {system}; known: {', '.join(policies)}")
        return cls(system, settings.batch_size if batch_size is None else batch_size,
                   _precision_named(precision or settings.precision), cache_policy, random_weights, memory_cap_bytes)


def _precision_named(name: str) -> Precision:
    if name not in DTYPES:
        raise ValueError(f"precision {name!r} is unknown; known: {', '.join(DTYPES)}")
    return name


def profile_in_fresh_process(config_path: Path, config: ExperimentConfig, wanted: Configuration, run_dir: Path,
                             output: Path) -> ProfileRecord:
    """Start a process that profiles ``wanted`` and writes the record; one that the kernel kills for want of memory
    makes a record too.

    Run it alone on the machine: other work shows in the spread.

    Args:
        config_path: the file that ``config`` was read from.
        run_dir: where trained weights are.

    Raises:
        ValueError: unknown system.
        SystemExit: the process stopped with an error, which it has printed.
        ChildProcessError: the process crashed or was killed.
    """
    resolve_system(wanted.system, config)  # a wrong name is told before a process starts
    command = [sys.executable, "-m", "varient", "profile-worker", "--config", config_path, "--run-dir", run_dir,
               "--output", output, "--parent", os.getpid(), json.dumps(asdict(wanted))]
    kills = oom_kills()
    status = subprocess.run(list(map(str, command)), env=ALLOCATOR | os.environ).returncode
    if status == -signal.SIGKILL and oom_kills() > kills:
        torch.set_num_threads(config.profiling.threads)  # as in the process whose record this is
        record = _out_of_memory(config, wanted, run_dir,
                                "killed by the operating system (SIGKILL) for want of memory")
        write_record(output, record)
        return record
    if status == -signal.SIGKILL:
        raise ChildProcessError(f"{wanted.system}: the profiling process was killed (SIGKILL), and not for want of "
                                "memory, as far as the kernel counts that; there is no record")
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
    untouched = _untouched_gpu()
    device = default_device(wanted.precision)
    print(f"profiling {wanted.system} on {named_device(device)}", flush=True)
    gpu = None
    if device.type == "cuda":
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        # torch may count in another order than the driver
        gpu = untouched if untouched is not None and uuid in untouched.uuid else Gpu(uuid)
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


def _untouched_gpu() -> Gpu | None:
    """The GPU that this process would take, as it is before torch touches it: later this process is one of those on it.
    """
    visible = visible_gpus() if wanted_device() != "cpu" else ()
    try:
        return Gpu(visible[0].uuid) if visible else None
    except NvmlError:  # no matter where torch computes on the CPU; where it does not, it is told then
        return None


def _measured(config: ExperimentConfig, wanted: Configuration, run_dir: Path, device: torch.device,
              gpu: Gpu | None) -> ProfileRecord:
    settings = config.profiling
    batch = _Batch(config, wanted, run_dir)
    networks = batch.sampler.networks

    # Watched first and timed afterwards: watching is slow, and it warms up what the timed runs use.
    latents, generation, cache_and_activations = _watch_generation(batch, device)
    decoder_peak_bytes = _watch_decoding(batch.sampler, latents, device)
    parameter_bytes = stored_bytes(*networks)
    parts = {"parameters_mib": _mib(parameter_bytes), "decoder_mib": _mib(decoder_peak_bytes)} | cache_and_activations

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    rounds = {"warmup": settings.warmup, "repeats": settings.repeats}
    before = load_1min()
    latency = measure(batch.latents, device, label=f"{wanted.system} latents", **rounds)
    decoder_latency = measure(lambda: batch.sampler.decode(latents), device, label=f"{wanted.system} decoder", **rounds)
    load = None if before is None else MachineLoad(before_1min=before, after_1min=load_1min(), cores=usable_cores(),
                                                   threads=torch.get_num_threads())
    whole = _driver_and_allocator(gpu, device) if gpu else {
        "tensors_mib": _mib(parameter_bytes + max(generation.peak_bytes, decoder_peak_bytes))}
    driver = gpu.driver() if gpu else None
    return _record(config, wanted, run_dir, latency=latency, decoder_latency=decoder_latency, load=load,
                   gpu_driver=driver, unanswered=gpu.unanswered if gpu else {}, attention=generation.attention,
                   memory=parts | whole | {"rss_mib": _mib(peak_rss_bytes())})


class _Batch:
    """One batch of labels, drawn again and again from the same seeds."""

    def __init__(self, config: ExperimentConfig, wanted: Configuration, run_dir: Path) -> None:
        torch.manual_seed(config.seed)  # of random weights
        self.sampler = resolve_system(wanted.system, config).load(None if wanted.random_weights else run_dir,
                                                                  wanted.precision)
        self.indices = range(wanted.batch_size)
        self.labels = [label_of(i, config.data.num_classes) for i in self.indices]
        self.seed, self.cache_policy = config.seed, wanted.cache_policy

    def latents(self, on_cache: Callable[[CountedCache], None] | None = None) -> Tensor:
        return self.sampler.latents(self.labels, self.indices, self.seed, cache_policy=self.cache_policy,
                                    on_cache=on_cache)


def _watch_generation(batch: _Batch, device: torch.device) -> tuple[Tensor, MemoryWatch, dict[str, float]]:
    """The latents, what was watched, and what of its peak are caches and activations.

    A system may have caches one after the other (CoDe's two networks); their largest counts.
    """
    peaks = [(0, 0)]
    with MemoryWatch(batch.sampler.networks, device) as watch:

        def follow(cache: CountedCache) -> None:
            if watch.cache:
                peaks.append((watch.cache.peak_bytes, watch.cache.scratch_bytes))
            watch.cache = cache

        latents = batch.latents(follow)
        if watch.cache:
            peaks.append((watch.cache.peak_bytes, watch.cache.scratch_bytes))
    kv_bytes, scratch_bytes = (max(counts) for counts in zip(*peaks, strict=True))
    return latents, watch, {
        "kv_cache_mib": kv_bytes / MIB, "kv_scratch_mib": scratch_bytes / MIB,
        "activations_mib": watch.peak_beside_cache_bytes / MIB}


def _watch_decoding(sampler: Sampler, latents: Tensor, device: torch.device) -> int:
    """The peak in bytes without parameters."""
    with MemoryWatch(sampler.networks, device) as watch:
        sampler.decode(latents)
    return watch.peak_bytes


def _driver_and_allocator(gpu: Gpu, device: torch.device) -> dict[str, float | None]:
    gpu.require_undisturbed()
    return {"nvml_process_mib": _mib(gpu.process_bytes()), "nvml_device_mib": _mib(gpu.device_bytes()),
            "allocator_reserved_mib": _mib(torch.cuda.max_memory_reserved(device)),
            "allocator_allocated_mib": _mib(torch.cuda.max_memory_allocated(device))}


def _out_of_memory(config: ExperimentConfig, wanted: Configuration, run_dir: Path, reason: str) -> ProfileRecord:
    return _record(config, wanted, run_dir, reason=reason)


def _record(config: ExperimentConfig, wanted: Configuration, run_dir: Path, *, reason: str | None = None,
            latency: Latency | None = None, decoder_latency: Latency | None = None, load: MachineLoad | None = None,
            gpu_driver: str | None = None, unanswered: dict[str, str] | None = None,
            attention: Iterable[str] = (), memory: dict[str, float | None] | None = None) -> ProfileRecord:
    system = resolve_system(wanted.system, config)
    weights = () if wanted.random_weights else system.weights
    parameters = system.parameters()  # by formula: a network that does not fit is counted too
    cap_mib = _mib(wanted.memory_cap_bytes)
    return ProfileRecord(
        system=wanted.system, status="out_of_memory" if reason else "ok", reason=reason, steps=system.steps,
        batch_size=wanted.batch_size, precision=wanted.precision, cache_policy=wanted.cache_policy,
        weights=random_weights(config.seed, default_device().type) if wanted.random_weights else "trained",
        num_parameters=sum(parameters.values()), parameters=parameters, latency=latency,
        decoder_latency=decoder_latency, warmup=config.profiling.warmup,
        memory=MemoryUse(**memory or {}, memory_cap_mib=cap_mib), load=load, gpu_driver=gpu_driver,
        unanswered=unanswered or {}, attention=sorted(attention),
        allocator=os.environ.get("PYTORCH_CUDA_ALLOC_CONF") if default_device().type == "cuda" else None,
        provenance=provenance(experiment=config.name, seed=config.seed, on=default_device().type,
                              settings=config.digest(*PROFILED, f"systems.{family_of(wanted.system, config)}"),
                              imported_sha256=imported_sha256(system, config, run_dir) if weights else None,
                              weights_sha256={name: sha256_kept(run_dir / f"{name}.safetensors") for name in weights}
                              | ({path.name: sha256_kept(path) for path in user_files(system)} if weights else {})))


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB
