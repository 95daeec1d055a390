"""The record of a profile: times and memory of one configuration of a system."""

from __future__ import annotations

from statistics import median
from typing import Literal

from pydantic import Field, model_validator

from varient.config import CachePolicy, Precision
from varient.records import Above, Amount, Count, Positive, Provenance, Record


class Latency(Record):
    """Seconds for one batch, without warm-up: CUDA events on a GPU, wall-clock time on a CPU."""

    median_s: Above
    iqr_s: Amount | None
    """Interquartile range; None for a single repeat."""
    repeats_s: list[Above] = Field(min_length=1)
    cpu_s: list[Amount] | None = None
    """CPU time of the process in each repeat, summed over its threads; None on a GPU and in older records."""

    @model_validator(mode="after")
    def _is_of_its_repeats(self) -> Latency:
        if not min(self.repeats_s) <= self.median_s <= max(self.repeats_s):
            raise ValueError(f"median_s = {self.median_s} is outside the repeats")
        if self.cpu_s is not None and len(self.cpu_s) != len(self.repeats_s):
            raise ValueError(f"{len(self.cpu_s)} CPU times for {len(self.repeats_s)} repeats")
        return self


class MachineLoad(Record):
    """Load of the machine before and after a measurement, including this process."""

    before_1min: Amount
    """Load average (running and waiting processes) over the minute before the measurement."""
    after_1min: Amount
    """The same at the end; after a short measurement it still includes the time before it."""
    cores: Positive
    """Cores that the process may use."""
    threads: Positive
    """Compute threads of the process."""
    others: Amount | None = None
    """Cores that all other processes kept busy during the measurement, on average; None in older records."""


class MemoryUse(Record):
    """Memory for one batch in MiB: several totals that are often confused, and the parts of the total.

    None means not measured: on a CPU there is no NVML and no CUDA allocator, on a GPU ``tensors_mib`` is replaced by
    the allocator's peak, and after an out-of-memory error only the memory cap is known.

    The parts peak at different times, so their sum bounds the total from above:
    peak <= parameters + max(kv_cache + activations, decoder).
    """

    nvml_process_mib: Amount | None = None
    """Memory of the process after the run according to the driver: CUDA context, libraries, and reserved memory."""
    nvml_device_mib: Amount | None = None
    """Memory used on the whole GPU after the run, by all processes."""
    allocator_reserved_mib: Amount | None = None
    """Peak memory that PyTorch's CUDA allocator reserved, including its cache, over generation and decoding."""
    allocator_allocated_mib: Amount | None = None
    """Peak memory that the allocator had allocated to tensors and kernels: the paper's "Mem"."""
    tensors_mib: Amount | None = None
    """Counterpart of the allocator's peak on a CPU: peak bytes of all tensors, without workspace inside kernels."""
    rss_mib: Amount | None = None
    """Peak resident host memory of the process, including interpreter, libraries and loading of the weights."""
    parameters_mib: Amount | None = None
    """Parameters and buffers of transformer and tokenizer, as stored."""
    kv_cache_mib: Amount | None = None
    """Peak bytes of live KV cache entries, including the layer being computed; counted by the cache itself."""
    kv_scratch_mib: Amount | None = None
    """Peak bytes of temporary copies that the cache makes of one layer; part of the activations."""
    activations_mib: Amount | None = None
    """Peak bytes of tensors, while latents are generated, that are neither parameters nor storage of the cache."""
    decoder_mib: Amount | None = None
    """Peak bytes of tensors, without parameters, while latents are decoded to images; the KV cache is freed before."""
    memory_cap_mib: Amount | None = None
    """Limit of the CUDA allocator, set to emulate a smaller GPU; None for no limit."""

    @property
    def peak_mib(self) -> float | None:
        """The counterpart of the paper's "Mem": the allocator's peak on a GPU, the tensors' peak on a CPU."""
        return self.tensors_mib if self.allocator_allocated_mib is None else self.allocator_allocated_mib


