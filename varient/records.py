"""Typed results, one JSON file each: a measurement with its unit in the key, its raw repeats and its provenance."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from varient.config import CachePolicy, Precision
from varient.files import write_text
from varient.yaml_file import shortened

CPU = "CPU"
"""How the name of a device begins that is no GPU."""
_PACKAGES = ("varient", "torch", "numpy", "scipy", "torch-fidelity", "clean-fid")


class RecordError(ValueError):
    """A record that is missing or not of the expected kind; the message names file and key."""


Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
Distance = Annotated[float, Field(ge=-1e-6)]
"""Not negative but for rounding, of sets that are equal."""


class Record(BaseModel):
    """What is no number, or infinite, was never measured."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Provenance(Record):
    """Where a number comes from."""

    experiment: str
    seed: int | None
    """None where samples of others do not say."""
    settings: str
    """Digest of the settings that the number depends on."""
    weights_sha256: dict[str, str]
    imported_sha256: dict[str, str] = {}
    """Of the files of others that the networks were imported from or trained from, by network; of older records none.
    """
    sampled_on: str | None = None
    """What drew the images, where that is another step than the record's own; None in older records."""
    device: str
    threads: Positive
    versions: dict[str, str]
    git_commit: str | None
    created: str
    """UTC, ISO 8601."""

    @property
    def made_on(self) -> str:
        """The device that a result depends on: what drew the images of a score, what ran a profile."""
        return self.sampled_on or self.device


class ScoreRecord(Record):
    """How good the images of one system are, under one protocol.

    ``x_sd`` is the standard deviation of score x over redraws of the generated images, in x's own unit, the reference
    standing still (`varient.evaluation.uncertainty`).  None: the protocol does not have the score, the reference lacks
    what it is taken against (the warnings say so), or the images are too few for its spread.
    """

    kind: Literal["score"] = "score"
    system: str
    source: Literal["measured"] = "measured"
    protocol: str
    """A name of `varient.evaluation.protocols`; scores of two protocols are not comparable."""
    extractor: str
    """Whose features, with a hash of the weights."""
    num_images: Positive
    num_reference: Count
    images_sha256: str
    """Of the pixels, in order."""
    reference_sha256: str
    fid: Distance
    """torch-fidelity and clean-fid give the same from the same features, or there is no record."""
    fid_sd: Amount
    fid_bias: float
    """By how much FID of this many images would exceed that of infinitely many, if they were like the reference."""
    fid_test: float | None = None
    """Against the images of a test set, where the experiment has one beside the reference."""
    fid_test_sd: float | None = None
    fid_infinity: float | None = None
    """FID extrapolated to infinitely many images."""
    sfid: Distance | None = None
    sfid_sd: Amount | None = None
    kid: float | None = None
    """Unbiased, so that it may be negative."""
    kid_sd: Amount | None = None
    kid_std: Amount | None = None
    """Over subsets, as the libraries print it: the spread of one subset."""
    inception_score: Above | None = None
    inception_score_sd: Amount | None = None
    inception_score_std: Amount | None = None
    """Over blocks, as the libraries print it."""
    precision: Share | None = None
    precision_sd: Amount | None = None
    recall: Share | None = None
    recall_sd: Amount | None = None
    recognised: Share | None = None
    """Share of images that a classifier not used for the scores sees as the class that was asked for."""
    warnings: tuple[str, ...] = ()
    provenance: Provenance

    def summary(self) -> str:
        """The scores that there are, each with twice its standard deviation."""
        names = {"fid": "FID", "fid_test": "FID to the test set", "sfid": "sFID", "inception_score": "IS", "kid": "KID",
                 "precision": "precision", "recall": "recall"}
        found = [(shown, getattr(self, name), getattr(self, f"{name}_sd")) for name, shown in names.items()]
        return ", ".join(f"{shown} {value:.4g}" + ("" if sd is None else f" ± {2 * sd:.2g}")
                         for shown, value, sd in found if value is not None)


class ScaleReconstruction(Record):
    """Real images encoded to tokens and decoded from those of the scales 1..k alone."""

    scale: Positive
    """k."""
    side: Positive
    tokens: Positive
    """Of this scale."""
    fid: Distance
    fid_sd: Amount
    recognised: Share | None
    """Share of the images that the judge of the scores sees as their class."""


