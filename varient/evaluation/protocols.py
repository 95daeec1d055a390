"""Scoring protocols: how scores are computed, so that scores of the same protocol are comparable.

A protocol is data.  `check` tests before any computation whether samples, reference and weights are suitable; scores of
two protocols never appear in one column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from varient.config import FRECHET_FEATURES, REHEARSAL
from varient.evaluation.encoders import CLIP_FILE, DINOV2_FILE, EMBEDDING, Clip, DinoV2
from varient.evaluation.extractors import (
    CLEAN_FID_FILE,
    FIDELITY_FILE,
    POOL,
    SPATIAL,
    ClassifierExtractor,
    CleanInception,
    Extractor,
    FidelityInception,
)
from varient.evaluation.fidelity_classifier import FEATURES, LOGITS
from varient.evaluation.image_source import ImageSource, Reference
from varient.evaluation.inputs import STATISTICS
from varient.evaluation.neighbours import DENSITY_NEIGHBOURS, NEIGHBOURS
from varient.evaluation.scores import (
    ADM_BLOCK,
    MIND_DIRECTIONS,
    SEED,
    adm_blocks,
    equal_blocks,
    fixed_permutation,
)
from varient.evaluation.uncertainty import LEAST_IMAGES
from varient.models.classifier import Classifier

Metric = Literal["fid", "sfid", "inception_score", "kid", "precision", "recall", "cmmd"]


class ProtocolError(ValueError):
    """Something that a protocol needs is missing or cannot be used; one line that lists all of it."""


@dataclass(frozen=True)
class InceptionScoreRule:
    """How images are divided into blocks of IS.

    Attributes:
        block_size: images of a block; a shorter last one has the same weight (ADM).
        splits: number of equal blocks (torch-fidelity).  Exactly one of the two is given.
        seed: of the permutation before the division.
    """

    block_size: int | None = None
    splits: int | None = None
    seed: int = SEED

    def blocks(self, num_images: int) -> np.ndarray:
        """Bounds (S + 1,) of the blocks, in positions.

        Raises:
            ValueError: fewer images than splits.
        """
        if self.splits is not None:
            return equal_blocks(num_images, self.splits)
        assert self.block_size is not None  # a rule has one of the two
        return adm_blocks(num_images, self.block_size)

    def permutation(self, num_images: int, stored_seed: int | None = None) -> np.ndarray:
        """Image index (N,), int64, at each position.

        Images that are stored in this permutation (``stored_seed``, from `ImageSource.permutation_seed`) are not
        permuted again, so that an exported ADM batch has the same blocks here, in its archives and in ADM's evaluator.
        """
        return np.arange(num_images) if stored_seed == self.seed else fixed_permutation(num_images, self.seed)


@dataclass(frozen=True)
class KidRule:
    """Random subsets without replacement, and their seed."""

    subsets: int = 100
    subset_size: int = 1000
    seed: int = SEED


@dataclass(frozen=True)
class NeighbourRule:
    """k of precision and recall: radii to the k-th other neighbour, border included."""

    k: int = NEIGHBOURS


@dataclass(frozen=True)
class EmbeddingRule:
    """CMMD: bandwidth of the kernel on embeddings of length 1, and the factor of the squared discrepancy."""

    bandwidth: float = 10.0
    scale: float = 1000.0


@dataclass(frozen=True)
class FurtherRule:
    """Scores that no published protocol fixes, of the same features: settings of density and coverage (prdc's k,
    border excluded), MIND (torch-fidelity's directions and seed), and the Vendi score of each class."""

    k: int = DENSITY_NEIGHBOURS
    directions: int = MIND_DIRECTIONS
    seed: int = SEED


@dataclass(frozen=True)
class ScoringProtocol:
    """One way of scoring.

    Attributes:
        name: what the command line calls it.
        source: where the rules are from.
        network: whose features; what `open_extractor` loads.
        feature_layer: of all scores but IS and sFID.
        logits_layer: of IS.
        spatial_layer: of sFID.
        num_features, num_spatial_features: how many numbers an image has in the two layers; None where a config says.
        reference: FID is taken against the stored statistics of the reference file, or against its images.
        frechet: whether there is a FID.
        inception_score, kid, neighbours, cmmd: rules of those scores; None where the protocol has no such score.
        further: rule of density, coverage, MIND and Vendi score.
        first_features: so many of each layer's features are compared, the first ones; None: all.
        num_images: samples behind published numbers.
        num_reference: images of the reference behind them; behind precision and recall where there are these.
        notes: what a reader should know beside the numbers.
    """

    name: str
    source: str
    network: Literal["torch-fidelity", "clean-fid", "dinov2", "clip", "classifier"]
    feature_layer: str
    reference: Literal["statistics", "images"]
    logits_layer: str | None = None
    spatial_layer: str | None = None
    num_features: int | None = None
    num_spatial_features: int | None = None
    first_features: int | None = None
    frechet: bool = True
    inception_score: InceptionScoreRule | None = None
    kid: KidRule | None = None
    neighbours: NeighbourRule | None = None
    cmmd: EmbeddingRule | None = None
    further: FurtherRule | None = None
    num_images: int | None = None
    num_reference: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_compared(self) -> int | None:
        """Features that FID compares; None where a config says, and without FID."""
        return (self.first_features or self.num_features) if self.frechet else None

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Scores that the protocol has."""
        wanted: dict[Metric, object] = {
            "fid": self.frechet, "sfid": self.spatial_layer,
            "inception_score": self.logits_layer and self.inception_score, "kid": self.kid,
            "precision": self.neighbours, "recall": self.neighbours, "cmmd": self.cmmd}
        return tuple(metric for metric, rule in wanted.items() if rule)

    def metrics_against(self, reference: Reference) -> tuple[Metric, ...]:
        """Those that a reference allows, which may have images or statistics alone."""
        absent = set() if reference.images else {"kid", "precision", "recall"}
        if self.reference == "statistics" and "mu_s" not in reference.statistics:
            absent.add("sfid")
        return tuple(metric for metric in self.metrics if metric not in absent)


ADM = ScoringProtocol(
    name="adm",
    source="evaluations/evaluator.py of github.com/openai/guided-diffusion, as published ImageNet numbers use it",
    network="torch-fidelity", feature_layer=POOL, logits_layer=LOGITS, spatial_layer=SPATIAL,
    num_features=FRECHET_FEATURES["adm"],
    num_spatial_features=2023, reference="statistics",
    inception_score=InceptionScoreRule(block_size=ADM_BLOCK), neighbours=NeighbourRule(), further=FurtherRule(),
    num_images=50_000, num_reference=10_000,
    notes=("FID and sFID against mu, sigma, mu_s, sigma_s of the reference file (all of ImageNet's training images); "
           "precision and recall against its 10,000 images",
           "ADM takes IS over 5000 images each in stored order; here in a fixed permutation, which `varient export` "
           "writes, so that ADM's evaluator sees the same blocks",
           "logits without bias"))

ADM_REHEARSAL = replace(
    ADM, name=REHEARSAL, first_features=FRECHET_FEATURES[REHEARSAL], num_images=None, num_reference=None,
    source="this project: the path of `adm` with so few features that a few images do",
    notes=("comparable with nothing: a rehearsal of the path from weights to tables", *ADM.notes))

TORCH_FIDELITY = ScoringProtocol(
    name="torch-fidelity",
    source="torch-fidelity 0.4.0: its defaults with feature_extractor='inception-v3-compat'",
    network="torch-fidelity", feature_layer=POOL, logits_layer=LOGITS,
    num_features=FRECHET_FEATURES["torch-fidelity"], reference="images",
    inception_score=InceptionScoreRule(splits=10), kid=KidRule(), neighbours=NeighbourRule(),
    further=FurtherRule(), num_images=50_000,
    notes=("with no extractor named, torch-fidelity takes precision and recall from VGG16 (fc2_relu), not Inception",
           "IS in 10 splits is biased below 50,000 images, where a split has fewer than 5000",
           "FID against the images of the reference, not against stored statistics"))

CLEAN_FID = ScoringProtocol(
    name="clean-fid",
    source="clean-fid 0.1.35, mode clean (Parmar et al. 2022, arXiv 2104.11222)",
    network="clean-fid", feature_layer=POOL, num_features=FRECHET_FEATURES["clean-fid"], reference="images",
    kid=KidRule(), num_images=50_000,
    notes=("Pillow's antialiased bicubic resize: not comparable with ADM's numbers",
           "clean-fid draws its KID subsets from NumPy's unseeded generator, here they are seeded; it shrinks them to "
           "the smaller set, here too small a set is refused",
           "no IS, precision or recall"))

DIGITS = ScoringProtocol(
    name="digits",
    source="this project: torch-fidelity's rules on features of a classifier trained in the DAG",
    network="classifier", feature_layer=FEATURES, logits_layer=LOGITS, reference="images",
    inception_score=InceptionScoreRule(splits=10), kid=KidRule(), neighbours=NeighbourRule(), further=FurtherRule(),
    notes=("not comparable with any ImageNet number",))

FASHION_MNIST = replace(DIGITS, name="fashion-mnist")

FD_DINOV2 = ScoringProtocol(
    name="fd-dinov2",
    source="github.com/layer6ai-labs/dgm-eval: its defaults, DINOv2 ViT-L/14 (Stein et al. 2023, arXiv 2306.04675)",
    network="dinov2", feature_layer=EMBEDDING, num_features=FRECHET_FEATURES["fd-dinov2"], reference="images",
    num_images=50_000, num_reference=50_000,
    notes=("stands as FID in records and tables: the same distance, of the class token of DINOv2",
           "dgm-eval draws 50,000 images of a larger set at random, here all images are taken",
           "an ADM reference batch gives its 10,000 images; its statistics are Inception's"))

CMMD = ScoringProtocol(
    name="cmmd",
    source="cmmd of github.com/google-research/google-research (Jayasumana et al. 2024, arXiv 2401.09603)",
    network="clip", feature_layer=EMBEDDING, num_features=768, reference="images", frechet=False,
    cmmd=EmbeddingRule(),
    notes=("the released code leaves out the images of a last batch that is not full, here all images are taken",
           "its authors' values are of text-to-image models against photographs of COCO",
           "no FID, IS, precision or recall"))

PROTOCOLS = {protocol.name: protocol for protocol in (ADM, TORCH_FIDELITY, CLEAN_FID, DIGITS, FASHION_MNIST,
                                                    ADM_REHEARSAL, FD_DINOV2, CMMD)}

REFERENCE_FILE = "VIRTUAL_imagenet256_labeled.npz (from evaluations/README.md of github.com/openai/guided-diffusion)"


class _Network(NamedTuple):
    """A network that is read from a file: what it is called, which file that is, and what loads it."""

    called: str
    file: str
    load: Callable[..., Extractor]


_NETWORKS = {"torch-fidelity": _Network("Inception", FIDELITY_FILE, FidelityInception),
             "clean-fid": _Network("Inception", CLEAN_FID_FILE, CleanInception),
             "dinov2": _Network("DINOv2", DINOV2_FILE, DinoV2), "clip": _Network("CLIP", CLIP_FILE, Clip)}


def protocol_named(name: str) -> ScoringProtocol:
    """The protocol of that name.

    Raises:
        ProtocolError: there is none.
    """
    if name not in PROTOCOLS:
        raise ProtocolError(f"no protocol {name!r}; there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def open_extractor(protocol: ScoringProtocol, *, weights: Path | None = None, sha256: str | None = None,
                   device: str = "cpu", classifier: Classifier | None = None) -> Extractor:
    """Load the network of a protocol.

    Args:
        weights: file of any network but a classifier.
        sha256: its hash; for an Inception needed if it is not the published file.
        classifier: of a protocol whose network is one.

    Raises:
        ProtocolError: neither file nor classifier where one is needed.
        ExtractorError: a file that cannot be used.
    """
    if protocol.network == "classifier":
        if classifier is None:
            raise ProtocolError(f"protocol {protocol.name} needs a trained classifier")
        return ClassifierExtractor(classifier)
    if weights is None:
        raise ProtocolError(f"protocol {protocol.name}: {_no_weights(protocol)}")
    return _NETWORKS[protocol.network].load(weights, sha256=sha256, device=device)


def check(protocol: ScoringProtocol, samples: ImageSource, reference: Reference,
          weights: Path | None = None) -> tuple[str, ...]:
    """Check that a protocol can be run; nothing is computed and no image is decoded.

    Returns:
        Warnings: what makes the numbers not comparable with published ones, though they can be computed.

    Raises:
        ProtocolError: what is missing or does not fit, all of it in one line.
    """
    problems = [*_weights_problems(protocol, weights), *reference_problems(protocol, reference)]
    try:
        samples.require_complete()
    except ValueError as error:
        problems.append(str(error))
    sets = {"samples": samples} | ({"reference": reference.images} if reference.images else {})
    for name, images in sets.items():
        problems += [f"{rule} needs at least {least} images, the {name} have {len(images)}"
                     for rule, least in _least_images(protocol, name) if len(images) < least]
    if problems:
        raise ProtocolError(f"protocol {protocol.name}: " + "; ".join(problems))
    compared = reference.images if protocol.reference == "images" else None
    return (*samples.warnings, *(compared.remarks if compared else ()),
            *_comparison_warnings(protocol, samples, reference))


def _no_weights(protocol: ScoringProtocol) -> str:
    network = _NETWORKS[protocol.network]
    return f"no file of {network.called} weights was given (--weights); expected {network.file}"


def _weights_problems(protocol: ScoringProtocol, weights: Path | None) -> list[str]:
    if protocol.network == "classifier":
        return []
    if weights is None:
        return [_no_weights(protocol)]
    return [] if weights.is_file() else [f"{weights}: no such file; expected {_NETWORKS[protocol.network].file}"]


def reference_problems(protocol: ScoringProtocol, reference: Reference) -> list[str]:
    """Reasons why a protocol cannot use a reference, each in a line."""
    if protocol.reference == "images":
        return [] if reference.images else [f"{reference.place} has statistics but no images"]
    missing = [name for pair in STATISTICS for name in pair if name not in reference.statistics]
    if "mu" in missing:  # without the others there is a FID at least
        return [f"{reference.place} has no {', '.join(missing)}; the reference is {REFERENCE_FILE}"]
    dimensions = {"mu": protocol.num_features, "mu_s": protocol.num_spatial_features}
    return [f"{reference.place}: {name} has {len(reference.statistics[name])} entries, expected {expected}"
            for name, expected in dimensions.items()
            if name in reference.statistics and len(reference.statistics[name]) != expected]


def _least_images(protocol: ScoringProtocol, role: str) -> Sequence[tuple[str, int]]:
    """Least numbers of images for each score: below them it is undefined, or FID's covariance is rank deficient."""
    least = []
    if protocol.num_compared and (role == "samples" or protocol.reference == "images"):
        least.append((f"FID on {protocol.num_compared} features", protocol.num_compared + 1))
    if protocol.kid:
        least.append(("KID", max(protocol.kid.subset_size, 2)))
    if protocol.neighbours:
        least.append(("precision and recall", protocol.neighbours.k + 1))
    if protocol.cmmd:
        least.append(("CMMD", 2))
    if role == "samples":
        least.append(("a standard deviation", LEAST_IMAGES))
        if protocol.inception_score and protocol.inception_score.splits:
            least.append(("IS", protocol.inception_score.splits))
    return least


def _comparison_warnings(protocol: ScoringProtocol, samples: ImageSource, reference: Reference) -> list[str]:
    found = []
    if protocol.first_features:
        found.append(f"{samples.place}: a rehearsal, on {protocol.first_features} of {protocol.num_features} features: "
                     "its numbers are comparable with nothing")
    if absent := [metric for metric in protocol.metrics if metric not in protocol.metrics_against(reference)]:
        lacking = [what for what, there in (("mu_s and sigma_s", "mu_s" in reference.statistics),
                                            ("images", reference.images)) if not there]
        found.append(f"{reference.place}: has no {' and no '.join(lacking)}, so there is no {', '.join(absent)}")
    if protocol.num_images and len(samples) != protocol.num_images:
        depends = "FID, IS, precision and recall all depend" if protocol.neighbours else "FID depends"
        found.append(f"{samples.place}: {len(samples)} images, published numbers are of {protocol.num_images}; "
                     f"{depends} on how many")
    if reference.images:
        if protocol.num_reference and len(reference.images) != protocol.num_reference:
            scores = "precision and recall" if protocol.neighbours else "numbers"
            found.append(f"{reference.place}: {len(reference.images)} images, published {scores} are against "
                         f"{protocol.num_reference}")
        network = _NETWORKS.get(protocol.network)  # a classifier takes one size alone
        if network and reference.images.side != samples.side:
            found.append(f"{samples.place}: side {samples.side}, the reference has {reference.images.side}; "
                         f"{network.called} resizes both, the numbers are not those of one "
                         "resolution")
    return found
