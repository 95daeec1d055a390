"""Settings of the real images: their source, splits and augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from varient.config.kinds import Count, Positive, Real, Sha256, Share, Strict, UserPath, Weight, Whole
from varient.image_tree import MOST_SIDE


@dataclass(frozen=True)
class ImageSet:
    """A data set that is kept in memory.

    Attributes:
        side: height and width in pixels.
        num_classes: number of classes.
        count: number of images that are divided into train and holdout.
    """

    side: int
    num_classes: int
    count: int


IN_MEMORY = {"digits": ImageSet(8, 10, 1797), "fashion-mnist": ImageSet(28, 10, 60_000)}
"""scikit-learn's digits, and Fashion-MNIST's training images (its test set is not counted)."""


MOST_CACHED_CODES = 2 ** 16
"""Limit of the codebook whose tokens can be cached: they are stored as uint16."""


class RandAugment(Strict):
    """Settings of torchvision's RandAugment, with its default operations, black fill and nearest-neighbour sampling."""

    num_ops: Annotated[Positive, Field(le=100)] = 2
    magnitude: Annotated[Whole, Field(ge=0, le=30)] = Field(9, description="magnitude on torchvision's scale of 0..30")


class Augmentation(Strict):
    """Augmentation of the training images; the defaults are the paper's (Table 6), with VAR's random crop."""

    random_crop: bool = Field(True, description="random crop as in VAR; false: centre crop")
    flip: Share = Field(0.5, description="probability of a horizontal flip")
    randaugment: RandAugment | None = RandAugment()
    mixup: Weight = Field(0.2, description="alpha of Mixup: the first image has weight Beta(alpha, alpha); 0: no Mixup")

    @property
    def cacheable(self) -> bool:
        """Whether an image has at most two variants (itself and its mirror image), so that tokens can be cached."""
        return not (self.random_crop or self.randaugment or self.mixup)


NO_AUGMENTATION = Augmentation(random_crop=False, flip=0, randaugment=None, mixup=0)


FashionFile = Literal["train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                      "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
Split = Literal["train", "holdout", "test"]
"""train: images that networks learn from; holdout: further images of the same set; test: a separate test set."""


class DataConfig(Strict):
    """The real images, and how those of an image folder are preprocessed and augmented for the tokenizer."""

    source: Literal["digits", "fashion-mnist", "imagenet"] = Field(
        description="scikit-learn's bundled digits, a folder of Fashion-MNIST's files, or an ImageNet folder")
    image_size: Annotated[Positive, Field(le=MOST_SIDE)] = Field(description="side in pixels")
    num_classes: Positive
    holdout: Count = Field(0, description="number of images not used for training (digits, fashion-mnist); a "
                                          "stratified split")
    root: UserPath | None = Field(None, description="folder with train/<class>/<image>, and val/ (imagenet), or with "
                                                    "the four IDX files (fashion-mnist)")
    checksums: dict[FashionFile, Sha256] = Field({}, description="SHA-256 of unpacked files that are not the "
                                                                 "published ones (fashion-mnist)")
    resize: Real = Field(1.125, ge=1, le=100, description="shorter side before the crop, as a multiple of image_size "
                                                             "(imagenet)")
    augmentation: Augmentation | None = Field(None, description="augmentation of training images (imagenet); {}: the "
                                                                "paper's, null: none")
    unreadable: Literal["error", "skip"] = Field("error", description="what to do with an unreadable image; skip: "
                                                                      "another of its class replaces it (imagenet)")

    @property
    def folder(self) -> Path:
        """Folder of the images.

        Raises:
            ValueError: the config does not name it.
        """
        if self.root is None:
            raise ValueError("data.root is missing: " + (
                "the folder with Fashion-MNIST's four IDX files" if self.source == "fashion-mnist" else
                "the ImageNet folder to train on"))
        return self.root

    @property
    def in_memory(self) -> bool:
        """Whether all images are loaded into memory (and archived for scoring); otherwise they are read one by one."""
        return self.source != "imagenet"

    def require_in_memory(self, section: str) -> None:
        """Check that the images can be in memory, for a section of the config whose network is trained that way.

        Raises:
            ValueError: they are read one by one.
        """
        if not self.in_memory:
            raise ValueError(f"{section}: this network is trained on images in memory, and those of data.source = "
                             f"{self.source!r} are read one by one: name the file of a trained one")

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits of a data set that is kept in memory."""
        return ("train", "holdout", "test") if self.source == "fashion-mnist" else ("train", "holdout")

    @property
    def reference_split(self) -> Split:
        """Split of the real images that generated ones are compared with.

        The holdout, so that memorised training images are not rewarded; for digits the holdout is too small.
        """
        return "holdout" if self.source == "fashion-mnist" else "train"

    @property
    def floor_split(self) -> Split:
        """Split of the real images that are scored as if they were generated: the score of a perfect generator."""
        return "test" if self.source == "fashion-mnist" else "holdout"

    @property
    def cacheable(self) -> bool:
        """Whether the tokens of these images can be encoded once and cached."""
        return self.source == "imagenet" and (self.augmentation or NO_AUGMENTATION).cacheable

    @model_validator(mode="after")
    def _settings_are_of_the_source(self) -> DataConfig:
        for source, settings in _SETTINGS_OF_SOURCES.items():
            if self.source != source and (useless := sorted(self.model_fields_set & settings)):
                raise ValueError(f"{', '.join(useless)}: for {source} only; data.source is {self.source}")
        if images := IN_MEMORY.get(self.source):
            if (self.image_size, self.num_classes) != (images.side, images.num_classes):
                raise ValueError(f"{self.source} are {images.side} x {images.side} in {images.num_classes} classes; "
                                 f"data says image_size = {self.image_size}, num_classes = {self.num_classes}")
            if not images.num_classes <= self.holdout <= images.count - images.num_classes:
                raise ValueError(f"holdout = {self.holdout} of the {images.count} images of {self.source} must leave "
                                 "every class in both splits")
        return self

    @property
    def num_training(self) -> int | None:
        """Number of training images; None if it depends on the user's files."""
        images = None if self.checksums else IN_MEMORY.get(self.source)
        return images.count - self.holdout if images else None

    @model_serializer(mode="wrap")
    def _without_settings_of_no_effect(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit settings that do not apply to the source, so that they do not change the digest."""
        others = {name for source, settings in _SETTINGS_OF_SOURCES.items() if source != self.source
                  for name in settings}
        return {name: value for name, value in serialize(self).items() if name not in others}


_SETTINGS_OF_SOURCES = {"imagenet": {"resize", "augmentation", "unreadable"}, "fashion-mnist": {"checksums"}}
