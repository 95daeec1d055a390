"""The networks of an experiment: built from its config, filled from its weight files."""

from __future__ import annotations

from pathlib import Path

from varient.config import ExperimentConfig, TransformerSpec
from varient.models.checkpoint import load_weights
from varient.models.classifier import Classifier
from varient.models.transformer import VAR
from varient.models.vqvae import VQVAE


def build_tokenizer(config: ExperimentConfig) -> VQVAE:
    """The tokenizer, with torch's default initial weights."""
    return VQVAE(config.tokenizer.model, config.pyramid)


def load_tokenizer(config: ExperimentConfig, path: Path) -> VQVAE:
    """The trained tokenizer, frozen."""
    tokenizer = build_tokenizer(config)
    load_weights(path, tokenizer)
    return tokenizer.eval().requires_grad_(False)


def build_transformer(config: ExperimentConfig, spec: TransformerSpec | None = None) -> VAR:
    """A transformer over the experiment's tokens, by default its base, still to be initialised or loaded."""
    model = config.tokenizer.model
    return VAR(spec or config.transformer, config.pyramid, num_classes=config.data.num_classes,
               vocab_size=model.vocab_size, z_channels=model.z_channels)


def load_transformer(config: ExperimentConfig, path: Path) -> VAR:
    """The trained transformer, frozen."""
    model = build_transformer(config)
    load_weights(path, model)
    return model.eval().requires_grad_(False)


def build_classifier(config: ExperimentConfig) -> Classifier:
    """An untrained classifier for the experiment's images."""
    return Classifier(config.evaluation.classifier.feature_dim, config.data.num_classes, config.data.image_size)


def load_classifier(config: ExperimentConfig, path: Path) -> Classifier:
    """The trained classifier, frozen."""
    classifier = build_classifier(config)
    load_weights(path, classifier)
    return classifier.eval().requires_grad_(False)
