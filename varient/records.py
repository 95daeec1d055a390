"""Typed results, one JSON file each: a measurement with its unit in the key, its raw repeats and its provenance."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from varient.files import write_text

_PACKAGES = ("varient", "torch", "numpy", "scipy", "torch-fidelity", "clean-fid")


class RecordError(ValueError):
    """A record that is missing or not of the expected kind; the message names file and key."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Provenance(Record):
    """Where a number comes from."""

    experiment: str
    seed: int
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
    """How good the images of one system are."""

    kind: Literal["score"] = "score"
    system: str
    source: Literal["measured"] = "measured"
    extractor: str
    num_images: int
    num_reference: int
    fid: float
    """By torch-fidelity."""
    fid_clean: float
    """By clean-fid, from the same features."""
    kid: float
    kid_std: float
    inception_score: float
    inception_score_std: float
    precision: float
    recall: float
    recognised: float | None
    """Share of images that a classifier not used for the scores sees as the class that was asked for."""
    provenance: Provenance


class ProfileRecord(Record):
    """What one system costs; the image decoder is left out of the time, as in the paper's Table 2."""

    kind: Literal["profile"] = "profile"
    system: str
    source: Literal["measured"] = "measured"
    steps: str
    batch_size: int
    dtype: str
    cache_policy: str
    num_parameters: int
    """Transformer alone, as the paper's #Param."""
    kv_cache_mib: float
    """Peak of the live entries, counted by the cache itself."""
    latency_s: float
    """Median of the repeats: one batch, guided, without the image decoder."""
    latency_repeats_s: list[float]
    latency_iqr_s: float
    warmup: int
    provenance: Provenance


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


def provenance(*, experiment: str, seed: int, settings: str, weights_sha256: dict[str, str]) -> Provenance:
    """Provenance of a result made by this process, now."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU {_cpu_name()}"
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
