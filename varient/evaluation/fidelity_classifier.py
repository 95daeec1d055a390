"""Our classifier as a feature extractor of torch-fidelity, so that the library can compute the same scores."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from varient.models.classifier import Classifier

FEATURES, LOGITS = "features", "logits"


def register_classifier(classifier: Classifier) -> str:
    """Register the classifier with torch-fidelity; return its name there.

    The name has a hash of the weights, so that two classifiers are never confused and each is registered once.
    """
    digest = hashlib.sha256()
    for key, tensor in sorted(classifier.state_dict().items()):
        digest.update(key.encode() + tensor.numpy().tobytes())
    name = f"varient-classifier-{digest.hexdigest()[:16]}"
    if name in _registered:
        return name

    class ClassifierExtractor(FeatureExtractorBase):
        """Adapter with the methods torch-fidelity 0.4 calls; it makes the instance itself, from the class."""

        def __init__(self, name: str, features_list: list[str], **_settings: object) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return FEATURES, LOGITS

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return LOGITS if metric == "isc" else FEATURES

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, image_B3SS: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                outputs = dict(zip((FEATURES, LOGITS), classifier(image_B3SS), strict=True))
            return tuple(outputs[layer] for layer in self.features_list)

    register_feature_extractor(name, ClassifierExtractor)
    _registered.add(name)
    return name


_registered: set[str] = set()
