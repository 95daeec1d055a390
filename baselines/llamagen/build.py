"""LlamaGen's networks: built from the settings, filled from the experiment's weight files."""

from __future__ import annotations

from pathlib import Path

import torch

from varient.baselines.llamagen.settings import Settings
from varient.baselines.llamagen.tokenizer import Tokenizer
from varient.baselines.llamagen.transformer import Transformer
from varient.config import ExperimentConfig
from varient.models.checkpoint import load_weights


def build_tokenizer(settings: Settings) -> Tokenizer:
    """The tokenizer, with torch's default initial weights."""
    return Tokenizer(settings.tokenizer.model)


def build_transformer(config: ExperimentConfig, settings: Settings) -> Transformer:
    """The transformer, its weights still to be initialised or loaded."""
    with torch.device("meta"):  # torch's own initial weights would take a minute for XXL, only to be replaced
        model = Transformer(settings.transformer.model, side=settings.token_side(config.data),
                            vocab_size=settings.tokenizer.model.codebook_size, num_classes=config.data.num_classes)
    return model.to_empty(device=torch.get_default_device())


def load_tokenizer(settings: Settings, path: Path) -> Tokenizer:
    """The tokenizer of a weight file."""
    tokenizer = build_tokenizer(settings)
    load_weights(path, tokenizer)
    return tokenizer.eval()


def load_transformer(config: ExperimentConfig, settings: Settings, path: Path) -> Transformer:
    """The transformer of a weight file."""
    model = build_transformer(config, settings)
    load_weights(path, model)
    return model.eval()
