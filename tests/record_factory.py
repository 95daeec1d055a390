"""Records made up for the tests: whatever a test does not say is the same in all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from varient.config import ExperimentConfig
from varient.cost.paper_systems import paper_system
from varient.profile_records import ProfileRecord
from varient.records import FidelityRecord, HeldOutRecord, Provenance, ReconstructionRecord, ScoreRecord
from varient.results import Results


def provenance(experiment: str = "digits", device: str = "CPU", **changes: Any) -> Provenance:
    values = {"experiment": experiment, "seed": 0, "settings": "x", "weights_sha256": {}, "device": device,
              "threads": 1, "versions": {}, "git_commit": None, "created": "2026-01-01T00:00:00+00:00"}
    return Provenance(**values | changes)


def score(system: str, fid: float, fid_sd: float | None = 0.02, *, experiment: str = "digits", device: str = "CPU",
          **changes: Any) -> ScoreRecord:
    values = {"system": system, "protocol": "digits", "extractor": "x", "num_images": 2000, "num_reference": 1437,
              "images_sha256": "ab", "reference_sha256": "cd", "fid": fid, "fid_sd": fid_sd, "fid_bias": 0.1,
              "provenance": provenance(experiment, device)}
    return ScoreRecord(**values | changes)


def profile(system: str, repeats_s: Sequence[float], *, experiment: str = "digits", device: str = "CPU",
            **changes: Any) -> ProfileRecord:
    latency = {"median_s": sorted(repeats_s)[len(repeats_s) // 2], "iqr_s": None, "repeats_s": repeats_s}
    values = {"system": system, "status": "ok", "reason": None, "steps": "6+4", "batch_size": 64, "precision": "fp32",
              "cache_policy": "lean", "weights": "trained", "num_parameters": 574_012, "latency": latency,
              "decoder_latency": latency, "warmup": 1, "memory": {"tensors_mib": 30.0, "kv_cache_mib": 1.0},
              "gpu_driver": None, "provenance": provenance(experiment, device)}
    return ProfileRecord(**values | changes)


def cpu_profiles() -> list[ProfileRecord]:
    """VAR-d30 and its subnet of 16 layers on a CPU with random weights, in turns."""
    reference = {"median_s": 30.0, "iqr_s": None, "repeats_s": [30.0]}
    shared = {"experiment": "imagenet256", "batch_size": 1, "cache_policy": "reference",
              "num_parameters": sum(paper_system("var-d30").transformer_parameters),
              "weights": "random, seed 0, drawn by torch 2.0 on cpu",
              "memory": {"tensors_mib": 9000.0, "kv_cache_mib": 448.2421875}}
    return [profile("var-d30", [30.0], **shared), profile("variant-d16", [20.0], reference=reference, **shared)]


def reconstruction(config: ExperimentConfig, fids: Sequence[float],
                   recognised: Sequence[float] | None = None) -> ReconstructionRecord:
    """Real images rebuilt from the first scales of a config, so many as there are FIDs."""
    shares = recognised or [0.5] * len(fids)
    scales = [{"scale": k, "side": side, "tokens": config.pyramid.tokens(k), "fid": fid, "fid_sd": 0.1,
               "recognised": share}
              for k, side, fid, share in zip(config.pyramid.scales, config.patch_nums, fids, shares, strict=False)]
    return ReconstructionRecord(protocol="digits", extractor="x", num_images=360, images_sha256="ab",
                                reference_sha256="cd", patch_nums=config.patch_nums, scales=scales,
                                provenance=provenance(config.name))


def held_out(network: str, losses: Mapping[str, float], *, experiment: str = "digits", images_sha256: str = "ab",
             tokenizer: str = "cd", num_images: int = 360) -> HeldOutRecord:
    """Losses of the systems of one network."""
    found = [{"system": system, "loss": loss, "loss_sd": 0.01, "scales": [loss] * 10}
             for system, loss in losses.items()]
    weights = {"tokenizer": tokenizer, network: "ef"}
    return HeldOutRecord(network=network, num_images=num_images, images_sha256=images_sha256, losses=found,
                         provenance=provenance(experiment, weights_sha256=weights))


def fidelity(network: str, *systems: str, experiment: str = "digits", reference: str = "var-d30",
             reference_sha256: str = "ab", **changes: Any) -> FidelityRecord:
    """Systems of a network against the full one, which equals itself; ``changes`` are of each of the others."""
    equal = {"images_sha256": "ab", "identical": 1.0, "psnr_db": None, "psnr_db_sd": None, "ssim": 1.0, "ssim_sd": 0.0,
             "feature_distance": 0.0, "same_class": 1.0, "same_class_sd": 0.0, "fid": 0.0, "fid_sd": 0.01,
             "tokens": 1.0, "tokens_sd": 0.0, "tokens_by_scale": (1.0,) * 10, "examples": (0, 1, 2),
             "examples_psnr_db": (None, None, None)}
    other = {"identical": 0.0, "psnr_db": 12.345, "psnr_db_sd": 0.1, "ssim": 0.61234, "ssim_sd": 0.01,
             "feature_distance": 0.5, "same_class": 0.9, "same_class_sd": 0.005, "fid": 0.3, "tokens": 0.75,
             "tokens_sd": 0.002, "tokens_by_scale": (1.0,) * 6 + (0.5,) * 4, "examples_psnr_db": (30.0, 12.5, 8.0)}
    found = [{"system": system} | equal | ({} if system == reference else other | changes) for system in systems]
    return FidelityRecord(network=network, reference=reference, reference_sha256=reference_sha256, num_images=2000,
                          ssim_kernel=7, protocol="digits", extractor="x", judge="classifier-judge",
                          num_token_images=200, systems=found, provenance=provenance(experiment))


def of(*records: ScoreRecord) -> Results:
    """Results of score records."""
    return Results({record.system: record for record in records}, {})
