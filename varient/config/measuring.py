"""Settings of what is made of trained networks: images, scores, latency and memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from varient.config.kinds import Batch, Count, Positive, Precision, Sha256, Share, Strict, UserFile, Weight
from varient.config.training import ClassifierTraining


class SamplingConfig(Strict):
    """Generation protocol (paper, Sec. 4.1; guidance is VAR's own, the paper does not print it)."""

    num_images: Positive
    shards: Annotated[Positive, Field(le=100_000)]
    batch_size: Batch
    cfg: Weight = Field(1.5, description="guidance at the last scale, ramped linearly from 0 at the first")
    top_k: Count = Field(900, description="0 keeps all")
    top_p: Share = Field(0.96, description="0 keeps all")
    decoded_at_once: Batch = Field(16, description="images in the decoder together")
    precision: Precision = Field("fp32", description="of weights and matrix products")

    def of_images(self) -> dict[str, Any]:
        """The settings that decide what the images are, JSON-able; the others only divide the work.

        An image is a function of its seed, index and label; what it is computed together with moves roundings at most.
        In the decoder they are a pixel's last step.  In the transformer a token can hang on them: in 16 bits those of
        many images do, so there the size of a batch counts, and the number of shards, whose last batches are smaller.
        In float32 hardly any does, no more than on another machine.
        """
        only_divides = {"decoded_at_once"}
        if self.precision == "fp32":
            only_divides |= {"batch_size", "shards"}
        return self.model_dump(mode="json", exclude=only_divides)

    @property
    def image_sections(self) -> tuple[str, ...]:
        """The same settings by name, for `ExperimentConfig.digest`."""
        return tuple(f"sampling.{name}" for name in self.of_images())


PROFILED = ("sampling.cfg", "sampling.top_k", "sampling.top_p", "sampling.decoded_at_once", "profiling")
"""Settings that latency and memory depend on; batch and precision are a profile's own."""

INCEPTION_FEATURES = {"adm": 2048, "torch-fidelity": 2048, "clean-fid": 2048, "adm-rehearsal": 8}
"""Features of Inception that FID compares, by protocol; their covariance takes one image more.  A rehearsal takes the
first of them, so that the whole path can be tried with a few images; what comes of it is marked and means nothing."""
REHEARSAL = "adm-rehearsal"


class EvaluationConfig(Strict):
    """Scores and the networks that they need (docs/protocol.md)."""

    protocol: Literal["digits", "fashion-mnist", "adm", "torch-fidelity", "clean-fid", "adm-rehearsal"] = Field(
        "digits", description="adm-rehearsal: adm's path on 8 of the features, for few images; marked in all tables")
    classifier: ClassifierTraining | None = Field(None, description="digits, fashion-mnist: trained here")
    inception_weights: UserFile | None = Field(None, description="file of the other protocols' Inception")
    weights_sha256: Sha256 | None = Field(None, description="of that file, where it is not the published one")
    reference: UserFile | None = Field(None, description="what samples are compared with; digits: the training images, "
                                                         "fashion-mnist: those held out")
    kid_subset_size: Annotated[Positive, Field(ge=2)] = Field(1000, description="digits, fashion-mnist")
    neighborhood: Positive = Field(3, description="digits, fashion-mnist: k of precision and recall")
    fid_infinity: bool = Field(True, description="extrapolate FID to infinitely many images")

    @property
    def trains_its_network(self) -> bool:
        """Whether features come from a classifier of the experiment's own images, not from Inception."""
        return self.protocol in ("digits", "fashion-mnist")

    @property
    def num_features(self) -> int:
        """Numbers of an image that FID compares."""
        if self.trains_its_network:
            return self.classifier_training.feature_dim
        return INCEPTION_FEATURES[self.protocol]

    @property
    def classifier_training(self) -> ClassifierTraining:
        """The training of those classifiers.

        Raises:
            ValueError: the protocol takes its features from Inception.
        """
        if self.classifier is None:
            raise ValueError(f"protocol {self.protocol} trains no classifier: there is no 'evaluation.classifier'")
        return self.classifier

    @model_validator(mode="after")
    def _networks_named(self) -> EvaluationConfig:
        needed = ("classifier",) if self.trains_its_network else ("inception_weights", "reference")
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"protocol {self.protocol} needs '{name}'")
        return self


class ProfilingConfig(Strict):
    """Measurement of latency and memory; the command line may ask for another batch, precision or cache."""

    batch_size: Batch = 64
    precision: Precision = Field("fp32", description="of the transformer's weights")
    cache_policy: Literal["lean", "reference"] = Field("lean", description="reference is the released code's")
    threads: Annotated[Positive, Field(le=1024)] = Field(1, description="CPU threads")
    warmup: Annotated[Count, Field(le=10 ** 6)] = 2
    repeats: Annotated[Positive, Field(le=10 ** 6)] = 10
