"""Typed results, one JSON file each: measurements with the unit in the key, raw repeats and provenance."""

from __future__ import annotations

import math
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from varient.files import write_text
from varient.json_file import read_model
from varient.spread import DECIMALS, with_spread

CPU = "CPU"
"""How the name of a device begins that is no GPU."""
_PACKAGES = ("varient", "torch", "numpy", "scipy", "torch-fidelity", "clean-fid")


class RecordError(ValueError):
    """A record is missing or not of the expected kind; the message names file and key."""


Count = Annotated[int, Field(ge=0, lt=2 ** 63)]
Positive = Annotated[Count, Field(ge=1)]
Number = Annotated[float, Field(ge=-1e15, le=1e15)]
"""Limited, so that no arithmetic with it overflows."""
Share = Annotated[Number, Field(ge=0, le=1)]
Amount = Annotated[Number, Field(ge=0)]
Above = Annotated[Number, Field(ge=1e-15)]
Distance = Annotated[Number, Field(ge=-1e-6)]
"""A distance; for equal sets rounding may make it slightly negative."""


class Record(BaseModel):
    """Base of all records; frozen, unknown keys, non-finite numbers and texts beyond any use are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)


class Provenance(Record):
    """Where a number comes from."""

    experiment: str
    seed: Annotated[int, Field(gt=-2 ** 63, lt=2 ** 63)] | None
    """None if the samples were made elsewhere and do not say it."""
    settings: str
    """Digest of the settings that the result depends on."""
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
    """Quality of the images of one system under one protocol.

    ``x_sd`` is the standard deviation of score x over resampling of the generated images with the reference fixed, in
    the unit of x (`varient.evaluation.uncertainty`).  A score is None if the protocol does not define it or the
    reference lacks the data for it (see ``warnings``); an ``x_sd`` is None also if there are too few images to estimate
    it.
    """

    kind: Literal["score"] = "score"
    system: str
    source: Literal["measured"] = "measured"
    protocol: str
    """A name of `varient.evaluation.protocols`; scores of two protocols are not comparable."""
    extractor: str
    """Name of the feature extractor, with a hash of its weights."""
    num_images: Positive
    num_reference: Count
    images_sha256: str
    """Hash of the pixels of all images, in order."""
    reference_sha256: str
    fid: Distance | None = None
    """Cross-checked: torch-fidelity and clean-fid must agree on the same features, otherwise scoring fails.  None where
    the protocol has CMMD in its place."""
    fid_sd: Amount | None = None
    fid_bias: Number | None = None
    """Bias of FID from the finite number of images: its excess over infinitely many, for images like the reference."""
    fid_test: Distance | None = None
    """FID against a separate test set, if the experiment has one."""
    fid_test_sd: Amount | None = None
    fid_infinity: Number | None = None
    """FID extrapolated to infinitely many images."""
    sfid: Distance | None = None
    sfid_sd: Amount | None = None
    kid: Number | None = None
    """Unbiased estimate, which may be negative."""
    kid_sd: Amount | None = None
    kid_std: Amount | None = None
    """Standard deviation over subsets, as torch-fidelity reports it: the spread of a single subset's KID."""
    inception_score: Above | None = None
    inception_score_sd: Amount | None = None
    inception_score_std: Amount | None = None
    """Standard deviation over splits, as torch-fidelity reports it."""
    precision: Share | None = None
    precision_sd: Amount | None = None
    recall: Share | None = None
    recall_sd: Amount | None = None
    density: Amount | None = None
    """Balls around real images that hold a generated one, over k = 5: about 1 for equal distributions, above it for
    generated images in the densest places (prdc; None in older records, as the three below)."""
    density_sd: Amount | None = None
    coverage: Share | None = None
    """Share of real images whose ball holds a generated one; like recall's, its sd is over redraws of real images."""
    coverage_sd: Amount | None = None
    mind: Amount | None = None
    """MIND, the sliced Wasserstein distance of the features, scaled; depends on the smaller number of images."""
    vendi: Amount | None = None
    """Effective number of different images of a class: mean over the classes of their Vendi score; the number of images
    of a class bounds it from above."""
    cmmd: Amount | None = None
    """CMMD: biased squared discrepancy of CLIP's embeddings, times 1000."""
    cmmd_sd: Amount | None = None
    recognised: Share | None = None
    """Class accuracy: share of images that an independent classifier assigns to the requested class."""
    fid_halves: tuple[Distance, ...] = ()
    """FID against random halves of the training images, each on features of a classifier that learned from the other
    half alone; empty if the experiment has no such halves, and in older records."""
    warnings: tuple[str, ...] = ()
    provenance: Provenance

    @model_validator(mode="after")
    def _has_its_distance(self) -> ScoreRecord:
        if self.fid is None and self.cmmd is None:
            raise ValueError("fid is missing, and cmmd, one of which every score has")
        if len({self.fid is None, self.fid_sd is None, self.fid_bias is None}) > 1:
            raise ValueError("fid, fid_sd and fid_bias stand together or not at all")
        return self

    @property
    def fid_cross(self) -> float | None:
        """Cross-fitted FID: the mean over those halves."""
        return math.fsum(self.fid_halves) / len(self.fid_halves) if self.fid_halves else None

    def summary(self) -> str:
        """All scores that are not None as text, each with its 95 % interval over redraws."""
        names = {"fid": "FID", "fid_test": "FID to the test set", "sfid": "sFID", "inception_score": "IS", "kid": "KID",
                 "precision": "precision", "recall": "recall", "density": "density", "coverage": "coverage",
                 "mind": "MIND", "vendi": "Vendi score", "cmmd": "CMMD"}
        found = [(name, getattr(self, name), getattr(self, f"{name}_sd", None)) for name in names]
        return ", ".join(f"{names[name]} {with_spread(value, sd, DECIMALS[name])}"
                         for name, value, sd in found if value is not None)


