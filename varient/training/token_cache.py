"""Token cache: tokens of a data set, encoded once for many trainings whose only augmentation is the horizontal flip.

A cache is a folder with ``manifest.json``, ``labels.npy`` (N,), int64, and shards ``tokens-00000.npy`` (n, V, L),
uint16, where V is the number of variants of an image: itself and, optionally, its mirror image.  The manifest contains
the provenance of the tokens and the hash of each file.  It is written after every shard, so that a killed build is
resumed at the unfinished shard and gives the same bytes.

The format is the project's own because its arrays are memory-mapped and read in any order; formats of data set
libraries are streamed or copied, and do not check hashes of what they map.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from varient.config import MOST_CACHED_CODES, NO_AUGMENTATION, Positive, Strict
from varient.files import atomic_path, only_writer, remove_unfinished, sha256_of, write_text
from varient.json_file import read_model
from varient.npz import SampleError, mapped_array
from varient.training.augmentation import AugmentedImages, Encode, Preprocessing, encode_in_parts, random_numbers
from varient.training.data import ImageSource, Skip, TokenBatch, Visit, check_labels

_MANIFEST, _LABELS = "manifest.json", "labels.npy"


class TokenCacheError(ValueError):
    """A cache is missing, incomplete, damaged or does not match the data; the message names what differs."""


class TokenCacheSpec(Strict):
    """Everything that the tokens of a cache depend on."""

    format: Literal["varient tokens 1"] = "varient tokens 1"
    tokenizer_sha256: str = Field(description="of the weight file")
    images_sha256: str = Field(description="identity of the image source")
    preprocessing: Preprocessing = Field(description="with a centre crop")
    flipped: bool = Field(description="mirror images are there too")
    num_images: Positive
    num_classes: Positive
    tokens_per_image: Positive = Field(description="L")
    vocab_size: Annotated[int, Field(ge=1, le=MOST_CACHED_CODES)] = Field(description="tokens are 0..vocab_size-1")
    shard_size: Positive = Field(8192, description="images in a shard; the last has what is left")

    @property
    def num_shards(self) -> int:
        """Shards of a finished cache."""
        return -(-self.num_images // self.shard_size)

    @property
    def variants(self) -> int:
        """V: 1, or 2 with mirror images."""
        return 1 + self.flipped

    def images_of(self, shard: int) -> range:
        """Indices of the images in a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.num_images))


class _Manifest(Strict):
    spec: TokenCacheSpec
    labels_sha256: str
    shards_sha256: tuple[str, ...] = Field((), description="the shards made so far")
    skips: tuple[Skip, ...] = Field((), description="unreadable images met so far")

    @property
    def finished(self) -> bool:
        return len(self.shards_sha256) == self.spec.num_shards


def build_token_cache(folder: Path, source: ImageSource, spec: TokenCacheSpec, encode: Encode, *,
                      device: torch.device | str = "cpu", workers: int = 0, at_once: int = 16) -> None:
    """Encode all images of ``source`` into ``folder``, or resume an interrupted build.

    Args:
        encode: the encoder of the tokenizer whose weight file ``spec`` names, on ``device``.
        workers: number of worker processes that read images; 0: none.
        at_once: number of images per pass through the tokenizer.

    Raises:
        TokenCacheError: the folder holds another cache or is being written by another process; ``spec`` does not
            describe ``source``; or the tokenizer gives tokens that ``spec`` does not allow.
        ValueError: a label out of range.
        OutputError: the disk is full.
    """
    pixels = AugmentedImages(source, spec.preprocessing, NO_AUGMENTATION, num_classes=spec.num_classes, seed=0)
    if len(source) != spec.num_images or source.identity != spec.images_sha256:
        raise TokenCacheError(f"{folder}: these are not the {spec.num_images} images that the cache is to be made of")
    with only_writer(folder, lambda holder: TokenCacheError(f"{folder}: another process is writing this cache: "
                                                             f"{holder}")):
        manifest = _resumable(folder, spec, pixels.labels)
        missing = range(len(manifest.shards_sha256), spec.num_shards)
        parts = [part for shard in missing for part in torch.tensor(spec.images_of(shard)).split(at_once)]
        encoded = (_variants(batch.mixed(device), spec, encode)
                   for batch in pixels.batches((Visit(0, part) for part in parts), workers))
        with tqdm(total=spec.num_images, initial=missing.start * spec.shard_size,
                  desc=f"tokens on {device}", mininterval=2) as progress:
            for shard in missing:
                tokens = np.empty((len(spec.images_of(shard)), spec.variants, spec.tokens_per_image), np.uint16)
                for first in range(0, len(tokens), at_once):
                    part = next(encoded)
                    tokens[first:first + at_once] = part
                    progress.update(len(part))
                manifest = manifest.model_copy(update={
                    "shards_sha256": (*manifest.shards_sha256, _save(folder / _shard_name(shard), tokens)),
                    "skips": tuple(sorted({*manifest.skips, *source.skips}))})
                _write_manifest(folder, manifest)


