"""Profiling of one configuration of a system: latency and memory, or the fact that memory ran out.

Each configuration runs in a fresh process, because earlier work would affect resident memory and allocator caches.
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
        batch_size: number of images.
        precision: dtype of the transformer's weights.
        random_weights: use random weights from the experiment's seed instead of trained ones.
        memory_cap_bytes: limit of the CUDA allocator; None: the whole GPU.

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
        """A configuration; arguments that are None are taken from the experiment's settings.

        Raises:
            ValueError: as the class, an unknown system, or a cache policy that the system does not have.
        """
        settings, policies = config.profiling, resolve_system(system, config).cache_policies
        if cache_policy is None:
            cache_policy = settings.cache_policy if settings.cache_policy in policies else policies[0]
        if cache_policy not in policies:
            raise ValueError(f"{system} has no cache policy {cache_policy!r}; known: {', '.join(policies)}")
        return cls(system, settings.batch_size if batch_size is None else batch_size,
                   _precision_named(precision or settings.precision), cache_policy, random_weights, memory_cap_bytes)


def _precision_named(name: str) -> Precision:
    if name not in DTYPES:
        raise ValueError(f"precision {name!r} is unknown; known: {', '.join(DTYPES)}")
    return name


def profile_in_fresh_process(config_path: Path, config: ExperimentConfig, wanted: Configuration, run_dir: Path,
                             output: Path) -> ProfileRecord:
    """Profile ``wanted`` in a fresh process that writes the record.

    If the OOM killer kills that process, an out-of-memory record is written.  Nothing else should run on the machine,
    because it would increase the spread.

    Args:
        config_path: the file that ``config`` was read from.
        run_dir: folder of the trained weights.

    Raises:
        ValueError: unknown system.
        SystemExit: the process stopped with an error, which it has printed.
        ChildProcessError: the process crashed or was killed.
    """
    resolve_system(wanted.system, config)  # report a wrong name before a process is started
    command = [sys.executable, "-m", "varient", "profile-worker", "--config", config_path, "--run-dir", run_dir,
               "--output", output, "--parent", os.getpid(), json.dumps(asdict(wanted))]
    kills = oom_kills()
    status = subprocess.run(list(map(str, command)), env=ALLOCATOR | os.environ).returncode
    if status == -signal.SIGKILL and oom_kills() > kills:
        torch.set_num_threads(config.profiling.threads)  # as in the process whose record this is
        record = _out_of_memory(config, wanted, run_dir,
                                "killed by the operating system (SIGKILL): out of memory")
        write_record(output, record)
        return record
    if status == -signal.SIGKILL:
        raise ChildProcessError(f"{wanted.system}: the profiling process was killed (SIGKILL), but not by the OOM "
                                "killer as far as the kernel reports; no record was written")
    if status < 0:
        raise ChildProcessError(f"{wanted.system}: the profiling process crashed ({signal.Signals(-status).name})")
    if status > 0:
        raise SystemExit(status)
    return read_record(output, ProfileRecord)


def profile_here(config: ExperimentConfig, wanted: Configuration, run_dir: Path, output: Path) -> ProfileRecord:
    """Profile ``wanted`` in this process and write the record.

    Raises:
        ValueError: unknown system, unusable weights, or a memory cap that is not possible on the device.
        NvmlError: NVML cannot be used for the GPU.
        GpuBusyError: another process computes on the GPU.
    """
    torch.set_num_threads(config.profiling.threads)
    untouched = _untouched_gpu()
    device = default_device(wanted.precision)
    print(f"profiling {wanted.system} on {named_device(device)}", flush=True)
    gpu = None
    if device.type == "cuda":
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        # torch and the driver may number GPUs differently
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
            gpu.require_undisturbed()  # otherwise another process may have used up the memory
        record = _out_of_memory(config, wanted, run_dir, str(error).splitlines()[0] if str(error) else "host memory")
    write_record(output, record)
    return record


def _untouched_gpu() -> Gpu | None:
    """The GPU that this process will use, queried before torch initialises it and adds this process to its list."""
    visible = visible_gpus() if wanted_device() != "cpu" else ()
    try:
        return Gpu(visible[0].uuid) if visible else None
    except NvmlError:  # irrelevant if torch uses the CPU; otherwise the error is raised later
        return None


def _measured(config: ExperimentConfig, wanted: Configuration, run_dir: Path, device: torch.device,
              gpu: Gpu | None) -> ProfileRecord:
    settings = config.profiling
    batch = _Workload(config, wanted, run_dir)
    networks = batch.sampler.networks

    # Memory is measured before time: tracking it is slow, and it also warms up what the timed runs use.
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


class _Workload:
    """The batch that is generated repeatedly: always the same labels and seeds."""

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


def _watch_generation(batch: _Workload, device: torch.device) -> tuple[Tensor, MemoryWatch, dict[str, float]]:
    """The latents, what was watched, and what of its peak are caches and activations.

    A system may have several caches one after the other (CoDe's two networks); the largest one counts.
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
    """Peak bytes, without parameters, while latents are decoded."""
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
    parameters = system.parameters()  # by formula, so that it works for networks that do not fit into memory
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
