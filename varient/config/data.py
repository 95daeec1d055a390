"""Settings of the real images: which, and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from varient.config.kinds import Count, Positive, Real, Sha256, Share, Strict, UserPath, Weight, Whole


@dataclass(frozen=True)
class ImageSet:
    """Images of one source, all in memory: their side in pixels, and how many are divided."""

    side: int
    num_classes: int
    count: int


IN_MEMORY = {"digits": ImageSet(8, 10, 1797), "fashion-mnist": ImageSet(28, 10, 60_000)}
"""scikit-learn's digits; Fashion-MNIST's training images, beside which there is a test set."""


class RandAugment(Strict):
    """RandAugment of torchvision: its set of operations, black where nothing is left, nearest neighbour."""

    num_ops: Annotated[Positive, Field(le=100)] = 2
    magnitude: Annotated[Whole, Field(ge=0, le=30)] = Field(9, description="of torchvision's 31 steps, 0..30")


class Augmentation(Strict):
    """Random changes of the training images, each a switch; the defaults are the paper's (Table 6) and VAR's crop."""

    random_crop: bool = Field(True, description="VAR's; false: the centre")
    flip: Share = Field(0.5, description="probability of a mirror image")
    randaugment: RandAugment | None = RandAugment()
    mixup: Weight = Field(0.2, description="alpha; the first image weighs Beta(alpha, alpha); 0: no mixing")

    @property
    def cacheable(self) -> bool:
        """Whether an image and its mirror image are all there is, so that their tokens can be kept."""
        return not (self.random_crop or self.randaugment or self.mixup)


NO_AUGMENTATION = Augmentation(random_crop=False, flip=0, randaugment=None, mixup=0)


FashionFile = Literal["train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                      "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
Split = Literal["train", "holdout", "test"]
"""What networks learn from; what is held out of the same images; a test set of its own."""


class DataConfig(Strict):
    """What images to learn from, and what is done to those of a folder before the tokenizer sees them."""

    source: Literal["digits", "fashion-mnist", "imagenet"] = Field(
        description="scikit-learn's bundled digits, a folder of Fashion-MNIST's files, or an ImageNet folder")
    image_size: Annotated[Positive, Field(le=2 ** 14)] = Field(description="side in pixels")
    num_classes: Positive
    holdout: Count = Field(0, description="images kept from training (digits, fashion-mnist), split off with the same "
                                          "class shares")
    root: UserPath | None = Field(None, description="folder with train/<class>/<image>, and val/ (imagenet), or with "
                                                    "the four IDX files (fashion-mnist)")
    checksums: dict[FashionFile, Sha256] = Field({}, description="of unpacked files that are not the published ones "
                                                                 "(fashion-mnist)")
    resize: Real = Field(1.125, ge=1, le=100, description="shorter side before the crop, in image_size (imagenet)")
    augmentation: Augmentation | None = Field(None, description="random changes of training images (imagenet); {} is "
                                                                "the paper's, null none")
    unreadable: Literal["error", "skip"] = Field("error", description="what an unreadable image is; skip puts another "
                                                                      "of its class in its place (imagenet)")

    @property
    def folder(self) -> Path:
        """Where the images lie.

        Raises:
            ValueError: the config does not say.
        """
        if self.root is None:
            raise ValueError("data.root is missing: " + (
                "the folder with Fashion-MNIST's four IDX files" if self.source == "fashion-mnist" else
                "the ImageNet folder to train on"))
        return self.root

    @property
    def in_memory(self) -> bool:
        """Whether all images are kept in memory and their real ones in archives; a folder's are read one by one."""
        return self.source != "imagenet"

    @property
    def splits(self) -> tuple[Split, ...]:
        """Of images in memory."""
        return ("train", "holdout", "test") if self.source == "fashion-mnist" else ("train", "holdout")

    @property
    def reference_split(self) -> Split:
        """Real images that generated ones are compared with.

        Those held out, where they are many enough, so that a copy of a training image gains nothing; of digits there
        are too few.
        """
        return "holdout" if self.source == "fashion-mnist" else "train"

    @property
    def floor_split(self) -> Split:
        """Real images that are scored as if they were generated: what a perfect generator would get."""
        return "test" if self.source == "fashion-mnist" else "holdout"

    @property
    def cacheable(self) -> bool:
        """Whether the tokens of these images can be made once and kept in a cache."""
        return self.source == "imagenet" and (self.augmentation or NO_AUGMENTATION).cacheable

    @model_validator(mode="after")
    def _settings_are_of_the_source(self) -> DataConfig:
        for source, settings in _SETTINGS_OF_SOURCES.items():
            if self.source != source and (useless := sorted(self.model_fields_set & settings)):
                raise ValueError(f"{', '.join(useless)}: for {source} only, {self.source} are used as they are")
        if images := IN_MEMORY.get(self.source):
            if (self.image_size, self.num_classes) != (images.side, images.num_classes):
                raise ValueError(f"{self.source} are {images.side} x {images.side} in {images.num_classes} classes; "
                                 f"data says image_size = {self.image_size}, num_classes = {self.num_classes}")
            if not images.num_classes <= self.holdout <= images.count - images.num_classes:
                raise ValueError(f"holdout = {self.holdout} must leave each class on each side, of {images.count} "
                                 f"images of {self.source}")
        return self

    @property
    def num_training(self) -> int | None:
        """Images to learn from; None where files say how many."""
        images = None if self.checksums else IN_MEMORY.get(self.source)
        return images.count - self.holdout if images else None

    @model_serializer(mode="wrap")
    def _without_settings_of_no_effect(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a source does not have is no part of its digest either."""
        others = {name for source, settings in _SETTINGS_OF_SOURCES.items() if source != self.source
                  for name in settings}
        return {name: value for name, value in serialize(self).items() if name not in others}


_SETTINGS_OF_SOURCES = {"imagenet": {"resize", "augmentation", "unreadable"}, "fashion-mnist": {"checksums"}}