class ProfileRecord(Record):
    """Time and memory for one batch of one system, or the fact that it does not fit into memory."""

    kind: Literal["profile"] = "profile"
    system: str
    source: Literal["measured"] = "measured"
    status: Literal["ok", "out_of_memory"]
    reason: str | None
    """Message of the out-of-memory error; None if the batch fits."""
    steps: str
    batch_size: Positive
    """Number of images; with guidance the transformer runs two rows for each."""
    precision: Precision
    """Dtype of the transformer's weights."""
    cache_policy: CachePolicy
    weights: str
    """"trained", or "random, seed n" and who drew them: time and memory do not depend on the values."""
    num_parameters: Count
    """Parameters of all networks except the image decoder: the paper's #Param."""
    parameters: dict[str, Count] = Field(default_factory=dict)
    """The same for each network."""
    latency: Latency | None
    """Generation of the latents from labels, with guidance, without the image decoder, as in the paper's Table 2."""
    decoder_latency: Latency | None
    """Decoding of the latents to uint8 images."""
    reference: Latency | None = None
    """Generation of the same batch by the experiment's full network, in turns with ``latency``: what a speedup is
    relative to.  None for that network itself, where it does not fit beside the system, and in older records."""
    latency_by_scale_s: tuple[Amount, ...] = ()
    """Seconds of each scale 1..K of a generation, medians over repeats of their own after the timed ones: from the
    tokens of the scale before it to its own.  Scale 1 includes what precedes it; the first scale of CoDe's refiner, its
    pass over the drafted ones.  The sum lacks what follows the last tokens: they are added to the latent, and the
    logits are checked.  The image decoder is not in it.  Empty for systems that do not go scale by scale, where a CUDA
    graph is replayed, and in older records."""
    energy_j_per_image: Amount | None = None
    """Energy of the GPU for an image, joules, without ``idle_w`` over the same time and without the image decoder; from
    repeats of its own, as the full network takes turns in the timed ones.  None on a CPU, where the driver does not
    tell (``unanswered``), and in older records."""
    idle_w: Amount | None = None
    """Power of the GPU over the second before these repeats, watts."""
    warmup: Count
    memory: MemoryUse
    load: MachineLoad | None = None
    """None after an out-of-memory error, and in older records."""
    gpu_driver: str | None
    unanswered: dict[str, str] = Field(default_factory=dict)
    """Queries that the GPU driver did not answer (processes, memory, driver, energy) -> reason."""
    attention: tuple[str, ...] = ()
    """Fused kernels that torch chose for the attention of a generation; none in older records."""
    allocator: str | None = None
    """PYTORCH_CUDA_ALLOC_CONF of the process; None on a CPU, of a process that was killed, and in older records."""
    acceleration: tuple[str, ...] = ()
    """Switches of `varient.models.acceleration` that were on; off by default."""
    provenance: Provenance

    @model_validator(mode="after")
    def _says_one_thing(self) -> ProfileRecord:
        fits = self.status == "ok"
        if (self.latency is not None, self.decoder_latency is not None, self.reason is None) != (fits, fits, fits):
            raise ValueError(f"status {self.status}: ok needs both latencies and no reason; out_of_memory needs a "
                             "reason and no latencies")
        if self.reference and self.latency and len(self.reference.repeats_s) != len(self.latency.repeats_s):
            raise ValueError("reference and latency have different numbers of repeats, so they took no turns")
        if self.latency_by_scale_s and not fits:
            raise ValueError(f"status {self.status} with a latency by scale")
        return self

    @property
    def images_per_s(self) -> float | None:
        """Throughput without the image decoder: images of a batch over its median latency.  None without a latency."""
        return self.batch_size / self.latency.median_s if self.latency else None

    @property
    def speedup(self) -> float | None:
        """The full network's time over the system's: the median over the turns.  None without a reference."""
        return median(self.speedups) if self.speedups else None

    @property
    def speedups(self) -> list[float]:
        """The same within each turn; empty without a reference."""
        if self.reference is None or self.latency is None:
            return []
        return [full_s / own_s for full_s, own_s in zip(self.reference.repeats_s, self.latency.repeats_s, strict=True)]
