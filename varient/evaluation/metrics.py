"""Scores of generated against real images, computed by torch-fidelity and, for FID, by clean-fid as well."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch_fidelity import calculate_metrics

from varient.archive import Archive, read_archives
from varient.config import EvaluationConfig, ExperimentConfig
from varient.evaluation.features import ImageSet, classifier_features, register_classifier
from varient.files import sha256_of
from varient.models.build import load_classifier
from varient.models.classifier import Classifier
from varient.records import ScoreRecord, provenance, write_record

FID_AGREEMENT = 1e-6
"""Largest relative difference between the two libraries' FID; they agree to about 1e-13 on healthy features."""


class ScoreError(ValueError):
    """Images that cannot be scored."""


def score_archives(config: ExperimentConfig, samples: Sequence[Path], reference: Path, run_dir: Path,
                   output: Path) -> ScoreRecord:
    """Score the merged sample archives against a reference archive and write the record.

    Raises:
        ArchiveError: an archive that cannot be read.
        ScoreError: shards that are missing, images that do not fit each other, features that cannot be compared.
    """
    generated, real = read_archives(samples), read_archives([reference])
    if "sampling" in generated.origin and len(generated.images) != config.sampling.num_images:
        raise ScoreError(f"{len(generated.images)} images of {generated.origin['system']}, but the config asks for "
                         f"{config.sampling.num_images}: a shard is missing")
    if config.evaluation.classifier is None:
        raise ScoreError(f"{config.name} has no evaluation.classifier; scoring with Inception is not built yet")
    paths = {role: run_dir / f"classifier-{role}.safetensors" for role in ("features", "judge")}
    extractor, judge = (load_classifier(config, path) for path in paths.values())
    scores = score_images(generated.images, real.images, extractor, config.evaluation)
    weights = {path.stem: sha256_of(path) for path in paths.values()} | generated.origin.get("weights_sha256", {})
    record = ScoreRecord(
        system=generated.origin["system"], extractor=register_classifier(extractor),
        num_images=len(generated.images), num_reference=len(real.images), **scores,
        recognised=recognised_share(judge, generated),
        provenance=provenance(experiment=config.name, seed=config.seed, weights_sha256=weights,
                              settings=config.digest("sampling", "evaluation")))
    write_record(output, record)
    return record


def score_images(generated: np.ndarray, real: np.ndarray, extractor: Classifier,
                 settings: EvaluationConfig) -> dict[str, float]:
    """FID (twice), KID, IS, precision and recall of uint8 images (N, 3, S, S) against real ones.

    IS uses torch-fidelity's ten parts of a fixed shuffle, so it does not depend on the order of classes; KID uses its
    fixed random subsets; precision and recall count k nearest neighbours in feature space.

    Raises:
        ScoreError: sets of different image size or too small, features that are not finite, or two FIDs that differ.
    """
    if generated.shape[1:] != real.shape[1:]:
        raise ScoreError(f"images are {generated.shape[1:]}, the reference has {real.shape[1:]}")
    features = [classifier_features(extractor, images) for images in (generated, real)]
    for name, feature_NF in zip(("generated", "reference"), features, strict=True):
        if len(feature_NF) <= feature_NF.shape[1]:
            raise ScoreError(f"{len(feature_NF)} {name} images are too few: the covariance of {feature_NF.shape[1]} "
                             "features needs more images than features")
        if not np.isfinite(feature_NF).all():
            raise ScoreError(f"features of the {name} images are not finite")
    subset = min(settings.kid_subset_size, len(generated), len(real))
    name = register_classifier(extractor)
    metrics = calculate_metrics(
        input1=ImageSet(generated), input2=ImageSet(real), feature_extractor=name, isc=True, fid=True, kid=True,
        prc=True, kid_subset_size=subset, prc_neighborhood=settings.neighborhood, cuda=False, cache=False,
        save_cpu_ram=True, verbose=False)
    fid_clean = _clean_fid(*features)
    if not math.isclose(metrics["frechet_inception_distance"], fid_clean, rel_tol=FID_AGREEMENT, abs_tol=1e-9):
        raise ScoreError(f"torch-fidelity's FID {metrics['frechet_inception_distance']!r} and clean-fid's "
                         f"{fid_clean!r} differ by more than {FID_AGREEMENT:g}")
    return {"fid": metrics["frechet_inception_distance"], "fid_clean": fid_clean,
            "kid": metrics["kernel_inception_distance_mean"], "kid_std": metrics["kernel_inception_distance_std"],
            "inception_score": metrics["inception_score_mean"],
            "inception_score_std": metrics["inception_score_std"],
            "precision": metrics["precision"], "recall": metrics["recall"]}


def recognised_share(judge: Classifier, archive: Archive) -> float:
    """Share of images that the judge sees as the class they were asked for."""
    with torch.no_grad():
        verdicts = judge(torch.from_numpy(archive.images))[1].argmax(dim=1).numpy()
    return float((verdicts == archive.labels).mean())


def _clean_fid(generated_NF: np.ndarray, real_NF: np.ndarray) -> float:
    """clean-fid's FID from features, without the warnings that scipy gives about its use of sqrtm."""
    from cleanfid.fid import fid_from_feats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(fid_from_feats(generated_NF, real_NF))
