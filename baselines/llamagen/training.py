"""Training of LlamaGen's tokenizer and transformer on small images, from scratch."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.baselines.llamagen.build import build_tokenizer, build_transformer, load_tokenizer
from varient.baselines.llamagen.settings import Settings
from varient.baselines.llamagen.tokenizer import Tokenizer
from varient.baselines.llamagen.transformer import initialize
from varient.config import ExperimentConfig
from varient.files import sha256_of
from varient.models.checkpoint import save_weights
from varient.models.vqvae import from_uint8
from varient.training.data import batch_indices, load_images
from varient.training.loop import fit
from varient.training.tokens import drop_labels, encode_images, token_loss


def train_tokenizer(config: ExperimentConfig, settings: Settings, output: Path) -> None:
    """Train on the experiment's images, for reconstruction without an adversary, and write the weights."""
    training = settings.tokenizer.training
    assert training is not None  # settings without one name weights, and `import_tokenizer` reads them
    images = from_uint8(load_images(config.data, "train").images)
    torch.manual_seed(config.seed)
    tokenizer = build_tokenizer(settings)

    def restart_codes(step: int) -> None:
        if step % training.restart_every == 0 and step <= training.steps // 2:
            restart_unused_codes(tokenizer, images[torch.randperm(len(images))[:512]])

    def loss_of_step(step: int) -> Tensor:
        chosen = batch_indices(step, num_items=len(images), batch_size=training.batch_size, seed=config.seed)
        reconstruction, codebook_loss = tokenizer(images[chosen])
        return F.mse_loss(reconstruction, images[chosen]) + codebook_loss

    identity = config.digest("data") + settings.tokenizer.model_dump_json()

    def finish(losses: list[float]) -> None:
        save_weights(output, tokenizer, {"kind": "llamagen-tokenizer", "settings": identity, "final_loss": losses[-1]})

    fit(tokenizer, loss_of_step, steps=training.steps, settings=training, seed=config.seed,
        work_dir=output.parent / f"training-{output.stem}", identity=identity, title="LlamaGen tokenizer",
        before_step=restart_codes, output=output, finish=finish)


@torch.no_grad()
def restart_unused_codes(tokenizer: Tokenizer, image_B3SS: Tensor) -> int:
    """Replace codes that no image uses by latents of the images; return the number of replaced codes.

    At the first step this initialises the codebook from data.
    """
    latent_Bcss = tokenizer.encode_latent(image_B3SS)
    code_Vc = tokenizer.quantize.embedding.weight
    used_V = torch.zeros(len(code_Vc), dtype=torch.bool)
    used_V[tokenizer.quantize.nearest(latent_Bcss)] = True
    pool_Nc = F.normalize(latent_Bcss, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
    unused = (~used_V).nonzero().squeeze(1)[:len(pool_Nc)]
    code_Vc[unused] = pool_Nc[torch.randperm(len(pool_Nc))[:len(unused)]]
    return len(unused)


def train_transformer(config: ExperimentConfig, settings: Settings, tokenizer_path: Path, output: Path) -> None:
    """Train on the tokens of the experiment's images, teacher-forced, and write the weights."""
    training, shape = settings.transformer.training, settings.transformer.model
    assert training is not None  # settings without one name weights, and `import_transformer` reads them
    data = load_images(config.data, "train")
    idx_NL = encode_images(load_tokenizer(settings, tokenizer_path), data.images)
    torch.manual_seed(config.seed)
    model = build_transformer(config, settings)
    initialize(model)

    def loss_of_step(step: int) -> Tensor:
        chosen = batch_indices(step, num_items=len(data), batch_size=training.batch_size, seed=config.seed)
        label_B = drop_labels(data.labels[chosen], shape.class_drop_rate, config.data.num_classes)
        return token_loss(model(label_B, idx_NL[chosen]), idx_NL[chosen])

    identity = ":".join([config.digest("data") + settings.transformer.model_dump_json(), sha256_of(tokenizer_path)])

    def finish(losses: list[float]) -> None:
        save_weights(output, model, {"kind": "llamagen", "settings": identity, "final_loss": losses[-1]})

    fit(model, loss_of_step, steps=training.epochs * (len(data) // training.batch_size), settings=training,
        seed=config.seed, work_dir=output.parent / f"training-{output.stem}", identity=identity, title="LlamaGen",
        output=output, finish=finish)
