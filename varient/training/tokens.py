"""Training batches for transformers over tokens: encoded images, labels with label dropout, and the losses.

Images in memory are encoded once.  Images of a folder are augmented and encoded on the fly, or their tokens are read
from a cache (`cache_tokens`); each process reads only the images of its own parts.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import NO_AUGMENTATION, Augmentation, DataConfig, ExperimentConfig
from varient.files import sha256_of
from varient.models.build import load_tokenizer
from varient.models.transformer import VAR
from varient.models.vqvae import VQVAE, from_uint8
from varient.pyramid import Pyramid
from varient.training.augmentation import AugmentedImages, EncodedImages, Preprocessing
from varient.training.data import (
    ImageSource,
    LabeledImages,
    Mix,
    TokenBatch,
    TokensInMemory,
    Visit,
    batch_indices,
    load_images,
)
from varient.training.distributed import Part, check_device, is_main_process
from varient.training.hardware import Hardware
from varient.training.image_folder import FolderSplit, ImageFolder
from varient.training.token_cache import TokenCache, TokenCacheSpec, build_token_cache

log = logging.getLogger(__name__)

_HELD_OUT_AT_ONCE = 64
_IN_MEMORY_AT_ONCE = 512

_WHOLE = Part()


class Batch(NamedTuple):
    """A training batch of a transformer, on its device.

    Attributes:
        label_B: classes, num_classes where the label is dropped, int64.
        x_BLv: the quantizer's `teacher_input` (B, L - tokens of scale 1, v).
        idx_BL: tokens, int64.
        mix: Mixup: second classes (dropped together with the first) and weights of the first; None without Mixup.
    """

    label_B: Tensor
    x_BLv: Tensor
    idx_BL: Tensor
    mix: Mix | None = None

    def first(self, rows: int) -> Batch:
        """The first rows; all if there are fewer."""
        mix = self.mix and Mix(*(tensor[:rows] for tensor in self.mix))
        return Batch(self.label_B[:rows], self.x_BLv[:rows], self.idx_BL[:rows], mix)


class TokenBatches:
    """The training images as tokens, in batches that depend only on the step.

    Attributes:
        per_epoch: number of batches in an epoch, without an incomplete last one.
    """

    def __init__(self, config: ExperimentConfig, tokenizer_path: Path, batch_size: int, seed: int | None = None,
                 cache: Path | None = None) -> None:
        """Encode images in memory, or open an image folder or a token cache.

        The index of the folder and the log of its unreadable images are stored beside the tokenizer.

        Args:
            seed: seed of the order of the images and of their augmentation; default: the experiment's.
            cache: folder made by `cache_tokens`.

        Raises:
            ImageFolderError: the folder does not match the config.
            TokenCacheError: the cache is incomplete, damaged or does not match the images or settings.
            ValueError: a cache is given for data that cannot be cached, the config names no folder, or there are fewer
                images than a batch needs.
        """
        self._tokenizer, self._data = load_tokenizer(config, tokenizer_path), config.data
        self._beside, self._seed = tokenizer_path.parent, config.seed if seed is None else seed
        self._held_out = HeldOutTokens(config, self._tokenizer, self._beside)
        self._batch_size, self._drop_rate = batch_size, config.transformer.cond_drop_rate
        self._images = self._open(config, tokenizer_path, cache)
        self._stream: Iterator[TokenBatch] = iter(())
        self._coming: Iterator[_Turn] = iter(())
        self._present: tuple[_Turn, TokenBatch] | None = None
        self.per_epoch = len(self._images) // batch_size
        if self.per_epoch == 0:
            raise ValueError(f"batch_size = {batch_size} is above the {len(self._images)} images there are")

    def digests(self, held_out: bool = False) -> list[str]:
        """Digests of the images (and, if ``held_out``, validation images); empty if the config determines them."""
        if self._data.in_memory:
            return []
        others = [self._held_out.identity] if held_out else []
        return [self._images.identity, *others]

    def batch(self, step: int, part: Part = _WHOLE) -> Batch:
        """The rows of a part of a training step; by default the whole batch, on the CPU.

        Label dropout is drawn for the whole batch from torch's global generator; `Part.rows` then reseeds it for the
        part.

        Raises:
            ImageFolderError: an image that cannot be read.
            ValueError: the parts would not be equal.
        """
        (dropped_B,) = part.rows(torch.rand(self._batch_size) < self._drop_rate)
        # The encoder must not run under the training's autocast: tokens depend on small differences of distances.
        with torch.autocast(torch.device(part.device).type, enabled=False):
            batch = _complete(self._visited(step, part), self._tokenizer, part.device)
        label_B, mix = torch.where(dropped_B, self._data.num_classes, batch.label_B), batch.mix
        if mix:
            mix = mix._replace(labels=torch.where(dropped_B, self._data.num_classes, mix.labels))
        return batch._replace(label_B=label_B, mix=mix)

    def held_out(self, device: torch.device | str = "cpu") -> Iterator[tuple[Batch, int]]:
        """The held-out images, see `HeldOutTokens.batches`."""
        return self._held_out.batches(device)

    def _open(self, config: ExperimentConfig, tokenizer_path: Path,
              cache: Path | None) -> TokensInMemory | TokenCache | AugmentedImages:
        data, augmentation = config.data, config.data.augmentation or NO_AUGMENTATION
        if cache and not data.cacheable:
            raise ValueError(_no_cache(data))
        if data.in_memory:
            images = load_images(data, "train")
            idx_NL = encode_images(self._tokenizer, images.images)
            x_NLv = self._tokenizer.quantize.teacher_input(idx_NL)
            return TokensInMemory(idx_NL, images.labels, data.num_classes, x_NLv)
        folder = open_folder(data, "train", self._beside)
        if cache:
            return TokenCache(cache, _cache_spec(config, tokenizer_path, folder), flip=augmentation.flip,
                              seed=self._seed, check_hashes=is_main_process())
        return _augmented(data, folder, augmentation, self._seed)

    def _visited(self, step: int, part: Part) -> TokenBatch:
        """The images of a part; asked for again, the same ones without reading them again."""
        wanted = _Turn(step, part.index, part.count)
        if self._present is None or self._present[0] != wanted:
            if next(self._coming, None) != wanted:  # the first request, or not the expected next one
                self._coming = _turns(wanted)
                self._stream = self._on(part.device).batches(map(self._visit, _turns(wanted)))
                next(self._coming)
            self._present = wanted, next(self._stream)
        return self._present[1]

    def _visit(self, turn: _Turn) -> Visit:
        indices = batch_indices(turn.step, num_items=len(self._images), batch_size=self._batch_size, seed=self._seed)
        return Visit(turn.step // self.per_epoch, indices.view(turn.parts, -1)[turn.number])

    def _on(self, device: torch.device | str) -> TokensInMemory | TokenCache | EncodedImages:
        """The images as tokens on ``device``, which is not known before the first batch."""
        if isinstance(self._images, AugmentedImages):
            return _encoded(self._images, self._tokenizer, device)
        return self._images


class HeldOutTokens:
    """Images that no network is trained on, as tokens: the holdout of a set in memory, or a folder's val.

    Args:
        tokenizer: moves to the device of the batches.
        beside: folder of the index of an image folder and of the log of its unreadable images.
        number: how many of them to take; default: all.
    """

    def __init__(self, config: ExperimentConfig, tokenizer: VQVAE, beside: Path, number: int | None = None) -> None:
        self._data, self._seed, self._length = config.data, config.seed, config.pyramid.length
        self._tokenizer, self._beside, self._number = tokenizer, beside, number
        self._tokens: list[tuple[TokenBatch, int]] | None = None

    @property
    def identity(self) -> str:
        """SHA-256 of the images that are taken.

        Raises:
            ImageFolderError: the folder does not match the config.
            ValueError: there are fewer images than are to be taken.
        """
        if self._data.in_memory:
            return self._in_memory().identity
        folder = open_folder(self._data, "val", self._beside)
        if self._number is None:
            return folder.identity
        return hashlib.sha256(f"{folder.identity}:{self._taken(len(folder)).tolist()}".encode()).hexdigest()

    def batches(self, device: torch.device | str = "cpu") -> Iterator[tuple[Batch, int]]:
        """The images in batches, without label dropout; encoded at the first call.  Each process gets its share.

        Each batch comes with the number of its images that count: all, or 0 for a padding batch.  Padding gives all
        processes the same number of batches, because under fsdp they must run the network together.

        Raises:
            ImageFolderError: the folder does not match the config, or an image cannot be read.
            ValueError: there are fewer images than are to be taken.
        """
        if self._tokens is None:
            self._tokens = self._encode(device)
        for batch, images in self._tokens:
            yield _complete(batch, self._tokenizer, device), images

    def _encode(self, device: torch.device | str) -> list[tuple[TokenBatch, int]]:
        rank, processes = _place()
        if self._data.in_memory:
            images = self._in_memory()
            shares = torch.arange(len(images)).split(_IN_MEMORY_AT_ONCE)
            batches = [TokenBatch(encode_images(self._tokenizer.to("cpu"), images.images[own]), images.labels[own])
                       for own in shares[rank::processes]]
        else:
            pixels = _augmented(self._data, open_folder(self._data, "val", self._beside), NO_AUGMENTATION, self._seed)
            shares = self._taken(len(pixels)).split(_HELD_OUT_AT_ONCE)
            visits = (Visit(0, own) for own in shares[rank::processes])
            encoded = _encoded(pixels, self._tokenizer, device).batches(visits)
            batches = [batch._replace(tokens=batch.tokens.cpu()) for batch in encoded]
        one = torch.zeros(1, dtype=torch.int64)
        idle = TokenBatch(one.new_zeros(1, self._length), one), 0
        return [*((batch, len(batch.labels)) for batch in batches),
                *[idle] * (math.ceil(len(shares) / processes) - len(batches))]

    def _in_memory(self) -> LabeledImages:
        images = load_images(self._data, "holdout")
        taken = self._taken(len(images))
        return LabeledImages(images.images[taken], images.labels[taken])

    def _taken(self, there: int) -> Tensor:
        """Indices of the images, evenly spaced: those of a folder are in the order of their classes."""
        number = there if self._number is None else self._number
        if number > there:
            raise ValueError(f"held_out_images = {number} is above the {there} images held out")
        return torch.arange(number) * there // number


def _encoded(pixels: AugmentedImages, tokenizer: VQVAE, device: torch.device | str) -> EncodedImages:
    return EncodedImages(pixels, tokenizer.to(device).encode, device=device,
                         workers=Hardware.from_environment().workers)


def _complete(found: TokenBatch, tokenizer: VQVAE, device: torch.device | str) -> Batch:
    """Add the inputs of the transformer and move everything to its device; labels are not changed."""
    idx_BL, x_BLv = found.tokens.to(device), found.inputs
    x_BLv = tokenizer.to(device).quantize.teacher_input(idx_BL) if x_BLv is None else x_BLv.to(device)
    mix = found.mix and Mix(*(tensor.to(device) for tensor in found.mix))
    return Batch(found.labels.to(device), x_BLv, idx_BL, mix)


class _Turn(NamedTuple):
    """A part of a step; see `Part`."""

    step: int
    number: int
    parts: int


def _turns(first: _Turn) -> Iterator[_Turn]:
    """Infinite iterator over the parts that this process computes in each step, beginning with ``first``."""
    own = first.parts // _place()[1]
    begin = first.number - first.number % own
    for step in count(first.step):
        for index in range(first.number if step == first.step else begin, begin + own):
            yield _Turn(step, index, first.parts)


def _place() -> tuple[int, int]:
    """Rank of this process, and the number of processes."""
    if not torch.distributed.is_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def open_folder(data: DataConfig, split: FolderSplit, beside: Path) -> ImageFolder:
    """Open a split of the experiment's image folder; its index and its log of unreadable images are in ``beside``.

    Raises:
        ImageFolderError: the folder does not match the config.
        ValueError: the config names no folder.
    """
    skip_log = beside / f"unreadable-{split}.jsonl" if data.unreadable == "skip" else None
    return ImageFolder(data.folder, split, num_classes=data.num_classes, index=beside / f"images-{split}.npz",
                       skip_log=skip_log)


def cache_tokens(config: ExperimentConfig, tokenizer_path: Path, output: Path, workers: int = 0) -> None:
    """Encode all training images of a folder into ``output``, or resume an interrupted run, on VARIENT_DEVICE.

    Args:
        workers: number of worker processes that read images; 0: none.

    Raises:
        ImageFolderError: the folder does not match the config, or an image cannot be read.
        TokenCacheError: ``output`` contains other tokens or other files.
        ValueError: the tokens of the data cannot be cached, or there is no such device.
    """
    if not config.data.cacheable:
        raise ValueError(_no_cache(config.data))
    device = Hardware.from_environment().device
    check_device(device)
    if device == "cpu" and torch.cuda.is_available():
        log.warning("the tokenizer runs on the CPU although there is a GPU; VARIENT_DEVICE=cuda takes it")
    folder = open_folder(config.data, "train", tokenizer_path.parent)
    tokenizer = load_tokenizer(config, tokenizer_path).to(device)
    build_token_cache(output, folder, _cache_spec(config, tokenizer_path, folder), tokenizer.encode, device=device,
                      workers=workers)


def _no_cache(data: DataConfig) -> str:
    if data.in_memory:
        return f"{data.source} are encoded when a training starts: they need no token cache"
    return ("data.augmentation changes images in more ways than a cache of their tokens can hold, which is made for "
            "random_crop: false, randaugment: null, mixup: 0 and any flip")


def _cache_spec(config: ExperimentConfig, tokenizer_path: Path, folder: ImageFolder) -> TokenCacheSpec:
    return TokenCacheSpec(
        tokenizer_sha256=sha256_of(tokenizer_path), images_sha256=folder.identity,
        preprocessing=_preprocessing(config.data), flipped=(config.data.augmentation or NO_AUGMENTATION).flip > 0,
        num_images=len(folder), num_classes=config.data.num_classes, tokens_per_image=config.pyramid.length,
        vocab_size=config.tokenizer.model.vocab_size)


def _preprocessing(data: DataConfig) -> Preprocessing:
    return Preprocessing(image_size=data.image_size, resize=data.resize)


def _augmented(data: DataConfig, source: ImageSource, augmentation: Augmentation, seed: int) -> AugmentedImages:
    return AugmentedImages(source, _preprocessing(data), augmentation, num_classes=data.num_classes, seed=seed)


def mixed_classes(model: VAR, label_B: Tensor, mix: Mix | None) -> Tensor | None:
    """Class vectors (B, C) of mixed images, w emb(a) + (1 - w) emb(b); None without Mixup."""
    if mix is None:
        return None
    weight_B1 = mix.weight.unsqueeze(1)
    return weight_B1 * model.condition(label_B) + (1 - weight_B1) * model.condition(mix.labels)


def token_loss(logits_BLV: Tensor, idx_BL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy averaged over images and tokens: Eq. 4 with VAR's uniform weight 1/L for each token."""
    return F.cross_entropy(logits_BLV.flatten(0, 1), idx_BL.flatten(), label_smoothing=label_smoothing)


