"""Cross-fitted FID: against images from which the feature network has not learned.

The features of the default scores come from a classifier that was trained on the reference itself, so even real images
that it has not seen are at a distance.  Here the training images are halved at random several times.  A classifier
learns from one half, and FID is taken against the other.  (The generators have learned from both.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from varient.archive import Archive
from varient.config import ExperimentConfig
from varient.evaluation.extractors import ClassifierExtractor
from varient.evaluation.features import extract_in_memory
from varient.evaluation.fidelity_classifier import FEATURES
from varient.evaluation.image_source import ImageSource, source_of
from varient.evaluation.moments import FrechetReference, Gaussian, Moments
from varient.models.build import load_classifier
from varient.training.data import halves_of, load_images


def crossed_fids(config: ExperimentConfig, images: ImageSource, run_dir: Path) -> tuple[float, ...]:
    """FID of images against the second of each pair of halves, on features learned from the first.

    Raises:
        CheckpointError: a classifier that is missing or damaged.
        FeatureError: features that are not finite, or too few images.
    """
    return tuple(_against_half(config, images, number, path)
                 for number, path in enumerate(half_classifiers(config, run_dir), start=1))


def half_classifiers(config: ExperimentConfig, run_dir: Path) -> list[Path]:
    """The weights of the classifiers that learned from a half, in order; empty if the experiment has none."""
    return [run_dir / f"classifier-{role}.safetensors" for role in config.evaluation.half_roles]


def _against_half(config: ExperimentConfig, images: ImageSource, number: int, classifier: Path) -> float:
    extractor = ClassifierExtractor(load_classifier(config, classifier))
    _, half = halves_of(load_images(config.data, "train"), number)
    real = source_of(Archive(half.images.numpy(), half.labels.numpy(), np.arange(len(half)),
                             {"system": f"half {number} of the training images"}))
    generated_gaussian, real_gaussian = (_gaussian(source, extractor) for source in (images, real))
    return FrechetReference(real_gaussian).distance(generated_gaussian)


def _gaussian(source: ImageSource, extractor: ClassifierExtractor) -> Gaussian:
    return Moments.of(extract_in_memory(source, extractor).layers[FEATURES]).gaussian()
