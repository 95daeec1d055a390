"""Training pixels on the fly: VAR's resize and crop, flip, RandAugment, Mixup, and their encoding.

The paper names RandAugment and Mixup (Table 6) but not what they mean for a target of discrete tokens.  Our reading:
pixels are augmented before the tokenizer, and mixed with the same weight as the class embeddings.  Order: resize, crop
(both as in VAR, FoundationVision/VAR at 78b9539, utils/data.py), flip, RandAugment, Mixup.

What becomes of an image depends on (seed, epoch, its index) alone.  torchvision draws from torch's global generator,
which is therefore set for each image and restored after it; threads of one process must not do this at once, worker
processes may.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from varient.config import Augmentation, Positive, Strict
from varient.models.vqvae import from_uint8
from varient.training.data import ImageSource, Mix, TokenBatch, Visit, check_labels, successors

Encode = Callable[[Tensor], Tensor]
"""Images (B, 3, S, S), float32 in [-1, 1] -> tokens (B, L), int64."""


class Preprocessing(Strict):
    """How an image of any size becomes a square: the shorter side to round(resize * image_size), LANCZOS; a crop."""

    image_size: Positive = Field(description="side of the crop in pixels")
    resize: float = Field(1.125, ge=1, description="VAR's mid_reso; 1 keeps images that have the size already")


class Draws(NamedTuple):
    """The random numbers of one image in one epoch.

    Attributes:
        torch_seed: 32 bits (torch's CPU generator takes no more), for what torchvision draws.
        flip: uniform in [0, 1); the image is mirrored where this is below the probability.
        weight: of the image itself in its mixture, 0..1.
    """

    torch_seed: int
    flip: float
    weight: float


def draw(seed: int, epoch: int, index: int, mixup: float = 0) -> Draws:
    """The draws of image ``index`` in ``epoch``; flip and torch_seed are the same whatever ``mixup``."""
    generator = np.random.default_rng((seed, epoch, index))
    return Draws(int(generator.integers(2 ** 32)), generator.random(),
                 generator.beta(mixup, mixup) if mixup else 1.0)


def augment(image_3HW: Tensor, preprocessing: Preprocessing, augmentation: Augmentation, draws: Draws) -> Tensor:
    """One image (3, H, W), uint8, as the network sees it before mixing (3, S, S), uint8.

    torch's global generator is left as it was.
    """
    size = preprocessing.image_size
    image = F.to_pil_image(image_3HW)  # torchvision has LANCZOS for PIL images only
    image = F.resize(image, [round(preprocessing.resize * size)], interpolation=InterpolationMode.LANCZOS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(draws.torch_seed)  # torch.manual_seed would seed the GPU as well
        image = v2.RandomCrop(size)(image) if augmentation.random_crop else F.center_crop(image, [size, size])
        if draws.flip < augmentation.flip:
            image = F.horizontal_flip(image)
        if augmentation.randaugment:
            image = v2.RandAugment(augmentation.randaugment.num_ops, augmentation.randaugment.magnitude)(image)
    return F.pil_to_tensor(image)


class PixelBatch(NamedTuple):
    """The images of a visit before mixing, which is left to the device that encodes them.

    Attributes:
        images: (B + E, 3, S, S), uint8: the B of the visit, then those that are mixed in and are not among them.
        labels: (B,), int64.
        partners: (B,), int64, rows of ``images`` that are mixed in, or None.
        mix: their labels, and the weights of the first images, or None.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor | None
    mix: Mix | None

    def mixed(self, device: torch.device | str = "cpu") -> Tensor:
        """The images that the tokenizer sees (B, 3, S, S), float32 in [-1, 1]."""
        pixels = from_uint8(self.images.to(device, non_blocking=True))
        first = pixels[:len(self.labels)]
        if self.mix is None or self.partners is None:
            return first
        weight = self.mix.weight.to(device).view(-1, 1, 1, 1)
        return weight * first + (1 - weight) * pixels[self.partners.to(device)]


class AugmentedImages:
    """The images of a source, augmented anew in each epoch.

    An image is mixed with the one that the epoch visits after it: uniform over the data like any random partner, yet
    all but one of a batch are read only once.

    Raises:
        ValueError: a label out of range.
    """

    def __init__(self, source: ImageSource, preprocessing: Preprocessing, augmentation: Augmentation, *,
                 num_classes: int, seed: int) -> None:
        self.source, self.labels, self.num_classes = source, source.labels, num_classes
        self.preprocessing, self.augmentation, self.seed = preprocessing, augmentation, seed
        check_labels(self.labels, num_classes, "images to train on")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def identity(self) -> str:
        """SHA-256 of the source, the settings and the seed."""
        settings = [self.source.identity, self.preprocessing.model_dump(), self.augmentation.model_dump(), self.seed]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def image(self, index: int, epoch: int) -> Tensor:
        """Image ``index`` as it is in ``epoch``, before mixing (3, S, S), uint8."""
        return augment(self.source.load(index), self.preprocessing, self.augmentation, draw(self.seed, epoch, index))

    def pixels(self, visit: Visit) -> PixelBatch:
        """The images of a visit."""
        epoch, chosen, labels = visit.epoch, visit.indices.tolist(), self.labels[visit.indices]
        if not self.augmentation.mixup:
            return PixelBatch(self._stack(chosen, epoch), labels, None, None)
        partners = successors(visit.indices, epoch, num_items=len(self), seed=self.seed)
        here = set(chosen)
        extra = [index for index in dict.fromkeys(partners.tolist()) if index not in here]
        row_of = {index: row for row, index in enumerate([*chosen, *extra])}
        weight = [draw(self.seed, epoch, index, self.augmentation.mixup).weight for index in chosen]
        return PixelBatch(self._stack([*chosen, *extra], epoch), labels,
                          torch.tensor([row_of[index] for index in partners.tolist()]),
                          Mix(self.labels[partners], torch.tensor(weight, dtype=torch.float32)))

    def batches(self, visits: Iterable[Visit], workers: int = 0) -> Iterator[PixelBatch]:
        """The images of each visit, in order.

        Args:
            visits: may be endless; with workers it is read ahead.
            workers: processes that prepare a batch each; 0 works here.  They change nothing but the time.

        Raises:
            ValueError: what the source says of an image that it cannot read.
        """
        # The loader draws a seed for its workers, by default from the global generator, whose draws belong to the step.
        loader = DataLoader(_Visited(self), sampler=visits, batch_size=None, collate_fn=_as_it_is, num_workers=workers,
                            generator=torch.Generator())
        for batch in loader:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _stack(self, indices: Iterable[int], epoch: int) -> Tensor:
        return torch.stack([self.image(index, epoch) for index in indices])


class EncodedImages:
    """Augmented images, encoded when they are visited: `TrainingImages` of which nothing can be kept.

    Args:
        encode: the tokenizer, on ``device``.
        device: where images are mixed and encoded; tokens stay there.
        workers: processes that read and augment.
        at_once: images in the tokenizer together.
    """

    def __init__(self, pixels: AugmentedImages, encode: Encode, *, device: torch.device | str = "cpu",
                 workers: int = 0, at_once: int = 16) -> None:
        self.pixels, self.labels, self.num_classes = pixels, pixels.labels, pixels.num_classes
        self._encode, self._device, self._workers, self._at_once = encode, device, workers, at_once

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def identity(self) -> str:
        """That of the pixels; the tokenizer is a part of the run's own."""
        return self.pixels.identity

    def batches(self, visits: Iterable[Visit]) -> Iterator[TokenBatch]:
        """A batch for each visit; tokens are on the device, labels and weights are not."""
        for batch in self.pixels.batches(visits, self._workers):
            yield TokenBatch(encode_in_parts(self._encode, batch.mixed(self._device), self._at_once), batch.labels,
                             batch.mix)


@torch.no_grad()
def encode_in_parts(encode: Encode, image_B3SS: Tensor, at_once: int) -> Tensor:
    """Tokens (B, L) of images (B, 3, S, S), float32 in [-1, 1], ``at_once`` together: an encoder's memory is large."""
    return torch.cat([encode(part) for part in image_B3SS.split(at_once)])


class _Visited(Dataset):
    """Visits as the keys of a loader, whose workers so prepare whole batches.

    What is wrong with an image is returned and not raised: a loader would bury the message under tracebacks.
    """

    def __init__(self, images: AugmentedImages) -> None:
        self._images = images

    def __getitem__(self, visit: Visit) -> PixelBatch | ValueError:
        try:
            return self._images.pixels(visit)
        except ValueError as error:
            return error


def _as_it_is(batch: PixelBatch | ValueError) -> PixelBatch | ValueError:
    return batch