class ScaleReconstruction(Record):
    """Real images that were encoded to tokens and decoded from the tokens of scales 1..k only."""

    scale: Positive
    """k."""
    side: Positive
    tokens: Positive
    """Number of tokens of this scale."""
    fid: Distance
    fid_sd: Amount
    recognised: Share | None
    """Class accuracy of the `judge` classifier on the reconstructed images."""


class ReconstructionRecord(Record):
    """Quality of real images reconstructed from their first k scales, for each k."""

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

    @model_validator(mode="after")
    def _is_of_its_scales(self) -> ReconstructionRecord:
        for number, scale in enumerate(self.scales, 1):
            side = self.patch_nums[number - 1] if number <= len(self.patch_nums) else 0
            if (scale.scale, scale.side, scale.tokens) != (number, side, side ** 2):
                raise ValueError(f"scale {number} of patch_nums = {self.patch_nums} is said to be scale {scale.scale}, "
                                 f"{scale.side} x {scale.side}, {scale.tokens} tokens")
        return self


class HeldOutLoss(Record):
    """Teacher-forced cross-entropy of the held-out images' tokens under the layers that a system runs.

    Without label dropout and stochastic depth.  A loss says nothing of guidance and filters, which a score does.
    """

    system: str
    loss: Amount
    """Nats per token, mean over tokens and images."""
    loss_sd: Amount | None
    """Standard error over the images, which are the same for all systems; None for a single image."""
    scales: tuple[Amount, ...] = Field(min_length=1)
    """Nats per token of each scale 1..K."""


class HeldOutRecord(Record):
    """Losses of one network on images that no network was trained on, under the plan of each of its systems."""

    kind: Literal["heldout"] = "heldout"
    source: Literal["measured"] = "measured"
    network: str
    num_images: Positive
    images_sha256: str
    """Hash of the images, as a training identifies them: losses on others, or on tokens of another tokenizer, are not
    comparable."""
    losses: tuple[HeldOutLoss, ...] = Field(min_length=1)
    provenance: Provenance


