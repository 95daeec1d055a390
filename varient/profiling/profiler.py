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
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from varient.config import PROFILED, CachePolicy, ExperimentConfig, Precision
from varient.cost.sizes import MIB
from varient.devices import visible_gpus, wanted_device
from varient.disturbance import disturbances, speedup_disturbances
from varient.files import sha256_kept
from varient.generation import label_of
from varient.profile_records import MemoryUse, ProfileRecord
from varient.profiling.energy import measure_energy
from varient.profiling.latency import LoadWatch, Step, time_in_turns, time_parts
from varient.profiling.memory import MemoryWatch, cap_allocator, is_out_of_memory, peak_rss_bytes, stored_bytes
from varient.profiling.nvml import Gpu, NvmlError
from varient.profiling.process import oom_kills
from varient.records import provenance, random_weights, read_record, write_record
from varient.systems.ids import base_system
from varient.systems.lineage import imported_sha256
from varient.systems.pipeline import DTYPES, default_device, named_device
from varient.systems.protocol import CountedCache, Sampler, ScaleSampler
from varient.systems.registry import family_of, resolve_system, user_files

ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""How torch's CUDA allocator of a profile is set, unless the environment says otherwise.  By default storage that grows
leaves holes: VAR-d30 at batch 64 with the reference cache then takes 59 GB from the device for the 35 in use."""
ATTEMPTS = 3
"""How often the times of a profile are measured while other work disturbs them."""
NO_GPU = {"energy": "no GPU: its counter tells"}
"""What a profile on a CPU lacks."""
_NOTHING = {"reason": None, "latency": None, "decoder_latency": None, "gpu_driver": None, "warmup": 0}
"""Required fields of a record, as they are without a measurement."""


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
                             output: Path, *, quiet: bool = False) -> ProfileRecord:
    """Profile ``wanted`` in a fresh process that writes the record.

    If the OOM killer kills that process, an out-of-memory record is written.  Nothing else should run on the machine,
    because it would increase the spread.

    Args:
        config_path: the file that ``config`` was read from.
        run_dir: folder of the trained weights.
        quiet: keep what the process prints out of standard output: it goes to standard error.

    Raises:
        ValueError: unknown system.
        SystemExit: the process stopped with an error, which it has printed.
        ChildProcessError: the process crashed or was killed.
    """
    resolve_system(wanted.system, config)  # report a wrong name before a process is started
    command = [sys.executable, "-m", "varient", "profile-worker", "--config", config_path, "--run-dir", run_dir,
               "--output", output, "--parent", os.getpid(), json.dumps(asdict(wanted))]
    kills = oom_kills()
    status = subprocess.run(list(map(str, command)), env=ALLOCATOR | os.environ,
                            stdout=sys.stderr if quiet else None).returncode
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
    torch.manual_seed(config.seed)  # of random weights
    sampler = resolve_system(wanted.system, config).load(None if wanted.random_weights else run_dir, wanted.precision)
    batch = Workload(config, wanted, sampler)

    # Memory is measured before time: tracking it is slow, and it also warms up what the timed runs use.
    latents, memory, attention = watch_memory(batch, device)
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        sampler.decode(batch.latents())
        memory = {name: value for name, value in memory.items() if name != "tensors_mib"} \
            | _driver_and_allocator(gpu, device)
    memory["rss_mib"] = _mib(peak_rss_bytes())

    steps: dict[str, Step] = {"latency": batch.latents}
    if wanted.system != base_system(config):
        steps |= _reference(config, wanted)
    in_turns = partial(time_in_turns, device=device, warmup=settings.warmup, repeats=settings.repeats,
                       label=wanted.system)
    for attempt in range(ATTEMPTS):
        with LoadWatch() as watch:
            times = in_turns(steps) | in_turns({"decoder_latency": lambda: sampler.decode(latents)})
            by_scale = batch.seconds_by_scale(device, settings.repeats)
        record = new_record(config, wanted, run_dir, load=watch.load, gpu_driver=gpu.driver() if gpu else None,
                            unanswered=gpu.unanswered if gpu else NO_GPU, attention=attention, memory=memory,
                            latency_by_scale_s=by_scale, warmup=settings.warmup,
                            acceleration=getattr(sampler, "acceleration", ()),
                            **{name: found.latency() for name, found in times.items()})
        signs = dict.fromkeys((*disturbances(record), *speedup_disturbances(record)))
        if not signs:
            break
        again = ", measured again" if attempt + 1 < ATTEMPTS else "; the tables say so"
        print(f"{wanted.system}: other work disturbed the times ({'; '.join(signs)}){again}", flush=True)
    if gpu:
        energy = measure_energy(gpu, batch.latents, device, images=wanted.batch_size)
        gpu.require_undisturbed()
        record = record.model_copy(update={"energy_j_per_image": energy.j_per_image, "idle_w": energy.idle_w,
                                           "unanswered": gpu.unanswered})
    return record


def full_network_beside(config: ExperimentConfig, wanted: Configuration, otherwise: CachePolicy) -> Configuration:
    """The full network that a speedup is relative to; its weights are random, as time does not depend on their values.

    Args:
        otherwise: its cache policy where it does not have the system's.
    """
    policies = resolve_system(base_system(config), config).cache_policies
    policy = wanted.cache_policy if wanted.cache_policy in policies else otherwise
    return replace(wanted, system=base_system(config), cache_policy=policy, random_weights=True)


def _reference(config: ExperimentConfig, wanted: Configuration) -> dict[str, Step]:
    """The same batch with the full network; empty if that network does not fit into memory beside the system's own."""
    full = full_network_beside(config, wanted, config.profiling.cache_policy)
    try:
        batch = Workload(config, full, resolve_system(full.system, config).load(None, full.precision))
        batch.latents()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"{full.system} does not fit into memory beside {wanted.system}: no speedup in turns", flush=True)
        return {}
    return {"reference": batch.latents}


