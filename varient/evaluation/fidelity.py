"""Fidelity: how much of the full network's pictures is left, pair by pair, as a record.

Each image is a function of (seed, index, class), so the same picture exists under every plan, and what a plan changes
shows in pairs, where FID sees two sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from varient.config import ExperimentConfig
from varient.evaluation.extractors import Extractor
from varient.evaluation.features import Features
from varient.evaluation.fidelity_classifier import LOGITS
from varient.evaluation.image_source import (
    DIGEST_BYTES,
    ImageSource,
    Reference,
    content_hash,
    digests_of,
    pixel_warnings,
)
from varient.evaluation.inputs import open_samples
from varient.evaluation.lpips import LEAST_SIDE, Lpips
from varient.evaluation.moments import FeatureError, FrechetReference, Moments
from varient.evaluation.pairs import PairError, Pairs, paired
from varient.evaluation.protocols import ScoringProtocol, open_extractor, protocol_named
from varient.evaluation.scoring import (
    check_belongs,
    compared,
    features_of,
    open_networks,
    protocol_of,
    verdicts,
)
from varient.evaluation.similarity import psnr_db, squared_error, ssim, ssim_window
from varient.evaluation.token_agreement import NUM_IMAGES, TokenAgreement, drawn_tokens, var_system
from varient.evaluation.uncertainty import LEAST_IMAGES, frechet_spread, share_spread
from varient.files import check_writable, sha256_kept
from varient.models.classifier import Classifier
from varient.records import Fidelity, FidelityRecord, provenance, write_record
from varient.systems.ids import base_system
from varient.systems.var import VARSystem

_BATCH = 32


@dataclass(frozen=True, eq=False)
class Eyes:
    """What looks at the pairs besides the pixels.

    Attributes:
        protocol, extractor: whose features are compared; None compares none.
        judge: a classifier of its own for the classes; None: the protocol's logits, if it has any.
        folder: where features are kept, part by part; None keeps none.
        lpips: None computes no LPIPS.
    """

    protocol: ScoringProtocol | None = None
    extractor: Extractor | None = None
    judge: Classifier | None = None
    folder: Path | None = None
    lpips: Lpips | None = None

    @property
    def judged_by(self) -> str | None:
        """What sees the classes, in words."""
        if self.judge:
            return "classifier-judge"
        return f"logits of {self.extractor.name}" if self.extractor and LOGITS in self.extractor.layers else None


def compare_experiment(config: ExperimentConfig, samples: Sequence[ImageSource], reference: ImageSource, run_dir: Path,
                       output: Path, device: str = "cpu", lpips: Lpips | None = None) -> FidelityRecord:
    """Compare sets of images of an experiment with one of them, also by features and tokens; writes the record.

    Tokens are compared where both sets are of VAR's systems and the run folder has the networks that drew them.

    Raises:
        PairError: sets that do not show the same pictures, or were drawn by other weights than the run folder has.
        ScoreError: sets of another experiment, seed, size or sampling than the config's.
        SampleError, ProtocolError, ExtractorError, CheckpointError, FeatureError: inputs that are missing or damaged.
        OutputError: a record that could not be written.
    """
    check_writable(output)
    pairs = [paired(each, reference) for each in samples]
    for images in (*samples, reference):
        check_belongs(config, images, Reference(images.place, None, {}))
    protocol = protocol_of(config.evaluation, len(reference), len(reference))
    extractor, judge, weights = open_networks(config, protocol, run_dir, device)
    folder = None if protocol.name == "digits" else run_dir / "features"  # those of digits take a second
    agreements, drawn_by, remarks = _token_agreements(config, pairs, run_dir)
    record = _record(pairs, Eyes(protocol, extractor, judge, folder, lpips), agreements, remarks)
    networks = {found.network for each in samples if (found := _var_system(config, each))}
    used = record.provenance.model_copy(update={
        "experiment": config.name, "seed": config.seed,
        "settings": config.digest(*config.sampling.image_sections, "evaluation"),
        "weights_sha256": record.provenance.weights_sha256 | weights | drawn_by})
    record = record.model_copy(update={"network": networks.pop() if len(networks) == 1 else None, "provenance": used})
    write_record(output, record)
    return record


def compare_systems(config: ExperimentConfig, systems: Sequence[str], run_dir: Path, output: Path,
                    device: str = "cpu") -> FidelityRecord:
    """Compare the images of systems of a run with those of its full network before any training; writes the record.

    Raises:
        ValueError: a system that is not VAR's.
        PairError, ScoreError, SampleError, ProtocolError, ExtractorError, CheckpointError, FeatureError, OutputError:
            as `compare_experiment`.
    """
    for name in systems:
        if var_system(config, name) is None:
            raise ValueError(f"system {name!r}: only VAR and its subnets draw the full network's pictures")
    sets = [open_samples([run_dir / "samples" / name / f"shard-{shard}.npz" for shard in range(config.sampling.shards)])
            for name in (*systems, base_system(config))]
    return compare_experiment(config, sets[:-1], sets[-1], run_dir, output, device)


def compare_files(samples: ImageSource, reference: ImageSource, output: Path, *, protocol_name: str | None = None,
                  weights: Path | None = None, sha256: str | None = None, device: str = "cpu",
                  lpips: Lpips | None = None) -> FidelityRecord:
    """Compare any two sets of images, and write the record; features are kept in `<output>-features`.

    Args:
        protocol_name: of the features that are compared; None compares pixels alone.

    Raises:
        PairError, SampleError, ProtocolError, ExtractorError, FeatureError: as `compare_experiment`.
        OutputError: a record that could not be written.
    """
    check_writable(output)
    pairs, eyes = paired(samples, reference), Eyes(lpips=lpips)
    if protocol_name:
        protocol = protocol_named(protocol_name)
        extractor = open_extractor(protocol, weights=weights, sha256=sha256, device=device)
        eyes = Eyes(protocol, extractor, folder=output.with_name(f"{output.stem}-features"), lpips=lpips)
    record = _record([pairs], eyes)
    write_record(output, record)
    return record


# -- the record --------------------------------------------------------------------------------------------------------

def _record(sets: Sequence[Pairs], eyes: Eyes, agreements: dict[str, TokenAgreement] | None = None,
            remarks: Sequence[str] = ()) -> FidelityRecord:
    reference, warnings = sets[0].reference, [*remarks, *(text for pairs in sets for text in pairs.warnings)]
    for images in (reference, *(pairs.samples for pairs in sets)):
        warnings += [*images.remarks, *pixel_warnings(images)]
    if eyes.protocol and eyes.protocol.first_features:
        warnings.append(f"a rehearsal, on {eyes.protocol.first_features} of {eyes.protocol.num_features} features: "
                        "FID* and the feature distance are comparable with nothing")
    if eyes.lpips and reference.side < LEAST_SIDE:
        raise PairError(f"{reference.place}: images of side {reference.side} are too small for LPIPS, which takes "
                        f"{LEAST_SIDE} pixels or more")
    features = _reference_features(reference, eyes)
    target = None
    if features and eyes.protocol and eyes.protocol.frechet:
        try:
            target = FrechetReference(Moments.of(features[1]).gaussian())
        except FeatureError as error:
            warnings.append(f"no FID*: {error}")
    elif features and eyes.protocol:
        warnings.append(f"no FID*: protocol {eyes.protocol.name} has no FID")
    classes = _classes(reference, eyes, features[0] if features else None)
    found, reference_sha256 = [], ""
    for pairs in sets:
        pixels, sha256, reference_sha256 = _pixel_measures(pairs, eyes.lpips)
        system = _system(pairs.samples)
        found.append(Fidelity(system=system, images_sha256=sha256, **pixels,
                              **_seen(pairs, eyes, features[1] if features else None, target, classes),
                              **_of_tokens((agreements or {}).get(system))))
    origin = reference.origin
    return FidelityRecord(
        network=None, reference=_system(reference), reference_sha256=reference_sha256, num_images=len(reference),
        ssim_kernel=ssim_window(reference.side)[0], protocol=eyes.protocol.name if eyes.protocol else None,
        extractor=eyes.extractor.name if eyes.extractor else None, judge=eyes.judged_by,
        lpips_sha256=eyes.lpips.sha256 if eyes.lpips else None,
        num_token_images=max((each.num_images for each in (agreements or {}).values()), default=0),
        systems=tuple(found),
        warnings=tuple(dict.fromkeys(warnings)),
        provenance=provenance(
            experiment=origin.get("experiment", "none"), seed=origin.get("seed"),
            settings=origin.get("settings", "none"), on=eyes.extractor.device if eyes.extractor else "cpu",
            weights_sha256={"extractor": eyes.extractor.sha256} if eyes.extractor else {},
            sampled_on=origin.get("device")))


def _system(images: ImageSource) -> str:
    return images.origin.get("system") or Path(images.place).name


def _pixel_measures(pairs: Pairs, lpips: Lpips | None) -> tuple[dict[str, Any], str, str]:
    """Fields of a `Fidelity` from the pixels, and the hashes of both sets in order of their indices."""
    # Filled in place: a small array kept from each batch lies among the freed large ones, which malloc then cannot use
    # for the next batch, so that memory grows with every pair.
    error_N, ssim_N, lpips_N = np.zeros((3, len(pairs)))
    digests = np.zeros((2, len(pairs), DIGEST_BYTES), np.uint8)
    bar = tqdm(total=len(pairs), desc=f"pairs of {_system(pairs.samples)}", unit="pair", mininterval=2)
    with bar, torch.inference_mode():
        for begin, images in zip(range(0, len(pairs), _BATCH), pairs.batches(_BATCH), strict=True):
            here = slice(begin, begin + _BATCH)
            digests[:, here] = [digests_of(half) for half in images]
            error_N[here] = squared_error(*images)
            a, b = map(torch.from_numpy, images)
            ssim_N[here] = ssim(a, b)
            if lpips:
                lpips_N[here] = lpips(a, b)
            bar.update(len(a))
    error, order = float(error_N.mean()), np.argsort(error_N, kind="stable")
    examples = order[[0, len(order) // 2, -1]]
    measures = {"identical": float((error_N == 0).mean()), "psnr_db": psnr_db(error) if error else None,
                # d(10 log10 e) = 10 / ln 10 de / e
                "psnr_db_sd": 10 / math.log(10) * _standard_error(error_N) / error if error else None,
                "ssim": float(ssim_N.mean()), "ssim_sd": _standard_error(ssim_N),
                "examples": tuple(pairs.indices[examples].tolist()),
                "examples_psnr_db": tuple(psnr_db(error_N[at]) if error_N[at] else None for at in examples)}
    if lpips:
        measures |= {"lpips": float(lpips_N.mean()), "lpips_sd": _standard_error(lpips_N)}
    return measures, content_hash(digests[0]), content_hash(digests[1])


def _standard_error(value_N: np.ndarray) -> float:
    return float(value_N.std(ddof=1) / math.sqrt(len(value_N))) if len(value_N) > 1 else 0.0


def _reference_features(reference: ImageSource, eyes: Eyes) -> tuple[Features, np.ndarray] | None:
    """Features of the reference in its own order, and the table (N, F) that the protocol compares."""
    if eyes.protocol is None or eyes.extractor is None:
        return None
    found = compared(features_of(reference, eyes.extractor, eyes.folder), eyes.protocol)
    return found, found.layers[eyes.protocol.feature_layer]


def _classes(images: ImageSource, eyes: Eyes, features: Features | None) -> np.ndarray | None:
    """The class (N,) seen in each image, in the order of the set."""
    if eyes.judge:
        return verdicts(eyes.judge, images)
    if features is None or LOGITS not in features.layers:
        return None
    return features.layers[LOGITS].argmax(axis=1)


def _seen(pairs: Pairs, eyes: Eyes, reference_NF: np.ndarray | None, target: FrechetReference | None,
          reference_classes: np.ndarray | None) -> dict[str, Any]:
    """Fields of a `Fidelity` from features and classes."""
    if eyes.protocol is None or eyes.extractor is None or reference_NF is None:
        return {}
    features = compared(features_of(pairs.samples, eyes.extractor, eyes.folder), eyes.protocol)
    feature_NF = features.layers[eyes.protocol.feature_layer]
    found: dict[str, Any] = {}
    difference_NF = feature_NF[pairs.places].astype(np.float64) - reference_NF[pairs.reference_places]
    # Two independent draws of a distribution differ by twice the trace of its covariance, in the mean square.
    unrelated = 2 * float(reference_NF.var(axis=0, dtype=np.float64).sum())
    if unrelated:
        found["feature_distance"] = math.sqrt(float(np.square(difference_NF).sum(axis=1).mean()) / unrelated)
    classes = _classes(pairs.samples, eyes, features)
    if classes is not None and reference_classes is not None:
        same_N = classes[pairs.places] == reference_classes[pairs.reference_places]
        spread = share_spread(same_N, pairs.labels)
        found |= {"same_class": spread.point, "same_class_sd": spread.sd}
    if target and len(pairs) >= LEAST_IMAGES:
        fid = frechet_spread(feature_NF[pairs.places], target, labels_N=pairs.labels)
        found |= {"fid": max(fid.point, 0.0), "fid_sd": fid.sd}  # of equal sets rounding makes less than 0
    return found


# -- tokens ------------------------------------------------------------------------------------------------------------

def _token_agreements(config: ExperimentConfig, sets: Sequence[Pairs],
                      run_dir: Path) -> tuple[dict[str, TokenAgreement], dict[str, str], list[str]]:
    """Agreement by system, the hashes of the networks, and why systems were left out."""
    samples, reference = [pairs.samples for pairs in sets], sets[0].reference
    full = _var_system(config, reference)
    drawable = [each for each in samples if _var_system(config, each)] if full else []
    without = [each for each in samples if not _var_system(config, each)] if full else [reference]
    remarks = [_without_tokens(each) for each in without]
    if full is None or not drawable:
        return {}, {}, remarks
    hashes: dict[str, str] = {}
    for images in (reference, *drawable):
        drawn_by = _weights_that_drew(config, images, run_dir)
        hashes |= drawn_by
        if unsaid := drawn_by.keys() - images.origin.get("weights_sha256", {}).keys():
            remarks.append(f"{images.place}: nothing says which {', '.join(sorted(unsaid))} drew it; its tokens are "
                           f"those of {run_dir}")
    indices = sets[0].indices[:NUM_IMAGES].tolist()
    expected_NL = drawn_tokens(config, full.name, run_dir, indices)
    agreements = {name: TokenAgreement.of(drawn_tokens(config, name, run_dir, indices), expected_NL, config.pyramid)
                  for name in map(_system, drawable)}
    return agreements, hashes, remarks


def _without_tokens(images: ImageSource) -> str:
    system = images.origin.get("system")
    why = f"{system} is no system of VAR's" if system else "nothing says that a system of VAR's drew it"
    return f"{images.place}: no tokens, as {why}"


def _var_system(config: ExperimentConfig, images: ImageSource) -> VARSystem | None:
    """The system of VAR that drew a set; None if it does not say, or says another."""
    name = images.origin.get("system")
    return var_system(config, name) if name else None


def _weights_that_drew(config: ExperimentConfig, images: ImageSource, run_dir: Path) -> dict[str, str]:
    """Hashes of a set's networks in the run folder.

    Raises:
        PairError: a file that is missing or is not the one that drew the set.
    """
    hashes: dict[str, str] = {}
    system = _var_system(config, images)
    for name in system.weights if system else ():
        path = run_dir / f"{name}.safetensors"
        if not path.exists():
            raise PairError(f"{path}: no such file; it drew {images.place}, and its tokens are compared")
        hashes[name] = sha256_kept(path)
        if images.origin.get("weights_sha256", {}).get(name, hashes[name]) != hashes[name]:
            raise PairError(f"{images.place} was drawn by another {name} than {path}: its tokens cannot be drawn again")
    return hashes


def _of_tokens(agreement: TokenAgreement | None) -> dict[str, Any]:
    if agreement is None:
        return {}
    return {"tokens": agreement.share, "tokens_sd": agreement.sd, "tokens_by_scale": agreement.by_scale}
