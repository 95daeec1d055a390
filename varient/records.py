"""Typed results, one JSON file each: a measurement with its unit in the key, its raw repeats and its provenance."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from varient.config import CachePolicy, Precision
from varient.files import write_text

_PACKAGES = ("varient", "torch", "numpy", "scipy", "torch-fidelity", "clean-fid")


class RecordError(ValueError):
    """A record that is missing or not of the expected kind; the message names file and key."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(Record):
    """Where a number comes from."""

    experiment: str
    seed: int | None
    """None where samples of others do not say."""
    settings: str
    """Digest of the settings that the number depends on."""
    weights_sha256: dict[str, str]
    device: str
    threads: int
    versions: dict[str, str]
    git_commit: str | None
    created: str
    """UTC, ISO 8601."""


class ScoreRecord(Record):
    """How good the images of one system are, under one protocol.

    ``x_sd`` is the standard deviation of score x over redraws of the generated images, in x's own unit, the reference
    standing still (`varient.evaluation.uncertainty`).  None: the protocol does not have the score.
    """

    kind: Literal["score"] = "score"
    system: str
    source: Literal["measured"] = "measured"
    protocol: str
    """A name of `varient.evaluation.protocols`; scores of two protocols are not comparable."""
    extractor: str
    """Whose features, with a hash of the weights."""
    num_images: int
    num_reference: int
    images_sha256: str
    """Of the pixels, in order."""
    reference_sha256: str
    fid: float
    """torch-fidelity and clean-fid give the same from the same features, or there is no record."""
    fid_sd: float
    fid_bias: float
    """By how much FID of this many images would exceed that of infinitely many, if they were like the reference."""
    fid_test: float | None = None
    """Against the images of a test set, where the experiment has one beside the reference."""
    fid_test_sd: float | None = None
    fid_infinity: float | None = None
    """FID extrapolated to infinitely many images."""
    sfid: float | None = None
    sfid_sd: float | None = None
    kid: float | None = None
    kid_sd: float | None = None
    kid_std: float | None = None
    """Over subsets, as the libraries print it: the spread of one subset."""
    inception_score: float | None = None
    inception_score_sd: float | None = None
    inception_score_std: float | None = None
    """Over blocks, as the libraries print it."""
    precision: float | None = None
    precision_sd: float | None = None
    recall: float | None = None
    recall_sd: float | None = None
    recognised: float | None = None
    """Share of images that a classifier not used for the scores sees as the class that was asked for."""
    warnings: tuple[str, ...] = ()
    provenance: Provenance

    def summary(self) -> str:
        """The scores that there are, each with twice its standard deviation."""
        names = {"fid": "FID", "fid_test": "FID to the test set", "sfid": "sFID", "inception_score": "IS", "kid": "KID",
                 "precision": "precision", "recall": "recall"}
        found = [(shown, getattr(self, name), getattr(self, f"{name}_sd")) for name, shown in names.items()]
        return ", ".join(f"{shown} {value:.4g} ± {2 * sd:.2g}" for shown, value, sd in found if value is not None)


class ScaleReconstruction(Record):
    """Real images encoded to tokens and decoded from those of the scales 1..k alone."""

    scale: int
    """k."""
    side: int
    tokens: int
    """Of this scale."""
    fid: float
    fid_sd: float
    recognised: float | None
    """Share of the images that the judge of the scores sees as their class."""


class ReconstructionRecord(Record):
    """Where a layout of scales puts the images' information: what each further scale adds to a reconstruction."""

    kind: Literal["reconstruction"] = "reconstruction"
    source: Literal["measured"] = "measured"
    protocol: str
    extractor: str
    num_images: int
    images_sha256: str
    reference_sha256: str
    patch_nums: tuple[int, ...]
    scales: tuple[ScaleReconstruction, ...]
    provenance: Provenance


class Latency(Record):
    """Seconds of one batch, warm-up left out: by CUDA events on a GPU, by the wall clock on a CPU."""

    median_s: float
    iqr_s: float | None
    """Distance between the quartiles; None for a single repeat."""
    repeats_s: list[float]


class MemoryUse(Record):
    """What one batch takes, under five names that are often mixed up, and what it consists of; MiB.

    None where a number was not measured: on a CPU there is no NVML and no CUDA allocator, on a GPU the allocator
    counts in place of us, and where memory ran out only what was known by then is told.

    The parts have their peaks at different moments, so together they are at least the whole:
    peak <= parameters + max(kv_cache + activations, decoder).
    """

    nvml_process_mib: float | None = None
    """What the driver books for the process after the run: context and libraries, and all that the allocator took."""
    nvml_device_mib: float | None = None
    """What is taken on the whole GPU after the run, by whomever."""
    allocator_reserved_mib: float | None = None
    """Most that PyTorch's CUDA allocator took from the driver, caches included, over generation and decoding."""
    allocator_allocated_mib: float | None = None
    """Most that it had handed out to tensors and kernels at once: the paper's "Mem"."""
    tensors_mib: float | None = None
    """CPU: the counterpart of the last, bytes of all tensors at the worst moment; scratch inside a kernel is unseen."""
    rss_mib: float | None = None
    """Host memory: most that was resident in the process, with interpreter, libraries and loading of the weights."""
    parameters_mib: float | None = None
    """Parameters and buffers of transformer and tokenizer, as stored."""
    kv_cache_mib: float | None = None
    """Most bytes of live entries of the KV cache, the layer in flight included; counted by the cache itself."""
    kv_scratch_mib: float | None = None
    """Most bytes of copies that the cache makes of one layer beside its entries; part of the activations."""
    activations_mib: float | None = None
    """Most bytes alive at once, while latents are generated, that are neither parameters nor storage of the cache."""
    decoder_mib: float | None = None
    """Most bytes alive at once while latents are decoded to images, parameters left out; the cache is freed before."""
    memory_cap_mib: float | None = None
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
    batch_size: int
    """Images; guidance runs two rows for each."""
    precision: Precision
    """Of the transformer's weights."""
    cache_policy: CachePolicy
    weights: str
    """"trained", or "random, seed n": time and memory do not depend on the values."""
    num_parameters: int
    """All networks that take steps, the image decoder left out: the paper's #Param."""
    parameters: dict[str, int] = {}
    """Of each of them."""
    latency: Latency | None
    """Labels to latents, guided, without the image decoder, as in the paper's Table 2."""
    decoder_latency: Latency | None
    """Latents to uint8 images."""
    warmup: int
    memory: MemoryUse
    gpu_driver: str | None
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
        return kind.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "file"
        raise RecordError(f"{path}: not a {kind.__name__}: {key}: {first['msg']}") from None


def provenance(*, experiment: str, seed: int | None, settings: str, weights_sha256: dict[str, str],
               on: str | None = None) -> Provenance:
    """Provenance of a result made by this process, now.

    Args:
        on: "cpu" or "cuda"; None means a GPU where there is one.
    """
    import torch

    on_gpu = torch.cuda.is_available() and on != "cpu"
    device = torch.cuda.get_device_name() if on_gpu else f"CPU {_cpu_name()}"
    return Provenance(experiment=experiment, seed=seed, settings=settings, weights_sha256=weights_sha256,
                      device=device, threads=torch.get_num_threads(), versions=_versions(), git_commit=_git_commit(),
                      created=datetime.now(UTC).isoformat(timespec="seconds"))


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
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines()
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
