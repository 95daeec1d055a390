"""Augmentation and encoding of training images on the fly: VAR's resize and crop, flip, RandAugment, Mixup.

The paper names RandAugment and Mixup (Table 6) but does not say how they apply to discrete token targets.  Here pixels
are augmented before the tokenizer, and Mixup uses the same weight for pixels and class embeddings.  Order: resize, crop
(both as in VAR, FoundationVision/VAR at 78b9539, utils/data.py), flip, RandAugment, Mixup.

The result depends on (seed, epoch, image index) only.  torchvision uses torch's global generator, which is therefore
seeded for each image and restored afterwards.  This is safe in worker processes, but not in several threads.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
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

_SHARED_MEMORY = Path("/dev/shm")
_READ_AHEAD = 2
"""Batches that each worker process has ready."""

Encode = Callable[[Tensor], Tensor]
"""Images (B, 3, S, S), float32 in [-1, 1] -> tokens (B, L), int64."""


class Preprocessing(Strict):
    """Resizing of the shorter side to round(resize * image_size) pixels (LANCZOS), and the size of the square crop."""

    image_size: Positive = Field(description="side of the crop in pixels")
    resize: float = Field(1.125, ge=1, description="VAR's mid_reso; 1: no margin for the crop")


class RandomNumbers(NamedTuple):
    """The random numbers of one image in one epoch.

    Attributes:
        torch_seed: 32-bit seed (the limit of torch's CPU generator) for torchvision's transforms.
        flip: uniform in [0, 1); the image is flipped if this is below the flip probability.
        weight: Mixup weight of the image itself, 0..1.
    """

    torch_seed: int
    flip: float
    weight: float


def random_numbers(seed: int, epoch: int, index: int, mixup: float = 0) -> RandomNumbers:
    """The random numbers of image ``index`` in ``epoch``; flip and torch_seed do not depend on ``mixup``."""
    generator = np.random.default_rng((seed, epoch, index))
    return RandomNumbers(int(generator.integers(2 ** 32)), generator.random(),
                         generator.beta(mixup, mixup) if mixup else 1.0)


def augment(image_3HW: Tensor, preprocessing: Preprocessing, augmentation: Augmentation,
            numbers: RandomNumbers) -> Tensor:
    """Augment one image (3, H, W), uint8, except for Mixup; returns (3, S, S), uint8.

    The state of torch's global generator is restored.
    """
    size = preprocessing.image_size
    image = F.to_pil_image(image_3HW)  # torchvision has LANCZOS for PIL images only
    image = F.resize(image, [round(preprocessing.resize * size)], interpolation=InterpolationMode.LANCZOS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(numbers.torch_seed)  # torch.manual_seed would seed the GPU as well
        image = v2.RandomCrop(size)(image) if augmentation.random_crop else F.center_crop(image, [size, size])
        if numbers.flip < augmentation.flip:
            image = F.horizontal_flip(image)
        if augmentation.randaugment:
            image = v2.RandAugment(augmentation.randaugment.num_ops, augmentation.randaugment.magnitude)(image)
    return F.pil_to_tensor(image)


class PixelBatch(NamedTuple):
    """The images of a batch before Mixup, which is applied on the device that encodes them.

    Attributes:
        images: (B + E, 3, S, S), uint8: the B images of the batch, then Mixup partners that are not among them.
        labels: (B,), int64.
        partners: (B,), int64, row in ``images`` of each image's Mixup partner; None without Mixup.
        mix: labels of the partners and weights of the first images; None without Mixup.
    """

    images: Tensor
    labels: Tensor
    partners: Tensor | None
    mix: Mix | None

    def mixed(self, device: torch.device | str = "cpu") -> Tensor:
        """The images after Mixup (B, 3, S, S), float32 in [-1, 1], on ``device``."""
        pixels = from_uint8(self.images.to(device, non_blocking=True))
        first = pixels[:len(self.labels)]
        if self.mix is None or self.partners is None:
            return first
        weight = self.mix.weight.to(device).view(-1, 1, 1, 1)
        return weight * first + (1 - weight) * pixels[self.partners.to(device)]


class AugmentedImages:
    """The images of a source, augmented anew in each epoch.

    The Mixup partner of an image is the next one in the epoch's order.  It is uniformly distributed over the data, but
    nearly all partners are in the same batch, so that they are not read twice.

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
        return augment(self.source.load(index), self.preprocessing, self.augmentation,
                       random_numbers(self.seed, epoch, index))

    def pixels(self, visit: Visit) -> PixelBatch:
        """The images of a visit."""
        epoch, chosen, labels = visit.epoch, visit.indices.tolist(), self.labels[visit.indices]
        if not self.augmentation.mixup:
            return PixelBatch(self._stack(chosen, epoch), labels, None, None)
        partners = successors(visit.indices, epoch, num_items=len(self), seed=self.seed)
        here = set(chosen)
        extra = [index for index in dict.fromkeys(partners.tolist()) if index not in here]
        row_of = {index: row for row, index in enumerate([*chosen, *extra])}
        weight = [random_numbers(self.seed, epoch, index, self.augmentation.mixup).weight for index in chosen]
        return PixelBatch(self._stack([*chosen, *extra], epoch), labels,
                          torch.tensor([row_of[index] for index in partners.tolist()]),
                          Mix(self.labels[partners], torch.tensor(weight, dtype=torch.float32)))

    def batches(self, visits: Iterable[Visit], workers: int = 0) -> Iterator[PixelBatch]:
        """The images of each visit, in order.

        Args:
            visits: may be infinite; with workers it is read ahead.
            workers: number of worker processes, each of which prepares whole batches; 0: none.  The result is the same.

        Raises:
            ValueError: the source cannot read an image.
            OSError: no room in /dev/shm, through which the worker processes pass their batches.
        """
        visits = iter(visits)
        if workers and (first := next(visits, None)) is not None:
            side = self.preprocessing.image_size
            _check_shared_memory(workers, len(first.indices) * 3 * side * side)
            visits = chain([first], visits)
        # A separate generator, because DataLoader takes the workers' seed from the global one, which the step uses.
        loader = DataLoader(_Visited(self), sampler=visits, batch_size=None, collate_fn=_as_it_is, num_workers=workers,
                            prefetch_factor=_READ_AHEAD if workers else None, generator=torch.Generator())
        for batch in loader:
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _stack(self, indices: Iterable[int], epoch: int) -> Tensor:
        return torch.stack([self.image(index, epoch) for index in indices])


class EncodedImages:
    """`TrainingImages` that are augmented and encoded on the fly.

    Args:
        encode: the tokenizer's encoder, on ``device``.
        device: device of Mixup and encoding, and of the resulting tokens.
        workers: number of worker processes that read and augment images.
        at_once: number of images per pass through the tokenizer.
    """

    def __init__(self, pixels: AugmentedImages, encode: Encode, *, device: torch.device | str = "cpu",
                 workers: int = 0, at_once: int = 16) -> None:
        self.pixels, self.labels, self.num_classes = pixels, pixels.labels, pixels.num_classes
        self._encode, self._device, self._workers, self._at_once = encode, device, workers, at_once

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def identity(self) -> str:
        """Identity of the images; the identity of a training contains the tokenizer separately."""
        return self.pixels.identity

    def batches(self, visits: Iterable[Visit]) -> Iterator[TokenBatch]:
        """A batch for each visit; tokens are on the device, labels and weights are not."""
        for batch in self.pixels.batches(visits, self._workers):
            yield TokenBatch(encode_in_parts(self._encode, batch.mixed(self._device), self._at_once), batch.labels,
                             batch.mix)


@torch.no_grad()
def encode_in_parts(encode: Encode, image_B3SS: Tensor, at_once: int) -> Tensor:
    """Encode images (B, 3, S, S), float32 in [-1, 1], to tokens (B, L), ``at_once`` at a time to limit memory."""
    return torch.cat([encode(part) for part in image_B3SS.split(at_once)])


class _Visited(Dataset):
    """Dataset whose keys are visits, so that the workers of a DataLoader prepare whole batches.

    Errors are returned instead of raised, because DataLoader would wrap the message in tracebacks.
    """

    def __init__(self, images: AugmentedImages) -> None:
        self._images = images

    def __getitem__(self, visit: Visit) -> PixelBatch | ValueError:
        try:
            return self._images.pixels(visit)
        except ValueError as error:
            return error


def _check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Raise OSError where the batches that this process's workers read ahead do not fit into /dev/shm, through which
    they pass them: a worker without room stops without a word.  Other processes need as much again."""
    needed = _READ_AHEAD * workers * batch_bytes
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.exists() else needed
    if free < needed:
        raise OSError(f"{_SHARED_MEMORY} has {free / 2 ** 20:.0f} MiB free, and {workers} processes that read images "
                      f"pass {needed / 2 ** 20:.0f} MiB through it; enlarge it (Docker: shm-size) or lower "
                      "VARIENT_WORKERS")


def _as_it_is(batch: PixelBatch | ValueError) -> PixelBatch | ValueError:
    return batch
