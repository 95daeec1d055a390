"""Inception in torch-fidelity's format, and a reference batch in ADM's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from standins.pictures import picture


def write_inception(path: Path) -> str:
    """Write a state dict of 472 tensors, scaled so that features do not fade away; return the file's SHA-256."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    module = FeatureExtractorInceptionV3.__module__
    with mock.patch(f"{module}.load_state_dict_from_url"), \
            mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
        network = FeatureExtractorInceptionV3("of the right shape", ["2048"])
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    for name, value in state.items():
        if name.endswith("conv.weight"):
            value.normal_(std=(2 / value[0].numel()) ** 0.5)
    torch.save(state, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_reference(path: Path, inception: Path, sha256: str, *, side: int, num_classes: int) -> None:
    """Write a batch with images (`arr_0`, NHWC), classes and the statistics of features under the names of ADM's
    evaluator; of so few images that a multiple of the identity makes the covariances regular.
    """
    from varient.evaluation.extractors import POOL, SPATIAL, FidelityInception

    rng, count = np.random.default_rng(1), 8
    images = np.stack([np.asarray(picture(rng, side, side)) for _ in range(count)])
    features = FidelityInception(inception, sha256=sha256)(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    arrays = {"arr_0": images, "arr_1": np.arange(count) % num_classes}
    for layer, mean, covariance in ((POOL, "mu", "sigma"), (SPATIAL, "mu_s", "sigma_s")):
        values = features[layer].astype(np.float64)
        spread = np.cov(values, rowvar=False)
        arrays |= {mean: values.mean(0), covariance: spread + np.eye(len(spread)) * np.trace(spread) / len(spread)}
    np.savez(path, **arrays)
