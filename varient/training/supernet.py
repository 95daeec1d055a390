"""Training of the VAR transformer on tokens: the full network from nothing, then supernets from the full network.

Both are one loop; a schedule says how often the subnet takes the place of the full network (Algorithm 1).
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import ExperimentConfig, Optimizer
from varient.files import sha256_of
from varient.models.build import build_transformer, load_tokenizer
from varient.models.checkpoint import load_weights, save_weights
from varient.models.transformer import VAR, initialize
from varient.models.vqvae import VQVAE, from_uint8
from varient.plan import DepthPlan
from varient.training.data import batch_indices, load_images
from varient.training.loop import fit
from varient.training.schedule import FullNetworkSchedule, ProgressiveSchedule, Schedule


def train_base(config: ExperimentConfig, tokenizer: Path, output: Path) -> None:
    """Train the full network from nothing."""
    settings = config.base.training
    torch.manual_seed(config.seed)
    model = build_transformer(config)
    initialize(model)
    identity = ":".join([config.digest("data", "patch_nums", "tokenizer", "transformer", "base"), sha256_of(tokenizer)])
    losses = _train(model, config, tokenizer, settings, FullNetworkSchedule(settings.epochs), subnet=None,
                    batches_per_epoch=None, identity=identity, work_dir=output.parent / "training-base", title="base")
    save_weights(output, model, {"kind": "base", "settings": identity, "final_loss": losses[-1]})


def train_supernet(config: ExperimentConfig, subnet_depth: int, tokenizer: Path, base: Path, output: Path) -> None:
    """Fine-tune the full network together with its subnet of depth d in three phases (Sec. 3.3).

    Raises:
        ValueError: a depth without phases in the config.
        CheckpointError: a base checkpoint of another shape.
    """
    if subnet_depth not in config.supernet.phases:
        raise ValueError(f"supernet.phases has no entry for depth {subnet_depth}")
    settings = config.supernet.training
    model = build_transformer(config)
    load_weights(base, model)
    identity = ":".join([config.digest("data", "patch_nums", "tokenizer", "transformer", "base", "supernet"),
                         f"d{subnet_depth}", sha256_of(tokenizer), sha256_of(base)])
    losses = _train(model, config, tokenizer, settings, ProgressiveSchedule(config.supernet.phases[subnet_depth]),
                    subnet=config.plan(subnet_depth), batches_per_epoch=settings.batches_per_epoch, identity=identity,
                    work_dir=output.parent / f"training-supernet-d{subnet_depth}", title=f"supernet d{subnet_depth}")
    save_weights(output, model, {"kind": "supernet", "settings": identity, "subnet_depth": subnet_depth,
                                 "final_loss": losses[-1]})


def token_loss(logits_BLV: Tensor, idx_BL: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy averaged over images and tokens: Eq. 4 with VAR's uniform weight 1/L for each token."""
    return F.cross_entropy(logits_BLV.flatten(0, 1), idx_BL.flatten(), label_smoothing=label_smoothing)


def _train(model: VAR, config: ExperimentConfig, tokenizer_path: Path, settings: Optimizer, schedule: Schedule, *,
           subnet: DepthPlan | None, batches_per_epoch: int | None, identity: str, work_dir: Path,
           title: str) -> list[float]:
    """Teacher-forced training; each batch runs the subnet's plan with the probability of its epoch, else all layers."""
    tokenizer = load_tokenizer(config, tokenizer_path)
    data = load_images(config.data, "train")
    idx_NL = encode_images(tokenizer, data.images)
    x_NLv = tokenizer.quantize.teacher_input(idx_NL)
    full = config.plan()
    per_epoch = batches_per_epoch or len(data) // settings.batch_size

    def loss_of_step(step: int) -> Tensor:
        use_subnet = torch.rand(()).item() < schedule.subnet_probability(step // per_epoch + 1)
        chosen = batch_indices(step, num_items=len(data), batch_size=settings.batch_size, seed=config.seed)
        label_B = drop_labels(data.labels[chosen], config.transformer.cond_drop_rate, config.data.num_classes)
        return token_loss(model(label_B, x_NLv[chosen], subnet if use_subnet else full), idx_NL[chosen])

    return fit(model, loss_of_step, steps=schedule.epochs * per_epoch, settings=settings, seed=config.seed,
               work_dir=work_dir, identity=identity, title=title)


def drop_labels(label_B: Tensor, rate: float, num_classes: int) -> Tensor:
    """Labels with a share replaced by the "no class" row, which guidance needs trained."""
    return torch.where(torch.rand(label_B.shape) < rate, num_classes, label_B)


@torch.no_grad()
def encode_images(tokenizer: VQVAE, image_N3SS: Tensor, batch_size: int = 256) -> Tensor:
    """Tokens (N, L) of uint8 images."""
    batches = math.ceil(len(image_N3SS) / batch_size)
    return torch.cat([tokenizer.encode(from_uint8(part)) for part in image_N3SS.chunk(batches)])
