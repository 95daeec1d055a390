"""Records made up for the tests, and printed numbers changed for them."""

from __future__ import annotations

from conftest import ROOT

from varient.claims import claims
from varient.config import load_config
from varient.records import ProfileRecord, Provenance, ScoreRecord
from varient.results import Results

DIGITS = load_config(ROOT / "workflow/config/digits.yaml")
IMAGENET = load_config(ROOT / "workflow/config/imagenet256.yaml")
SMOKE = load_config(ROOT / "workflow/config/smoke.yaml")
NOTHING = Results({}, {})


def provenance(experiment="digits", device="CPU"):
    return Provenance(experiment=experiment, seed=0, settings="x", weights_sha256={}, device=device, threads=1,
                      versions={}, git_commit=None, created="2026-01-01T00:00:00+00:00")


def score(system, fid, fid_sd=0.02, *, protocol="digits", num_images=2000, experiment="digits", device="CPU", **more):
    return ScoreRecord(system=system, protocol=protocol, extractor="x", num_images=num_images, num_reference=1437,
                       images_sha256="ab", reference_sha256="cd", fid=fid, fid_sd=fid_sd, fid_bias=0.1,
                       provenance=provenance(experiment, device), **more)


def paper_size_score(system, fid, fid_sd=0.02, **changes):
    """A record as the ImageNet experiment makes it."""
    settings = {"protocol": "adm", "num_images": 50_000, "experiment": "imagenet256", "device": "NVIDIA H100"}
    return score(system, fid, fid_sd, **settings | changes)


def of(*records):
    """Results of score records."""
    return Results({record.system: record for record in records}, {})


def scores(**fids):
    """Results with a FID for each system; `__` stands for the dash that a keyword cannot have."""
    return Results({(name := key.replace("__", "-")): score(name, fid) for key, fid in fids.items()}, {})


def profile(system, repeats_s, experiment="digits", device="CPU", **changes):
    latency = {"median_s": sorted(repeats_s)[len(repeats_s) // 2], "iqr_s": None, "repeats_s": repeats_s}
    values = {"system": system, "status": "ok", "reason": None, "steps": "6+4", "batch_size": 64, "precision": "fp32",
              "cache_policy": "lean", "weights": "trained", "num_parameters": 574_012, "latency": latency,
              "decoder_latency": latency, "warmup": 1, "memory": {"tensors_mib": 30.0, "kv_cache_mib": 1.0},
              "gpu_driver": None, "provenance": provenance(experiment, device)}
    return ProfileRecord(**values | changes)


def profiles(*records):
    return Results({}, {record.system: record for record in records}, records)


def rows_instead(monkeypatch, name, change):
    """Change the rows of a file of the paper's data: a function of the list of them."""
    read = claims.paper_rows
    monkeypatch.setattr(claims, "paper_rows", lambda asked: change(read(asked)) if asked == name else read(asked))


def print_instead(monkeypatch, number, row, **changes):
    """Change cells of a table's row, by its index."""
    rows_instead(monkeypatch, f"table{number}", lambda rows: [
        cells | changes if at == row else cells for at, cells in enumerate(rows)])


def write_instead(monkeypatch, claim_id, value, name="claims", column="value"):
    """Change a row of claims.csv, or of another of the files with ids."""
    assert claim_id in [row["id"] for row in claims.paper_rows(name)]
    rows_instead(monkeypatch, name, lambda rows: [
        row | {column: value} if row["id"] == claim_id else row for row in rows])
