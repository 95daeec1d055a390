"""How much of an image each scale of a layout determines: FID of real images reconstructed from their first k scales.

Table 1 compares subnets at different scales.  A subnet does most harm at the scales that determine most of the image,
so that comparison has to be read beside these reconstructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from varient.config import ExperimentConfig
from varient.evaluation.features import extract_in_memory
from varient.evaluation.image_source import ImageSource, pixel_warnings
from varient.evaluation.inputs import open_reference, open_samples
from varient.evaluation.protocols import ProtocolError, check
from varient.evaluation.scoring import (
    check_belongs,
    compared,
    frechet_reference,
    open_networks,
    protocol_of,
    recognised_share,
)
from varient.evaluation.uncertainty import frechet_spread
from varient.files import check_writable, sha256_of
from varient.models.build import load_tokenizer
from varient.models.vqvae import VQVAE, from_uint8, to_uint8
from varient.records import ReconstructionRecord, ScaleReconstruction, provenance, write_record

_ENCODED_AT_ONCE = 64


def score_reconstructions(config: ExperimentConfig, tokenizer: Path, samples: Sequence[Path],
                          reference: Sequence[Path], run_dir: Path, output: Path,
                          device: str = "cpu") -> ReconstructionRecord:
    """Score reconstructions after each scale 1..K under the experiment's protocol and write the record.

    Args:
        samples: real images, as archives or a folder.
        device: of the features; the tokenizer runs there too.

    Raises:
        SampleError, ProtocolError, ExtractorError, FeatureError, CheckpointError: inputs that are missing, damaged or
            do not fit.
        ScoreError: images of another experiment or size.
        OutputError: a record that could not be written.
    """
    check_writable(output)
    images, real = open_samples(samples), open_reference(reference)
    check_belongs(config, images, real)
    protocol = protocol_of(config.evaluation, len(images), len(real.images) if real.images else 0)
    if not protocol.frechet:
        raise ProtocolError(f"protocol {protocol.name}: has no FID, by which reconstructions are scored")
    found = check(protocol, images, real, config.evaluation.inception_weights)
    extractor, judge, weights = open_networks(config, protocol, run_dir, device)
    network = load_tokenizer(config, tokenizer).eval().to(device)
    features = compared(extract_in_memory(real.images, extractor), protocol) if real.images else None
    target = frechet_reference(protocol.feature_layer, "mu", "sigma", protocol, real, features)
    token_NL = encoded(images, network)
    scales = []
    for k in config.pyramid.scales:
        rebuilt = reconstructed(images, token_NL, network, k)
        feature_NF = compared(extract_in_memory(rebuilt, extractor), protocol).layers[protocol.feature_layer]
        fid = frechet_spread(feature_NF, target, labels_N=rebuilt.labels)
        recognised = recognised_share(judge, rebuilt) if judge else None
        scales.append(ScaleReconstruction(scale=k, side=config.pyramid.side(k), tokens=config.pyramid.tokens(k),
                                          fid=fid.point, fid_sd=fid.sd, recognised=recognised))
    record = ReconstructionRecord(
        protocol=protocol.name, extractor=extractor.name, num_images=len(images), images_sha256=images.sha256,
        reference_sha256=real.sha256, patch_nums=config.patch_nums, scales=tuple(scales),
        warnings=(*found, *pixel_warnings(images)),
        provenance=provenance(experiment=config.name, seed=config.seed, on=extractor.device,
                              settings=config.digest("data", "patch_nums", "tokenizer", "evaluation"),
                              weights_sha256={"extractor": extractor.sha256, "tokenizer": sha256_of(tokenizer),
                                              **weights}))
    write_record(output, record)
    return record


@torch.no_grad()
def encoded(images: ImageSource, tokenizer: VQVAE) -> np.ndarray:
    """Tokens of all scales of each image, int32 (N, L)."""
    device = next(tokenizer.parameters()).device
    return np.concatenate([
        tokenizer.encode(from_uint8(torch.from_numpy(image_B3SS).to(device))).to("cpu", torch.int32).numpy()
        for image_B3SS in images.batches(_ENCODED_AT_ONCE)])


def reconstructed(images: ImageSource, token_NL: np.ndarray, tokenizer: VQVAE, last_scale: int) -> ImageSource:
    """The images decoded from their tokens of scales 1..last_scale; computed when they are read, not stored."""
    device = next(tokenizer.parameters()).device

    @torch.no_grad()
    def read(begin: int, end: int) -> np.ndarray:
        idx_BL = torch.from_numpy(token_NL[begin:end]).to(device, torch.int64)
        return to_uint8(tokenizer.decode_latent(tokenizer.quantize.f_hats(idx_BL, last_scale)[-1])).cpu().numpy()

    return replace(images, read=read, place=f"{images.place} (scales 1..{last_scale})")