class Fidelity(Record):
    """How much the pictures of a system differ from those of the reference: the same seed, index and class in each
    pair.

    ``x_sd`` is the standard error of x over the pairs, for ``fid`` that of `ScoreRecord`.  None means not computed:
    the record's warnings say why.
    """

    system: str
    images_sha256: str
    identical: Share
    """Share of pairs that are equal to the bit."""
    psnr_db: Amount | None
    """Of the mean squared error over all pairs, grey levels 0..255; None where that is 0, so that PSNR is infinite."""
    psnr_db_sd: Amount | None
    ssim: Annotated[Number, Field(ge=-1, le=1 + 1e-6)]
    """Mean over the pairs, with the window that the record states."""
    ssim_sd: Amount
    lpips: Amount | None = None
    """Mean over the pairs of LPIPS 0.1 with AlexNet, where its weights were given."""
    lpips_sd: Amount | None = None
    feature_distance: Amount | None = None
    """Root mean squared distance of the features of a pair, relative to that of two unrelated pictures of the
    reference: 0 for equal features, 1 for unrelated ones."""
    same_class: Share | None = None
    """Share of pairs in which a classifier sees the same class, whichever it is."""
    same_class_sd: Amount | None = None
    fid: Distance | None = None
    """FID*: against the pictures of the reference, not against real ones."""
    fid_sd: Amount | None = None
    tokens: Share | None = None
    """Share of equal tokens, of all scales together."""
    tokens_sd: Amount | None = None
    tokens_by_scale: tuple[Share, ...] = ()
    """The same of each scale 1..K."""
    examples: tuple[Count, Count, Count]
    """Indices of the pairs with the smallest, the median and the largest squared error."""
    examples_psnr_db: tuple[Amount | None, Amount | None, Amount | None]
    """Their PSNR; None where it is infinite."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Fidelity:
        if (self.psnr_db is None) != (self.identical == 1):
            raise ValueError(f"psnr_db = {self.psnr_db} with {self.identical} of the pairs identical: it is infinite, "
                             "and absent, if all are")
        return self

    @property
    def psnr(self) -> float:
        """PSNR in dB, infinite where no pixel differs."""
        return math.inf if self.psnr_db is None else self.psnr_db

    def summary(self) -> str:
        """What was computed, as text, each with its 95 % interval."""
        names = {"ssim": "SSIM", "lpips": "LPIPS", "feature_distance": "feature distance", "same_class": "same class",
                 "fid": "FID*", "tokens": "equal tokens"}
        found = [(name, getattr(self, name), getattr(self, f"{name}_sd", None)) for name in names]
        return ", ".join([f"PSNR {with_spread(self.psnr, self.psnr_db_sd, DECIMALS['psnr_db'])} dB",
                          *(f"{names[name]} {with_spread(value, sd, DECIMALS[name])}"
                            for name, value, sd in found if value is not None)])


class FidelityRecord(Record):
    """Systems compared with a reference, picture by picture: the experiment's full network before any training, or any
    other set."""

    kind: Literal["fidelity"] = "fidelity"
    source: Literal["measured"] = "measured"
    network: str | None
    """Of the systems, where they share one and an experiment says so."""
    reference: str
    """The system that the others are compared with."""
    reference_sha256: str
    """Hash of the pixels of its images, in order of their indices."""
    num_images: Positive
    """Number of pairs."""
    ssim_kernel: Positive
    """Side of SSIM's window: 11, or in smaller images the largest odd side that fits; its standard deviation is
    1.5 / 11 of it."""
    protocol: str | None
    """Whose features FID* and the feature distance are of."""
    extractor: str | None
    judge: str | None
    """What sees the classes."""
    lpips_sha256: str | None = None
    """Of AlexNet's file."""
    num_token_images: Count = 0
    """Images whose tokens were drawn again."""
    systems: tuple[Fidelity, ...] = Field(min_length=1)
    warnings: tuple[str, ...] = ()
    provenance: Provenance


RecordType = TypeVar("RecordType", bound=Record)


def write_record(path: Path, record: Record) -> None:
    """Write a record atomically."""
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_record(path: Path, kind: type[RecordType]) -> RecordType:
    """Read a record of the given type.

    Raises:
        RecordError: no such file, or not a record of this type.
    """
    try:
        return read_model(path, kind, RecordError, f"a {kind.__name__}")
    except FileNotFoundError:
        raise RecordError(f"{path}: no such record") from None


def random_weights(seed: int, on: str) -> str:
    """Which random weights a record is of: the same seed gives others on another device, and with another torch."""
    import torch

    return f"random, seed {seed}, drawn by torch {torch.__version__} on {on}"


def provenance(*, experiment: str, seed: int | None, settings: str, weights_sha256: dict[str, str],
               imported_sha256: dict[str, str] | None = None, sampled_on: str | None = None,
               on: str | None = None) -> Provenance:
    """Provenance of a result that this process makes now.

    Args:
        on: "cpu" or "cuda"; None: the GPU if there is one, else the CPU.
    """
    import torch

    return Provenance(experiment=experiment, seed=seed, settings=settings, weights_sha256=weights_sha256,
                      imported_sha256=imported_sha256 or {}, sampled_on=sampled_on, device=device_name(on),
                      threads=torch.get_num_threads(), versions=_versions(), git_commit=_git_commit(),
                      created=datetime.now(UTC).isoformat(timespec="seconds"))


def device_name(on: str | None = None) -> str:
    """What this process computes on, by name; that of a CPU begins with "CPU".

    Args:
        on: "cpu" or "cuda"; None: the GPU if there is one, else the CPU.
    """
    import torch

    on_gpu = torch.cuda.is_available() and on != "cpu"
    return torch.cuda.get_device_name() if on_gpu else f"{CPU} {_cpu_name()}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # running from a checkout without installation
            continue
    return versions


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in cpuinfo.read_text("utf-8").splitlines()
             if line.startswith("model name")] if cpuinfo.exists() else []
    return names[0] if names else platform.machine()


def _git_commit() -> str | None:
    """The commit of the running checkout, with "+changes" if files were modified; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True,
                                check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")