class TokenCache:
    """`TrainingImages` that are read from a finished cache on disk."""

    def __init__(self, folder: Path, spec: TokenCacheSpec, *, flip: float = 0.0, seed: int = 0,
                 check_hashes: bool = True) -> None:
        """Open a finished cache that matches ``spec`` (except for the shard size).

        Args:
            flip: probability of the mirror image, with the same random numbers as `varient.training.augmentation`.
            seed: seed of these random numbers.
            check_hashes: verify the hash of every file; one of several processes is enough.  All check the sizes.

        Raises:
            TokenCacheError: there is no cache, or it is incomplete, damaged or does not match.
            ValueError: ``flip`` > 0, but the cache has no mirror images.
        """
        manifest = _read_manifest(folder)
        _check_spec(folder, manifest.spec, spec.model_copy(update={"shard_size": manifest.spec.shard_size}))
        self.spec = manifest.spec
        if not manifest.finished:
            raise TokenCacheError(f"{folder}: {len(manifest.shards_sha256)} of {self.spec.num_shards} shards are "
                                  "there; the command that makes the cache goes on with the rest")
        if flip and not self.spec.flipped:
            raise ValueError(f"{folder} has no mirror images, which flip = {flip} needs")
        if check_hashes:
            for name, expected in _hashes(manifest).items():
                _check_hash(folder / name, expected)
        self.labels = torch.from_numpy(_open(folder / _LABELS, (self.spec.num_images,), np.int64).copy())
        check_labels(self.labels, self.spec.num_classes, str(folder))
        self._shards = [_open(folder / _shard_name(shard), _shard_shape(self.spec, shard), np.uint16)
                        for shard in range(self.spec.num_shards)]
        self.skips, self._manifest, self._flip, self._seed = manifest.skips, manifest, float(flip), seed

    def __len__(self) -> int:
        return self.spec.num_images

    @property
    def num_classes(self) -> int:
        """Labels are 0..num_classes-1."""
        return self.spec.num_classes

    @property
    def identity(self) -> str:
        """SHA-256 of the manifest, the probability of a flip and the seed."""
        settings = [self._manifest.model_dump_json(), self._flip, self._seed]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def tokens(self, indices: Tensor, flipped: Tensor) -> Tensor:
        """Tokens (B, L), int64, of images (B,) by index, of the mirror image where ``flipped`` (B,), bool.

        Raises:
            IndexError: no such image.
        """
        index_B, variant_B = indices.numpy(), flipped.numpy().astype(np.int64)
        if len(index_B) and not 0 <= index_B.min() <= index_B.max() < len(self):
            raise IndexError(f"images {index_B.min()}..{index_B.max()} are not all in 0..{len(self) - 1}")
        shard_B, row_B = np.divmod(index_B, self.spec.shard_size)
        tokens_BL = np.empty((len(index_B), self.spec.tokens_per_image), np.int64)
        for shard in np.unique(shard_B):
            here = shard_B == shard
            tokens_BL[here] = self._shards[shard][row_B[here], variant_B[here]]
        return torch.from_numpy(tokens_BL)

    def batches(self, visits: Iterable[Visit]) -> Iterator[TokenBatch]:
        """A batch for each visit."""
        for visit in visits:
            flipped = torch.tensor([random_numbers(self._seed, visit.epoch, int(index)).flip < self._flip
                                    for index in visit.indices] if self._flip else [False] * len(visit.indices))
            yield TokenBatch(self.tokens(visit.indices, flipped), self.labels[visit.indices], None)


