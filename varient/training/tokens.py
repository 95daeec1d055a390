"""What transformers over tokens learn from: encoded images, labels with some left out, and the loss."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import ExperimentConfig
from varient.models.build import load_tokenizer
from varient.models.vqvae import VQVAE, from_uint8
from varient.training.data import LabeledImages, batch_indices, load_images


class TokenBatches:
    """The training images as tokens, encoded once, in batches that are a function of the step alone."""

    def __init__(self, config: ExperimentConfig, tokenizer_path: Path, batch_size: int,
                 seed: int | None = None) -> None:
        """Encode the images; ``seed`` of their order is by default the experiment's."""
        self._tokenizer, self._data = load_tokenizer(config, tokenizer_path), config.data
        data = load_images(config.data, "train")
        self._label_N, self._x_NLv, self._idx_NL = self._encoded(data)
        self._batch_size, self._seed = batch_size, config.seed if seed is None else seed
        self._drop_rate, self._num_classes = config.transformer.cond_drop_rate, config.data.num_classes
        self.per_epoch = len(data) // batch_size

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (B,), transformer inputs (B, L - tokens of scale 1, v) and tokens (B, L) of a training step.

        Which labels are dropped is drawn from torch's global generator.
        """
        chosen = batch_indices(step, num_items=len(self._label_N), batch_size=self._batch_size, seed=self._seed)
        label_B = drop_labels(self._label_N[chosen], self._drop_rate, self._num_classes)
        return label_B, self._x_NLv[chosen], self._idx_NL[chosen]

    @cached_property
    def holdout(self) -> tuple[Tensor, Tensor, Tensor]:
        """Labels (N,), transformer inputs and tokens of the images that are not trained on."""
        return self._encoded(load_images(self._data, "holdout"))

    def _encoded(self, images: LabeledImages) -> tuple[Tensor, Tensor, Tensor]:
        idx_NL = encode_images(self._tokenizer, images.images)
        return images.labels, self._tokenizer.quantize.teacher_input(idx_NL), idx_NL


def token_loss(logits_BLV: Tensor, idx_BL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy averaged over images and tokens: Eq. 4 with VAR's uniform weight 1/L for each token."""
    return F.cross_entropy(logits_BLV.flatten(0, 1), idx_BL.flatten(), label_smoothing=label_smoothing)


def prediction_divergence(wanted_BLV: Tensor, given_BLV: Tensor) -> Tensor:
    """KL(wanted || given) of two predictions, averaged over images and tokens."""
    wanted_BLV, given_BLV = wanted_BLV.log_softmax(-1), given_BLV.log_softmax(-1)
    return F.kl_div(given_BLV.flatten(0, 1), wanted_BLV.flatten(0, 1), log_target=True, reduction="batchmean")


def drop_labels(label_B: Tensor, rate: float, num_classes: int) -> Tensor:
    """Labels with a share replaced by the "no class" row, which guidance needs trained."""
    return torch.where(torch.rand(label_B.shape) < rate, num_classes, label_B)


@torch.no_grad()
def encode_images(tokenizer: VQVAE, image_N3SS: Tensor, batch_size: int = 256) -> Tensor:
    """Tokens (N, L) of uint8 images."""
    batches = math.ceil(len(image_N3SS) / batch_size)
    return torch.cat([tokenizer.encode(from_uint8(part)) for part in image_N3SS.chunk(batches)])
