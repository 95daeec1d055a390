"""Settings of sampling, evaluation and profiling."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from varient.config.kinds import (
    BatchSize,
    Count,
    Extended,
    Positive,
    Precision,
    Sha256,
    Share,
    Strict,
    UserFile,
    Weight,
)
from varient.config.training import ClassifierTraining


class SamplingConfig(Strict):
    """Sampling protocol (paper, Sec. 4.1; the paper does not print the guidance scale, so VAR's is used)."""

    num_images: Positive
    shards: Annotated[Positive, Field(le=1000)]  # their paths are one command line
    batch_size: BatchSize
    cfg: Weight = Field(1.5, description="guidance scale at the last scale; it grows linearly from 0 at the first")
    top_k: Count = Field(900, description="0 keeps all")
    top_p: Share = Field(0.96, description="0 keeps all")
    decoded_at_once: BatchSize = Field(16, description="images per pass through the image decoder")
    precision: Precision = Field("fp32", description="of weights and matrix products")

    def of_images(self) -> dict[str, Any]:
        """The settings that determine the images, JSON-serializable; the others only divide the work.

        An image depends on its seed, index and label.  Other images in the batch change only rounding.  In the decoder
        that is at most one level of a pixel, and in float32 it rarely changes a token, no more often than another
        machine does.  In 16-bit precision rounding changes tokens of many images, so there the batch size counts, and
        the number of shards, because the last batch of a shard may be smaller.
        """
        only_divides = {"decoded_at_once"}
        if self.precision == "fp32":
            only_divides |= {"batch_size", "shards"}
        return self.model_dump(mode="json", exclude=only_divides)

    def plain(self) -> SamplingConfig:
        """The same without guidance and filters: draws from the network's own distribution."""
        return self.model_copy(update={"cfg": 0.0, "top_k": 0, "top_p": 0.0})

    @property
    def image_sections(self) -> tuple[str, ...]:
        """The names of these settings, for `ExperimentConfig.digest`."""
        return tuple(f"sampling.{name}" for name in self.of_images())


PROFILED = ("sampling.cfg", "sampling.top_k", "sampling.top_p", "sampling.decoded_at_once", "profiling")
"""Settings that latency and memory depend on; a profile has its own batch size and precision."""

FRECHET_FEATURES = {"adm": 2048, "torch-fidelity": 2048, "clean-fid": 2048, "adm-rehearsal": 8, "fd-dinov2": 1024}
"""Features that FID compares, by protocol whose network is read from a file; their covariance takes one image more.
CMMD takes no covariance.  A rehearsal takes the first features of Inception, so that the whole path can be tried with a
few images; what comes of it is marked and means nothing."""
REHEARSAL = "adm-rehearsal"


class EvaluationConfig(Extended):
    """Settings of the scores and of the networks that they need (docs/protocol.md)."""

    LATER: ClassVar[frozenset[str]] = frozenset({"halves"})

    protocol: Literal["digits", "fashion-mnist", "adm", "torch-fidelity", "clean-fid", "adm-rehearsal", "fd-dinov2",
                      "cmmd"] = Field("digits", description="adm-rehearsal: adm's path on 8 of the features, for few "
                                                            "images; marked in all tables")
    classifier: ClassifierTraining | None = Field(None, description="digits, fashion-mnist: trained here")
    inception_weights: UserFile | None = Field(None, description="weights of Inception, for fd-dinov2 of DINOv2, for "
                                                                 "cmmd of CLIP")
    weights_sha256: Sha256 | None = Field(None, description="SHA-256 of inception_weights, unless published; "
                                                            "clean-fid's are a program that will run")
    reference: UserFile | None = Field(None, description="reference images or statistics; default for digits: the "
                                                         "training images, for fashion-mnist: the holdout")
    kid_subset_size: Annotated[Positive, Field(ge=2)] = Field(1000, description="digits, fashion-mnist")
    neighborhood: Positive = Field(3, description="k of precision and recall (digits, fashion-mnist)")
    fid_infinity: bool = Field(True, description="extrapolate FID to infinitely many images")
    halves: Annotated[Count, Field(le=100)] = Field(0, description="FID also against so many random halves of the "
                                                                   "training images, each on features learned from the "
                                                                   "other half (digits, fashion-mnist)")

    @property
    def trains_its_network(self) -> bool:
        """Whether features come from a classifier trained on the experiment's images, not from a file."""
        return self.protocol in ("digits", "fashion-mnist")

    @property
    def half_roles(self) -> tuple[str, ...]:
        """Roles of the classifiers that learn from one half of the training images."""
        return tuple(f"half{number}" for number in range(1, self.halves + 1))

    @property
    def num_features(self) -> int | None:
        """Numbers of an image that FID compares; None where the protocol has no FID."""
        if self.trains_its_network:
            return self.classifier_training.feature_dim
        return FRECHET_FEATURES.get(self.protocol)

    @property
    def classifier_training(self) -> ClassifierTraining:
        """The training of those classifiers.

        Raises:
            ValueError: the protocol takes its features from a network in a file.
        """
        if self.classifier is None:
            raise ValueError(f"protocol {self.protocol} uses no trained classifier: 'evaluation.classifier' is not set")
        return self.classifier

    @model_validator(mode="after")
    def _networks_named(self) -> EvaluationConfig:
        needed = ("classifier",) if self.trains_its_network else ("inception_weights", "reference")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"protocol {self.protocol} needs '{name}'")
        if self.halves and not self.trains_its_network:
            raise ValueError(f"halves = {self.halves}: protocol {self.protocol} takes its features from a network "
                             "in a file, and trains no classifier on a half")
        return self


class ProfilingConfig(Strict):
    """Settings of latency and memory measurements; `varient profile` may override batch size, precision and cache."""

    batch_size: BatchSize = 64
    precision: Precision = Field("fp32", description="dtype of the transformer's weights")
    cache_policy: Literal["lean", "reference"] = Field("lean", description="reference: the cache of the released code")
    threads: Annotated[Positive, Field(le=1024)] = Field(1, description="CPU threads")
    warmup: Annotated[Count, Field(le=10 ** 6)] = 2
    repeats: Annotated[Positive, Field(le=10 ** 6)] = 10
