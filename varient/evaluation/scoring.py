"""Scores of samples against a reference under a named protocol, as a record with its uncertainty."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from varient.config import EvaluationConfig, ExperimentConfig
from varient.evaluation.crossed import crossed_fids, half_classifiers
from varient.evaluation.extractors import Extractor
from varient.evaluation.features import Features, extract_in_memory, extract_in_parts
from varient.evaluation.image_source import ImageSource, Reference, pixel_warnings
from varient.evaluation.inputs import open_reference, open_samples
from varient.evaluation.moments import FeatureError, FrechetReference, Gaussian, Moments
from varient.evaluation.neighbours import density_coverage, precision_recall
from varient.evaluation.protocols import (
    FurtherRule,
    KidRule,
    NeighbourRule,
    ScoringProtocol,
    check,
    open_extractor,
    protocol_named,
)
from varient.evaluation.scores import inception_score, kernel_distance, monge_distance, vendi_by_class
from varient.evaluation.uncertainty import (
    Spread,
    embedding_spread,
    frechet_bias,
    frechet_infinity,
    frechet_spread,
    inception_spread,
    kernel_spread,
    share_spread,
    smallest_subsample,
)
from varient.files import check_writable, sha256_kept
from varient.models.build import load_classifier
from varient.models.classifier import Classifier
from varient.records import ScoreRecord, provenance, write_record
from varient.yaml_file import shortened

FID_AGREEMENT = 1e-6
"""Largest relative difference between our FID and that of torch-fidelity and of clean-fid from the same features."""


class ScoreError(ValueError):
    """Images that cannot be scored."""


def score_experiment(config: ExperimentConfig, samples: Sequence[Path], reference: Sequence[Path], run_dir: Path,
                     output: Path, device: str = "cpu", test: Sequence[Path] = ()) -> ScoreRecord:
    """Score all shards of a system under the experiment's protocol and write the record.

    Args:
        test: real images of a test set, against which FID is taken too.

    Raises:
        SampleError, ProtocolError, ExtractorError, FeatureError: inputs that are missing, damaged or do not fit.
        ScoreError: a set of another size than the config asks for.
        OutputError: a record that could not be written.
    """
    settings = config.evaluation
    check_writable(output)
    generated, real = open_samples(samples), open_reference(reference)
    further = open_reference(test) if test else None
    check_belongs(config, generated, real, *([further] if further else []))
    if "sampling" in generated.origin and len(generated) != config.sampling.num_images:
        raise ScoreError(f"{generated.place}: {len(generated)} images, but the config asks for "
                         f"{config.sampling.num_images}: a shard is missing")
    protocol = protocol_of(settings, len(generated), len(real.images) if real.images else 0)
    # Features of digits take a second; others are kept, so that a stopped run continues and later scores reuse them.
    folder = None if protocol.name == "digits" else run_dir / "features"
    if folder:
        check_writable(folder / "part.npz")
    found = check(protocol, generated, real, settings.inception_weights)
    if further:
        check(protocol, generated, further, settings.inception_weights)
    extractor, judge, weights = open_networks(config, protocol, run_dir, device)
    record = score(protocol, extractor, generated, real, folder=folder, extrapolate=settings.fid_infinity, test=further)
    recognised = recognised_share(judge, generated) if judge else None
    crossed = crossed_fids(config, generated, run_dir)
    weights |= {path.stem: sha256_kept(path) for path in half_classifiers(config, run_dir)}
    used = record.provenance.model_copy(update={
        "experiment": config.name, "seed": config.seed,
        "settings": config.digest(*config.sampling.image_sections, "evaluation"),
        "weights_sha256": record.provenance.weights_sha256 | weights})
    record = record.model_copy(update={"warnings": (*found, *record.warnings), "recognised": recognised,
                                       "fid_halves": crossed, "provenance": used})
    write_record(output, record)
    return record


def open_networks(config: ExperimentConfig, protocol: ScoringProtocol, run_dir: Path,
                  device: str) -> tuple[Extractor, Classifier | None, dict[str, str]]:
    """The extractor of the experiment's protocol, the judge where it is a classifier, and the hashes of both.

    Raises:
        ExtractorError, CheckpointError: weights that are missing or others than expected.
    """
    settings, classifier, judge, weights = config.evaluation, None, None, {}
    if protocol.network == "classifier":
        paths = {role: run_dir / f"classifier-{role}.safetensors" for role in ("features", "judge")}
        classifier, judge = (load_classifier(config, path) for path in paths.values())
        weights = {path.stem: sha256_kept(path) for path in paths.values()}
    extractor = open_extractor(protocol, weights=settings.inception_weights, sha256=settings.weights_sha256,
                               device=device, classifier=classifier)
    return extractor, judge, weights


def score_files(protocol_name: str, samples: Sequence[Path], reference: Sequence[Path], output: Path, *,
                weights: Path | None, sha256: str | None, device: str, extrapolate: bool) -> ScoreRecord:
    """Score any samples without an experiment and write the record; features are kept in `<output>-features`.

    Raises:
        SampleError, ProtocolError, ExtractorError, FeatureError: inputs that are missing, damaged or do not fit.
        OutputError: a record that could not be written.
    """
    protocol = protocol_named(protocol_name)
    folder = output.with_name(f"{output.stem}-features")
    for path in (output, folder / "part.npz"):
        check_writable(path)
    generated, real = open_samples(samples), open_reference(reference)
    found = check(protocol, generated, real, weights)
    if extrapolate and protocol.num_compared:
        smallest_subsample(len(generated), protocol.num_compared)
    extractor = open_extractor(protocol, weights=weights, sha256=sha256, device=device)
    record = score(protocol, extractor, generated, real, folder=folder, extrapolate=extrapolate)
    record = record.model_copy(update={"warnings": (*found, *record.warnings)})
    write_record(output, record)
    return record


def protocol_of(settings: EvaluationConfig, num_generated: int, num_real: int) -> ScoringProtocol:
    """The experiment's protocol.

    For a protocol with a classifier, k and the number of features are those of the config, and subsets of KID are no
    larger than the smaller set.
    """
    protocol = protocol_named(settings.protocol)
    if protocol.network != "classifier":
        return protocol
    subset_size = min(settings.kid_subset_size, num_generated, num_real)
    return replace(protocol, kid=KidRule(subset_size=subset_size), neighbours=NeighbourRule(k=settings.neighborhood),
                   num_features=settings.classifier_training.feature_dim)


def score(protocol: ScoringProtocol, extractor: Extractor, samples: ImageSource, reference: Reference, *,
          folder: Path | None = None, extrapolate: bool = False, test: Reference | None = None) -> ScoreRecord:
    """All scores of a protocol that the reference allows, each with its standard deviation over redraws of the
    generated images.

    Args:
        folder: where features are kept, part by part; None keeps none.
        extrapolate: FID at infinitely many images too (150 CPU-seconds at 50,000 x 2048).
        test: a test set, against which FID is taken too, where the protocol has one.

    Raises:
        FeatureError: features that are not finite or too few.
        ScoreError: FID differs from that of torch-fidelity or clean-fid.
    """
    remarks = [warning for images in (samples, reference.images) if images for warning in pixel_warnings(images)]
    generated = compared(features_of(samples, extractor, folder), protocol)
    real = compared(features_of(reference.images, extractor, folder), protocol) if reference.images else None
    feature_NF = generated.layers[protocol.feature_layer]
    remarks += generated.warnings
    values: dict[str, object] = {}
    if protocol.frechet:
        target = frechet_reference(protocol.feature_layer, "mu", "sigma", protocol, reference, real)
        values |= _frechet(feature_NF, target, samples.labels, extrapolate, remarks)
        if test:
            held = compared(features_of(test.images, extractor, folder), protocol) if test.images else None
            values |= _named("fid_test", frechet_spread(
                feature_NF, frechet_reference(protocol.feature_layer, "mu", "sigma", protocol, test, held),
                labels_N=samples.labels))
    if (layer := protocol.spatial_layer) and "sfid" in protocol.metrics_against(reference):
        spatial = frechet_reference(layer, "mu_s", "sigma_s", protocol, reference, real)
        values |= _named("sfid", frechet_spread(generated.layers[layer], spatial, labels_N=samples.labels))
    if (layer := protocol.logits_layer) and (rule := protocol.inception_score):
        logit_NK = generated.layers[layer]
        blocks, order = rule.blocks(len(samples)), rule.permutation(len(samples), samples.permutation_seed)
        spread = inception_spread(logit_NK, blocks, order, labels_N=samples.labels)
        values |= _named("inception_score", spread)
        values["inception_score_std"] = inception_score(logit_NK, blocks, order).std
    if real and (subsets := protocol.kid):
        real_MF = real.layers[protocol.feature_layer]
        kid = kernel_distance(feature_NF, real_MF, subsets=subsets.subsets, subset_size=subsets.subset_size,
                              seed=subsets.seed)
        values |= _named("kid", kernel_spread(feature_NF, real_MF, kid, labels_N=samples.labels))
        values["kid_std"] = kid.std
    if real and protocol.neighbours:
        inside = precision_recall(feature_NF, real.layers[protocol.feature_layer], protocol.neighbours.k)
        values |= _named("precision", share_spread(inside.generated_inside_N, samples.labels))
        values |= _named("recall", share_spread(inside.real_inside_M))
    if real and (kernel := protocol.cmmd):
        values |= _named("cmmd", embedding_spread(feature_NF, real.layers[protocol.feature_layer], kernel.bandwidth,
                                                  kernel.scale, labels_N=samples.labels))
    if protocol.further:
        values |= _further(protocol.further, feature_NF, samples.labels,
                           real.layers[protocol.feature_layer] if real else None, remarks)
    return ScoreRecord(
        system=samples.origin.get("system") or Path(samples.place).name, protocol=protocol.name,
        extractor=extractor.name, num_images=len(samples), num_reference=len(real) if real else 0,
        images_sha256=generated.sha256, reference_sha256=reference.sha256, warnings=tuple(remarks), **values,
        provenance=provenance(
            experiment=samples.origin.get("experiment", "none"), seed=samples.origin.get("seed"),
            settings=samples.origin.get("settings", "none"), on=extractor.device,
            weights_sha256={"extractor": extractor.sha256} | samples.origin.get("weights_sha256", {}),
            imported_sha256=samples.origin.get("imported_sha256"), sampled_on=samples.origin.get("device")))


def _frechet(feature_NF: np.ndarray, target: FrechetReference, label_N: np.ndarray | None, extrapolate: bool,
             remarks: list[str]) -> dict[str, object]:
    """FID with its spread and bias, and where asked for at infinitely many images; ``remarks`` say why it is not."""
    fid = frechet_spread(feature_NF, target, labels_N=label_N)
    _check_with_the_libraries(fid.point, feature_NF, target.gaussian)
    values: dict[str, object] = {"fid": fid.point, "fid_sd": fid.sd,
                                 "fid_bias": frechet_bias(target.gaussian, len(feature_NF)).bias}
    if extrapolate:
        try:
            values["fid_infinity"] = frechet_infinity(feature_NF, target).fid_infinity
        except FeatureError as error:  # an extra: too few images for it are enough for all other scores
            remarks.append(f"no FID at infinity: {error}")
    return values


def _further(rule: FurtherRule, feature_NF: np.ndarray, label_N: np.ndarray | None, real_MF: np.ndarray | None,
             remarks: list[str]) -> dict[str, object]:
    """Density, coverage, MIND and the Vendi score; ``remarks`` say which of them the features do not allow.

    They are an extra: too few images for them, or an image without features, are enough for all other scores.
    """
    values: dict[str, object] = {}
    if real_MF is not None:
        try:
            balls = density_coverage(feature_NF, real_MF, rule.k)
            values |= _named("density", share_spread(balls.density_N))
            values |= _named("coverage", share_spread(balls.covered_M))
        except FeatureError as error:
            remarks.append(f"no density and coverage: {error}")
        values["mind"] = monge_distance(feature_NF, real_MF, rule.directions, rule.seed)
    if label_N is not None:
        try:
            values["vendi"] = float(vendi_by_class(feature_NF, label_N).mean())
        except FeatureError as error:
            remarks.append(f"no Vendi score: {error}")
    return values


def recognised_share(judge: Classifier, samples: ImageSource) -> float | None:
    """Share of images that the judge assigns to the requested class; None without labels."""
    return None if samples.labels is None else float((verdicts(judge, samples) == samples.labels).mean())


def verdicts(judge: Classifier, samples: ImageSource) -> np.ndarray:
    """The class (N,), int64, that the judge sees in each image."""
    with torch.no_grad():
        return np.concatenate([judge(torch.from_numpy(images))[1].argmax(dim=1).numpy()
                               for images in samples.batches(256)])


def check_belongs(config: ExperimentConfig, images: ImageSource, *references: Reference) -> None:
    """Check that images are of this experiment, as far as their origin is stored, and of its image size.

    A classifier takes one size, so then the images of the references must have it too; Inception resizes.

    Raises:
        ScoreError: another experiment, seed, image size or sampling.
    """
    origin = images.origin
    for key, own in (("experiment", config.name), ("seed", config.seed)):
        if key in origin and origin[key] != own:
            raise ScoreError(f"{images.place}: its {key} is {shortened(origin[key])}, the config's is {own!r}")
    size = config.data.image_size
    compared_with = references if config.evaluation.trains_its_network else ()
    for source in (images, *(reference.images for reference in compared_with)):
        if source and source.side != size:
            raise ScoreError(f"{source.place}: images of side {source.side}; {config.name} has {size}")
    wanted = config.sampling.of_images()
    if "sampling" in origin and {name: origin["sampling"].get(name) for name in wanted} != wanted:
        raise ScoreError(f"{images.place}: sampled with other settings than the config's `sampling`")


def features_of(images: ImageSource, extractor: Extractor, folder: Path | None) -> Features:
    """Features of a set, in memory; kept in ``folder`` part by part, where there is one, and read again from there."""
    if folder is None:
        return extract_in_memory(images, extractor)
    return extract_in_parts(images, extractor, folder / images.sha256[:16])


def compared(features: Features, protocol: ScoringProtocol) -> Features:
    """What of the features a protocol compares; logits stay whole, classes cannot be left out."""
    if protocol.first_features is None:
        return features
    return replace(features, layers={name: values if name == protocol.logits_layer
                                     else values[:, :protocol.first_features]
                                     for name, values in features.layers.items()})


def _named(name: str, spread: Spread) -> dict[str, float | None]:
    """A score and its standard deviation; None where there are too few images for one."""
    return {name: spread.point, f"{name}_sd": spread.sd if math.isfinite(spread.sd) else None}


def frechet_reference(layer: str, mean: str, covariance: str, protocol: ScoringProtocol, reference: Reference,
                      real: Features | None) -> FrechetReference:
    """The reference distribution: the statistics of the file, or those of the real features."""
    if protocol.reference == "statistics":
        first, stored = slice(protocol.first_features), reference.statistics
        return FrechetReference(Gaussian(stored[mean][first], stored[covariance][first, first]))
    assert real is not None  # `check` lets no reference without images through
    return FrechetReference(Moments.of(real.layers[layer]).gaussian())


def _check_with_the_libraries(fid: float, feature_NF: np.ndarray, target: Gaussian) -> None:
    """Compare our FID with those of torch-fidelity and clean-fid from the same features and reference.

    Raises:
        ScoreError: they differ by more than `FID_AGREEMENT`.
    """
    from cleanfid.fid import frechet_distance as of_clean_fid
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    # Both take the mean in the features' dtype.
    statistics = {"mu": feature_NF.mean(axis=0), "sigma": np.cov(feature_NF, rowvar=False)}
    real = {"mu": target.mean.astype(np.float32), "sigma": target.covariance}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy's, about how clean-fid calls sqrtm
        others = {"torch-fidelity": fid_statistics_to_metric(statistics, real, False)["frechet_inception_distance"],
                  "clean-fid": float(of_clean_fid(statistics["mu"], statistics["sigma"], real["mu"], real["sigma"]))}
    scale = math.fsum(np.diag(target.covariance))
    for library, other in others.items():
        if not math.isclose(other, fid, rel_tol=FID_AGREEMENT, abs_tol=FID_AGREEMENT * scale):
            raise ScoreError(f"our FID {fid!r} and {library}'s {other!r} differ by more than {FID_AGREEMENT:g}")