class ReconstructionRecord(Record):
    """Where a layout of scales puts the images' information: what each further scale adds to a reconstruction."""

    kind: Literal["reconstruction"] = "reconstruction"
    source: Literal["measured"] = "measured"
    protocol: str
    extractor: str
    num_images: Positive
    images_sha256: str
    reference_sha256: str
    patch_nums: tuple[Positive, ...]
    scales: tuple[ScaleReconstruction, ...]
    warnings: tuple[str, ...] = ()
    provenance: Provenance


class Latency(Record):
    """Seconds of one batch, warm-up left out: by CUDA events on a GPU, by the wall clock on a CPU."""

    median_s: Above
    iqr_s: Amount | None
    """Distance between the quartiles; None for a single repeat."""
    repeats_s: list[Above] = Field(min_length=1)
    cpu_s: list[Amount] | None = None
    """CPU seconds of the process in each repeat, all its threads together; None on a GPU and in older records."""

    @model_validator(mode="after")
    def _is_of_its_repeats(self) -> Latency:
        if not min(self.repeats_s) <= self.median_s <= max(self.repeats_s):
            raise ValueError(f"median_s = {self.median_s} is outside the repeats")
        if self.cpu_s is not None and len(self.cpu_s) != len(self.repeats_s):
            raise ValueError(f"{len(self.cpu_s)} CPU times of {len(self.repeats_s)} repeats")
        return self


class MachineLoad(Record):
    """How busy the machine was around a measurement, this process included."""

    before_1min: Amount
    """Processes that ran or waited for a core, averaged over the minute before."""
    after_1min: Amount
    """The same at the end: of short measurements it still tells of what was before them."""
    cores: Positive
    """Those that the process may use."""
    threads: Positive
    """Of the process's own computation."""


class MemoryUse(Record):
    """What one batch takes, under five names that are often mixed up, and what it consists of; MiB.

    None where a number was not measured: on a CPU there is no NVML and no CUDA allocator, on a GPU the allocator
    counts in place of us, and where memory ran out only what was known by then is told.

    The parts have their peaks at different moments, so together they are at least the whole:
    peak <= parameters + max(kv_cache + activations, decoder).
    """

    nvml_process_mib: Amount | None = None
    """What the driver books for the process after the run: context and libraries, and all that the allocator took."""
    nvml_device_mib: Amount | None = None
    """What is taken on the whole GPU after the run, by whomever."""
    allocator_reserved_mib: Amount | None = None
    """Most that PyTorch's CUDA allocator took from the driver, caches included, over generation and decoding."""
    allocator_allocated_mib: Amount | None = None
    """Most that it had handed out to tensors and kernels at once: the paper's "Mem"."""
    tensors_mib: Amount | None = None
    """CPU: the counterpart of the last, bytes of all tensors at the worst moment; scratch inside a kernel is unseen."""
    rss_mib: Amount | None = None
    """Host memory: most that was resident in the process, with interpreter, libraries and loading of the weights."""
    parameters_mib: Amount | None = None
    """Parameters and buffers of transformer and tokenizer, as stored."""
    kv_cache_mib: Amount | None = None
    """Most bytes of live entries of the KV cache, the layer in flight included; counted by the cache itself."""
    kv_scratch_mib: Amount | None = None
    """Most bytes of copies that the cache makes of one layer beside its entries; part of the activations."""
    activations_mib: Amount | None = None
    """Most bytes alive at once, while latents are generated, that are neither parameters nor storage of the cache."""
    decoder_mib: Amount | None = None
    """Most bytes alive at once while latents are decoded to images, parameters left out; the cache is freed before."""
    memory_cap_mib: Amount | None = None
    """Where the CUDA allocator was held to a smaller card's memory."""

    @property
    def peak_mib(self) -> float | None:
        """The number that stands for the paper's "Mem": the allocator's peak, on a CPU that of the tensors."""
        return self.tensors_mib if self.allocator_allocated_mib is None else self.allocator_allocated_mib