def losses_of_tokens(logits_BLV: Tensor, idx_BL: Tensor) -> Tensor:
    """Cross-entropy of each token (B, L), in nats."""
    return F.cross_entropy(logits_BLV.flatten(0, 1), idx_BL.flatten(), reduction="none").view_as(idx_BL)


def scale_losses(logits_BLV: Tensor, idx_BL: Tensor, pyramid: Pyramid) -> dict[int, Tensor]:
    """Mean cross-entropy of each scale 1..K."""
    loss_BL = losses_of_tokens(logits_BLV, idx_BL)
    return {k: loss_BL[:, pyramid.begin(k):pyramid.end(k)].mean() for k in pyramid.scales}


def prediction_divergence(wanted_BLV: Tensor, given_BLV: Tensor) -> Tensor:
    """KL(wanted || given) of two predictions, averaged over images and tokens."""
    wanted_BLV, given_BLV = wanted_BLV.log_softmax(-1), given_BLV.log_softmax(-1)
    return F.kl_div(given_BLV.flatten(0, 1), wanted_BLV.flatten(0, 1), log_target=True, reduction="batchmean")


def drop_labels(label_B: Tensor, rate: float, num_classes: int) -> Tensor:
    """Label dropout: replace labels by "no class" with probability ``rate``, as needed for classifier-free guidance."""
    return torch.where(torch.rand(label_B.shape) < rate, num_classes, label_B)


@torch.no_grad()
def encode_images(tokenizer: VQVAE, image_N3SS: Tensor, batch_size: int = 256) -> Tensor:
    """Tokens (N, L) of uint8 images."""
    batches = math.ceil(len(image_N3SS) / batch_size)
    return torch.cat([tokenizer.encode(from_uint8(part)) for part in image_N3SS.chunk(batches)])