class Workload:
    """The batch that is generated repeatedly: always the same labels and seeds."""

    def __init__(self, config: ExperimentConfig, wanted: Configuration, sampler: Sampler) -> None:
        self.sampler = sampler
        self.indices = range(wanted.batch_size)
        self.labels = [label_of(i, config.data.num_classes) for i in self.indices]
        self.seed, self.cache_policy = config.seed, wanted.cache_policy

    def latents(self, on_cache: Callable[[CountedCache], None] | None = None) -> Tensor:
        """One batch of latents."""
        return self.sampler.latents(self.labels, self.indices, self.seed, cache_policy=self.cache_policy,
                                    on_cache=on_cache)

    def seconds_by_scale(self, device: torch.device, repeats: int) -> tuple[float, ...]:
        """Latency by scale, in repeats of its own, so that the marks are in no time of `latents`.

        Empty for a system that does not go scale by scale, or whose generations are replayed.
        """
        sampler = self.sampler
        if not isinstance(sampler, ScaleSampler) or not sampler.told_scales:
            return ()
        return tuple(time_parts(
            lambda mark: sampler.latents(self.labels, self.indices, self.seed, cache_policy=self.cache_policy,
                                         on_scale=mark),
            device, repeats=repeats, label="by scale"))


def watch_memory(batch: Workload, device: torch.device) -> tuple[Tensor, dict[str, float | None], set[str]]:
    """Generate and decode a batch, slowly: its latents, the parts of `MemoryUse` in MiB, and the fused kernels of
    attention that ran.
    """
    latents, generation, cache_and_activations = _watch_generation(batch, device)
    with MemoryWatch(batch.sampler.networks, device) as decoding:
        batch.sampler.decode(latents)
    parameter_bytes = stored_bytes(*batch.sampler.networks)
    whole_bytes = parameter_bytes + max(generation.peak_bytes, decoding.peak_bytes)
    return latents, {"tensors_mib": _mib(whole_bytes), "parameters_mib": _mib(parameter_bytes),
                     "decoder_mib": _mib(decoding.peak_bytes)} | cache_and_activations, generation.attention


def _watch_generation(batch: Workload, device: torch.device) -> tuple[Tensor, MemoryWatch, dict[str, float]]:
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


def _driver_and_allocator(gpu: Gpu, device: torch.device) -> dict[str, float | None]:
    gpu.require_undisturbed()
    return {"nvml_process_mib": _mib(gpu.process_bytes()), "nvml_device_mib": _mib(gpu.device_bytes()),
            "allocator_reserved_mib": _mib(torch.cuda.max_memory_reserved(device)),
            "allocator_allocated_mib": _mib(torch.cuda.max_memory_allocated(device))}


def _out_of_memory(config: ExperimentConfig, wanted: Configuration, run_dir: Path, reason: str) -> ProfileRecord:
    return new_record(config, wanted, run_dir, reason=reason)


def new_record(config: ExperimentConfig, wanted: Configuration, run_dir: Path, *,
               memory: dict[str, float | None] | None = None, attention: Iterable[str] = (),
               **measured: Any) -> ProfileRecord:
    """A record with what is known before measuring, and the given measurements, which are fields of the record."""
    system = resolve_system(wanted.system, config)
    parameters = system.parameters()  # by formula, so that it works for networks that do not fit into memory
    cap_mib = _mib(wanted.memory_cap_bytes)
    return ProfileRecord(
        system=wanted.system, status="ok" if "latency" in measured else "out_of_memory", steps=system.steps,
        batch_size=wanted.batch_size, precision=wanted.precision, cache_policy=wanted.cache_policy,
        weights=random_weights(config.seed, default_device().type) if wanted.random_weights else "trained",
        num_parameters=sum(parameters.values()), parameters=parameters,
        memory=MemoryUse(**memory or {}, memory_cap_mib=cap_mib), attention=sorted(attention),
        allocator=os.environ.get("PYTORCH_CUDA_ALLOC_CONF") if default_device().type == "cuda" else None,
        provenance=provenance(experiment=config.name, seed=config.seed, on=default_device().type,
                              settings=settings_digest(config, wanted),
                              imported_sha256=None if wanted.random_weights
                              else imported_sha256(system, config, run_dir),
                              weights_sha256=weights_sha256(config, wanted, run_dir)),
        **_NOTHING | measured)


def settings_digest(config: ExperimentConfig, wanted: Configuration) -> str:
    """Digest of the settings that a profile depends on."""
    return config.digest(*PROFILED, f"systems.{family_of(wanted.system, config)}")


def weights_sha256(config: ExperimentConfig, wanted: Configuration, run_dir: Path) -> dict[str, str]:
    """Hashes of the weight files that a profile reads; none of random weights."""
    if wanted.random_weights:
        return {}
    system = resolve_system(wanted.system, config)
    return {name: sha256_kept(run_dir / f"{name}.safetensors") for name in system.weights} \
        | {path.name: sha256_kept(path) for path in user_files(system)}


def _mib(size_bytes: int | None) -> float | None:
    return None if size_bytes is None else size_bytes / MIB