class ProfileRecord(Record):
    """What one batch of one system costs in time and memory, or that it does not fit."""

    kind: Literal["profile"] = "profile"
    system: str
    source: Literal["measured"] = "measured"
    status: Literal["ok", "out_of_memory"]
    reason: str | None
    """How memory ran out; None where it did not."""
    steps: str
    batch_size: Positive
    """Images; guidance runs two rows for each."""
    precision: Precision
    """Of the transformer's weights."""
    cache_policy: CachePolicy
    weights: str
    """"trained", or "random, seed n" and who drew them: time and memory do not depend on the values."""
    num_parameters: Count
    """All networks that take steps, the image decoder left out: the paper's #Param."""
    parameters: dict[str, Count] = {}
    """Of each of them."""
    latency: Latency | None
    """Labels to latents, guided, without the image decoder, as in the paper's Table 2."""
    decoder_latency: Latency | None
    """Latents to uint8 images."""
    warmup: Count
    memory: MemoryUse
    load: MachineLoad | None = None
    """None where memory ran out, and in older records."""
    gpu_driver: str | None
    unanswered: dict[str, str] = {}
    """What the GPU's driver did not tell (processes, memory, driver) -> why."""
    attention: tuple[str, ...] = ()
    """Fused kernels that torch chose for the attention of a generation; none in older records."""
    allocator: str | None = None
    """PYTORCH_CUDA_ALLOC_CONF of the process; None on a CPU, of a process that was killed, and in older records."""
    provenance: Provenance

    @model_validator(mode="after")
    def _says_one_thing(self) -> ProfileRecord:
        fits = self.status == "ok"
        if (self.latency is not None, self.decoder_latency is not None, self.reason is None) != (fits, fits, fits):
            raise ValueError(f"status {self.status}: a system that fits has both latencies and no reason why not, one "
                             "that does not fit the reverse")
        return self


RecordType = TypeVar("RecordType", bound=Record)


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_record(path: Path, kind: type[RecordType]) -> RecordType:
    """Read a record of the given type.

    Raises:
        RecordError: no such file, or another kind of content.
    """
    try:
        return kind.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record") from None
    except OSError as error:
        raise RecordError(f"{path}: no record, it cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise RecordError(f"{path}: not a {kind.__name__}: no text in UTF-8") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = shortened(".".join(map(str, first["loc"])) or "file")[1:-1]
        raise RecordError(f"{path}: not a {kind.__name__}: {key}: {first['msg'].removeprefix('Value error, ')}") \
            from None


def random_weights(seed: int, on: str) -> str:
    """Which random weights a record is of: the same seed gives others on another device, and with another torch."""
    import torch

    return f"random, seed {seed}, drawn by torch {torch.__version__} on {on}"


def provenance(*, experiment: str, seed: int | None, settings: str, weights_sha256: dict[str, str],
               imported_sha256: dict[str, str] | None = None, sampled_on: str | None = None,
               on: str | None = None) -> Provenance:
    """Provenance of a result made by this process, now.

    Args:
        on: "cpu" or "cuda"; None means a GPU where there is one.
    """
    import torch

    return Provenance(experiment=experiment, seed=seed, settings=settings, weights_sha256=weights_sha256,
                      imported_sha256=imported_sha256 or {}, sampled_on=sampled_on, device=device_name(on),
                      threads=torch.get_num_threads(), versions=_versions(), git_commit=_git_commit(),
                      created=datetime.now(UTC).isoformat(timespec="seconds"))


def device_name(on: str | None = None) -> str:
    """What this process computes on, by name; that of a CPU begins with "CPU".

    Args:
        on: "cpu" or "cuda"; None means a GPU where there is one.
    """
    import torch

    on_gpu = torch.cuda.is_available() and on != "cpu"
    return torch.cuda.get_device_name() if on_gpu else f"{CPU} {_cpu_name()}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # the package runs from a checkout that was not installed
            continue
    return versions


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text("utf-8").splitlines()
             if line.startswith("model name")] if cpuinfo.exists() else []
    return names[0] if names else platform.machine()


def _git_commit() -> str | None:
    """The commit of the checkout that runs, with "+changes" where files differ; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True,
                                check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")
