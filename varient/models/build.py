"""The networks of an experiment: built from its config, filled from its weight files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from varient.config import ExperimentConfig, TransformerSpec
from varient.models.checkpoint import load_weights
from varient.models.classifier import Classifier
from varient.models.transformer import VAR
from varient.models.vqvae import VQVAE

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def build_tokenizer(config: ExperimentConfig) -> VQVAE:
    """The tokenizer, with torch's default initial weights."""
    return VQVAE(config.tokenizer.model, config.pyramid)


def load_tokenizer(config: ExperimentConfig, path: Path) -> VQVAE:
    """The trained tokenizer, frozen."""
    return _trained(lambda: build_tokenizer(config), path)


def build_transformer(config: ExperimentConfig, spec: TransformerSpec | None = None) -> VAR:
    """A transformer over the experiment's tokens, by default its base, still to be initialised or loaded."""
    model = config.tokenizer.model
    return VAR(spec or config.transformer, config.pyramid, num_classes=config.data.num_classes,
               vocab_size=model.vocab_size, z_channels=model.z_channels)


def load_transformer(config: ExperimentConfig, path: Path) -> VAR:
    """The trained transformer, frozen."""
    return _trained(lambda: build_transformer(config), path)


def build_classifier(config: ExperimentConfig) -> Classifier:
    """An untrained classifier for the experiment's images.

    Raises:
        ValueError: the experiment's protocol uses no trained classifier.
    """
    feature_dim = config.evaluation.classifier_training.feature_dim
    return Classifier(feature_dim, config.data.num_classes, config.data.image_size)


def load_classifier(config: ExperimentConfig, path: Path) -> Classifier:
    """The trained classifier, frozen."""
    return _trained(lambda: build_classifier(config), path)


def without_weights(build: Callable[[], ModuleT]) -> ModuleT:
    """Build a network on the meta device, without allocating or initialising its weights."""
    with torch.device("meta"), _NoInit():
        return build()


def _trained(build: Callable[[], ModuleT], path: Path) -> ModuleT:
    """Build a network, load its weights and freeze it."""
    network = without_weights(build)
    load_weights(path, network)
    return network.eval().requires_grad_(False)


class _NoInit(TorchFunctionMode):
    """Disables `torch.nn.init`; on the meta device it would import torch's compiler, which takes 1.5 s."""

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: tuple = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        given = kwargs or {}
        if getattr(function, "__module__", None) == "torch.nn.init":
            return given["tensor"] if "tensor" in given else args[0]
        return function(*args, **given)