def _variants(image_B3SS: Tensor, spec: TokenCacheSpec, encode: Encode) -> np.ndarray:
    """Tokens (B, V, L), uint16, of images and of their mirror images."""
    images = [image_B3SS, image_B3SS.flip(-1)][:spec.variants]
    tokens_BVL = torch.stack([encode_in_parts(encode, image, len(image)) for image in images], dim=1).cpu()
    if tokens_BVL.shape[2] != spec.tokens_per_image or not 0 <= tokens_BVL.min() <= tokens_BVL.max() < spec.vocab_size:
        raise TokenCacheError(f"the tokenizer gives {tokens_BVL.shape[2]} tokens in {int(tokens_BVL.min())}.."
                              f"{int(tokens_BVL.max())} for an image; the cache is for {spec.tokens_per_image} in "
                              f"0..{spec.vocab_size - 1}")
    return tokens_BVL.numpy().astype(np.uint16)


def _resumable(folder: Path, spec: TokenCacheSpec, labels: Tensor) -> _Manifest:
    """The manifest of an interrupted build, after verifying its shards and removing other partial files."""
    if (folder / _MANIFEST).exists():
        manifest = _read_manifest(folder)
        _check_spec(folder, manifest.spec, spec)
        whole = 0
        for shard, expected in enumerate(manifest.shards_sha256):
            if not _has_hash(folder / _shard_name(shard), expected):
                break
            whole += 1
        if whole < len(manifest.shards_sha256):
            manifest = manifest.model_copy(update={"shards_sha256": manifest.shards_sha256[:whole]})
        if not _has_hash(folder / _LABELS, manifest.labels_sha256):
            _save(folder / _LABELS, labels.numpy())
    else:
        others = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
        if others not in ([], [_LABELS]):  # a build may have been killed before its first manifest
            raise TokenCacheError(f"{folder} is no token cache, but holds {', '.join(others[:6])}")
        manifest = _Manifest(spec=spec, labels_sha256=_save(folder / _LABELS, labels.numpy()))
    _write_manifest(folder, manifest)
    remove_unfinished(folder)
    return manifest


def _check_spec(folder: Path, found: TokenCacheSpec, expected: TokenCacheSpec) -> None:
    ours, theirs = expected.model_dump(), found.model_dump()
    differing = [f"{name} is {theirs[name]}, expected {ours[name]}" for name in ours if ours[name] != theirs[name]]
    if differing:
        raise TokenCacheError(f"{folder} holds other tokens: {'; '.join(differing)}")


def _read_manifest(folder: Path) -> _Manifest:
    path = folder / _MANIFEST
    try:
        return read_model(path, _Manifest, TokenCacheError, "the manifest of a token cache")
    except FileNotFoundError:
        raise TokenCacheError(f"{path}: no such token cache") from None


def _write_manifest(folder: Path, manifest: _Manifest) -> None:
    write_text(folder / _MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def _shard_name(shard: int) -> str:
    return f"tokens-{shard:05}.npy"


def _shard_shape(spec: TokenCacheSpec, shard: int) -> tuple[int, int, int]:
    return len(spec.images_of(shard)), spec.variants, spec.tokens_per_image


def _hashes(manifest: _Manifest) -> dict[str, str]:
    return {_LABELS: manifest.labels_sha256} | {_shard_name(shard): expected for shard, expected
                                                in enumerate(manifest.shards_sha256)}


def _save(path: Path, array: np.ndarray) -> str:
    """Write atomically; return the hash of the file."""
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, array)
        digest = sha256_of(temporary)
    return digest


def _has_hash(path: Path, expected: str) -> bool:
    return path.exists() and sha256_of(path) == expected


def _check_hash(path: Path, expected: str) -> None:
    if not _has_hash(path, expected):
        raise TokenCacheError(f"{path}: missing or damaged; the command that makes the cache makes it again")


def _open(path: Path, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """A file of the cache, mapped and not read."""
    try:
        array = mapped_array(path)
    except SampleError as error:
        raise TokenCacheError(f"{path}: missing or damaged ({str(error).removeprefix(f'{path}: ')}); the command that "
                              "makes the cache makes it again") from None
    if array.shape != shape or array.dtype != dtype:
        raise TokenCacheError(f"{path}: {array.dtype} {array.shape}, expected {np.dtype(dtype)} {shape}")
    return array
