"""Training of the multi-scale VQVAE on small images, with reconstruction and codebook loss and no adversarial loss."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import ExperimentConfig
from varient.models.build import build_tokenizer
from varient.models.checkpoint import save_weights
from varient.models.vqvae import VQVAE, from_uint8
from varient.training.data import batch_indices, load_images
from varient.training.loop import fit


def train_tokenizer(config: ExperimentConfig, output: Path) -> None:
    """Train on the experiment's images and write the weights to ``output``.

    Raises:
        ValueError: the config imports the tokenizer.
    """
    settings = config.tokenizer.training
    if settings is None:
        raise ValueError(f"{config.name}: the tokenizer is read from {config.tokenizer.weights}, no training starts")
    images = from_uint8(load_images(config.data, "train").images)
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer(config)

    def batch(step: int) -> Tensor:
        return images[batch_indices(step, num_items=len(images), batch_size=settings.batch_size, seed=config.seed)]

    def restart_codes(step: int) -> None:
        if step % settings.restart_every == 0 and step <= settings.steps // 2:
            restart_unused_codes(tokenizer, images[torch.randperm(len(images))[:512]])

    def loss_of_step(step: int) -> Tensor:
        image_B3SS = batch(step)
        reconstruction, quantizer_loss = tokenizer(image_B3SS)
        return F.mse_loss(reconstruction, image_B3SS) + quantizer_loss

    identity = config.digest("data", "patch_nums", "tokenizer")

    def finish(losses: list[float]) -> None:
        save_weights(output, tokenizer, {"kind": "tokenizer", "settings": identity, "final_loss": losses[-1]})

    fit(tokenizer, loss_of_step, steps=settings.steps, settings=settings, seed=config.seed,
        work_dir=output.parent / "training-tokenizer", identity=identity, title="tokenizer", before_step=restart_codes,
        output=output, finish=finish)


@torch.no_grad()
def restart_unused_codes(tokenizer: VQVAE, image_B3SS: Tensor) -> int:
    """Replace codes that no image uses by residuals of the images; return the number of replaced codes.

    At the first step this initialises the codebook from data.
    """
    quantizer = tokenizer.quantize
    rest_BCHW = tokenizer.encode_latent(image_B3SS)
    used_V = torch.zeros(len(quantizer.embedding.weight), dtype=torch.bool)
    residuals = []
    for k in quantizer.pyramid.scales:
        residuals.append(F.adaptive_avg_pool2d(rest_BCHW, quantizer.pyramid.side(k)).permute(0, 2, 3, 1).flatten(0, 2))
        idx_Bl, h_BCpp = quantizer.quantize_residual(k, rest_BCHW)
        used_V[idx_Bl] = True
        rest_BCHW = rest_BCHW - quantizer.detail(k, h_BCpp)
    pool_NC = torch.cat(residuals)
    unused = (~used_V).nonzero().squeeze(1)
    quantizer.embedding.weight[unused] = pool_NC[torch.randperm(len(pool_NC))[:len(unused)]]
    return len(unused)
