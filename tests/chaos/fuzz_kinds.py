"""The kinds of files that are fuzzed: how one is made, what reads it in the product, and how it is damaged.

A reader returns the bytes of the tensors, images or numbers that it got, or None where the product goes on without the
file, as it does with damaged states and caches.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from conftest import ROOT
from mutations import (
    Damage,
    odd_arrays,
    odd_cells,
    odd_header,
    odd_json,
    odd_pickle,
    odd_safetensors_header,
    odd_tensors,
    odd_text,
    odd_yaml,
)
from PIL import Image
from record_factory import fidelity, profile, provenance, reconstruction, score
from torch import nn

from varient.ablations import arms
from varient.archive import Archive, write_archive
from varient.claims import Judgement
from varient.cli import app
from varient.config import ExperimentConfig, Optimizer, load_config
from varient.evaluation.drift import Baseline
from varient.evaluation.features import Features, read_features, write_features
from varient.evaluation.image_source import ImageSource, digests_of
from varient.evaluation.inputs import open_reference, open_samples
from varient.experiment import load_experiment, named_files
from varient.export import export_adm, export_png
from varient.generation import FinishedBatches
from varient.models.build import build_tokenizer, build_transformer, load_tokenizer, without_weights
from varient.models.checkpoint import read_description, save_weights
from varient.models.official import import_tokenizer
from varient.profile_records import ProfileRecord
from varient.records import FidelityRecord, ReconstructionRecord, Record, ScoreRecord, read_record, write_record
from varient.report.figures import FIGURES, figure_needs
from varient.report.tables import TABLES
from varient.results import Results
from varient.speed import PAIRS, SpeedBaseline
from varient.systems.registry import networks_of, resolve_system
from varient.training.course import base_course, supernet_course
from varient.training.curves import read_curves
from varient.training.hardware import Hardware
from varient.training.image_folder import ImageFolder
from varient.training.loop import fit
from varient.training.recipes import Supernet
from varient.training.token_cache import TokenCache, TokenCacheSpec, build_token_cache

SIDE, COUNT = 8, 12
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 3, SIDE, SIDE), dtype=np.uint8)
LABELS = np.arange(COUNT) % 3
ORIGIN = {"system": "var-d6", "experiment": "smoke", "seed": 0, "settings": "x", "weights_sha256": {"base": "ab"},
          "device": "CPU", "sampling": {"num_images": COUNT}}


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Attributes:
        make: writes what is needed into a folder, and returns the file to damage.
        read: reads it as the product does.
        damages: what is done to it besides damage of any bytes.
        sealed: whether its content has checksums, so that changed bytes must not come out as a changed content.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], bytes | None]
    damages: tuple[Damage, ...] = ()
    sealed: bool = True


def run(*arguments: object) -> None:
    """The command `varient`, in this process; it exits with its message where it refuses."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app([str(argument) for argument in arguments], standalone_mode=False)


def _bytes(arrays: Iterable[np.ndarray]) -> bytes:
    return b"".join(f"{array.dtype} {array.shape}".encode() + array.tobytes() for array in arrays)


@cache
def smoke() -> ExperimentConfig:
    """The experiment that all files are of."""
    return load_config(ROOT / "workflow/config/smoke.yaml")


# Configs

def _config(name: str, folder: Path) -> Path:
    return Path(shutil.copy(ROOT / f"workflow/config/{name}.yaml", folder / "config.yaml"))


def _read_config(path: Path) -> bytes:
    """A config that is accepted has to work: all that it describes is built, without weights."""
    run("check", "--config", path)
    config = load_experiment(path)
    if config.transformer.depth <= 60:
        _build_everything(config)
    return config.model_dump_json().encode()


def _build_everything(config: ExperimentConfig) -> None:
    without_weights(lambda: build_tokenizer(config))
    without_weights(lambda: build_transformer(config))
    networks_of(config)
    named_files(config)
    for name in {arm.system for arm in (arms(config) if config.ablations else ())} | {*config.rows}:
        system = resolve_system(name, config)
        system.parameters()
        system.protocol()
    for recipe in (None, *config.supernet.recipes):
        for depth in config.supernet.depths:
            supernet_course(config, Supernet(depth, recipe))
    if config.base.training:
        base_course(config)
    for figure in FIGURES:
        figure_needs(figure, config)
    for table in TABLES.values():
        table.needs(config)


# Images, features and curves

def _archive(folder: Path) -> Path:
    for begin, end in ((0, 5), (5, COUNT)):
        write_archive(folder / f"shard-{begin}.npz",
                      Archive(IMAGES[begin:end], LABELS[begin:end], np.arange(begin, end), ORIGIN))
    return folder / "shard-0.npz"


def _read_samples(path: Path) -> bytes:
    return _content(open_samples([path.parent]))


def _content(source: ImageSource) -> bytes:
    """Images and labels; both are looked at in batches, as scoring does."""
    digest = hashlib.sha256()
    for images in source.batches(5):
        digest.update(images.tobytes())
    labels = b"" if source.labels is None else source.labels.tobytes()
    _ = source.warnings, source.describe()
    return digest.digest() + source.indices.tobytes() + labels


def _adm(save: Callable[..., None], folder: Path) -> Path:
    features = np.random.default_rng(1).normal(size=(30, 4))
    save(folder / "adm.npz", arr_0=IMAGES.transpose(0, 2, 3, 1), arr_1=LABELS, mu=features.mean(axis=0),
         sigma=np.cov(features, rowvar=False))
    return folder / "adm.npz"


def _read_reference(path: Path) -> bytes:
    reference = open_reference([path])
    assert reference.sha256
    return (_content(reference.images) if reference.images else b"") + _bytes(
        reference.statistics[name] for name in sorted(reference.statistics))


def _exported(form: str, folder: Path) -> Path:
    """The manifest of an export; the images beside it."""
    (folder / "run").mkdir()
    _archive(folder / "run")
    if form == "adm":
        export_adm([folder / "run"], folder / "out.npz")
        return folder / "out.manifest.json"
    export_png([folder / "run"], folder / "out")
    return folder / "out/manifest.json"


def _read_export(path: Path) -> bytes:
    return _content(open_samples([path.parent if path.name == "manifest.json" else path.parent / "out.npz"]))


def _picture(suffix: str, folder: Path) -> Path:
    for index, image in enumerate(IMAGES[:3]):
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(folder / f"{index}{suffix}")
    return folder / f"1{suffix}"


def _features(folder: Path) -> Path:
    layers = {"pool": np.random.default_rng(2).normal(size=(COUNT, 6)).astype(np.float32)}
    np.savez(folder / "images.npz", arr_0=IMAGES.transpose(0, 2, 3, 1), arr_1=LABELS)
    source = open_samples([folder / "images.npz"])
    write_features(folder / "features.npz", Features("net", layers, source.indices, source.labels, digests_of(IMAGES),
                                                     source.describe()))
    return folder / "features.npz"


def _read_features(path: Path) -> bytes:
    found = read_features(path)
    labels = found.labels if found.labels is not None else np.empty(0)
    return _bytes([*found.layers.values(), found.indices, labels, found.digests]) + str(found.warnings).encode()


def _batches(folder: Path) -> Path:
    FinishedBatches(folder / "unfinished", {}).keep(0, IMAGES)
    return folder / "unfinished/0.npz"


def _read_batches(path: Path) -> bytes | None:
    images = FinishedBatches(path.parent, {}).read(0, COUNT, SIDE)
    return None if images is None else images.tobytes()


def _curves(folder: Path) -> Path:
    steps = np.arange(50, dtype=np.int32)
    parts = {"step": steps, "value": (1 / (1 + steps)).astype(np.float32)}
    np.savez_compressed(folder / "curves.npz", **{f"{name}:{part}": values for name in ("loss", "gradient_norm")
                                                  for part, values in parts.items()})
    return folder / "curves.npz"


def _read_curves(path: Path) -> bytes:
    return _bytes(values for pair in read_curves(path).values() for values in pair)


# Records

def _record(record: Record, folder: Path) -> Path:
    path = folder / "run/records" / f"{record.kind}-var-d6.json"
    write_record(path, record)
    return path


def _read_record(kind: type[Record], path: Path) -> bytes:
    """Read as one of a run folder, where damaged ones are left out, and by name; shown in tables."""
    Results.found_in(path.parent.parent)
    record = read_record(path, kind)
    option = {ScoreRecord: "--score", ProfileRecord: "--profile", ReconstructionRecord: "--reconstruction",
              FidelityRecord: "--fidelity"}[kind]
    for table in (1, 2):
        run("table", "--config", ROOT / "workflow/config/smoke.yaml", table, option, path, "--output",
            path.parent / f"table{table}.csv")
    return record.model_dump_json().encode()


def _baseline(folder: Path) -> Path:
    return Path(shutil.copy(ROOT / "results/baseline/drift.json", folder))


def _speed(folder: Path) -> Path:
    accepted = SpeedBaseline(ratios=dict.fromkeys(PAIRS, 1.0), repeats=7, provenance=provenance())
    write_record(folder / "speed.json", accepted)
    return folder / "speed.json"


def _read_baseline(kind: type[Record], path: Path) -> bytes:
    return read_record(path, kind).model_dump_json().encode()


# Weights and states

def _weights(folder: Path) -> Path:
    torch.manual_seed(0)
    save_weights(folder / "tokenizer.safetensors", build_tokenizer(smoke()), {"kind": "tokenizer", "settings": "x"})
    return folder / "tokenizer.safetensors"


def _read_weights(path: Path) -> bytes:
    read_description(path)
    return _tensors(load_tokenizer(smoke(), path).state_dict())


def _tensors(state: dict[str, torch.Tensor]) -> bytes:
    return _bytes(tensor.numpy() for _, tensor in sorted(state.items()))


def _released(folder: Path) -> Path:
    torch.manual_seed(0)
    torch.save(build_tokenizer(smoke()).state_dict(), folder / "vae.pth")
    return folder / "vae.pth"


def _read_released(path: Path) -> bytes:
    model, description = import_tokenizer(smoke(), path)
    json.dumps(description)
    return _tensors(model.state_dict())


class _Stop(Exception):
    pass


def _train(folder: Path, stop_at: int | None = None) -> bytes:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)

    def loss(step: int) -> torch.Tensor:
        if step == stop_at:
            raise _Stop
        return (model(torch.randn(8, 4)) - 1).square().mean()

    fit(model, loss, steps=10, settings=Optimizer(learning_rate=0.01, batch_size=8), seed=0, work_dir=folder,
        identity="x:y", title="net", hardware=Hardware(save_every=3))
    return _tensors(model.state_dict())


def _state(folder: Path) -> Path:
    with contextlib.suppress(_Stop), contextlib.redirect_stderr(io.StringIO()):
        _train(folder / "training", stop_at=8)
    return max((folder / "training").glob("states-*/state-*.pt"))


def _read_state(path: Path) -> bytes:
    """A training that goes on from the state, or from the one before it: its weights are the same either way."""
    with contextlib.redirect_stderr(io.StringIO()):
        return _train(path.parent.parent)


# Caches

SPEC = TokenCacheSpec(tokenizer_sha256="t", images_sha256="i", preprocessing={"image_size": SIDE, "resize": 1},
                      flipped=False, num_images=COUNT, num_classes=3, tokens_per_image=5, vocab_size=16, shard_size=5)


def _token_cache(name: str, folder: Path) -> Path:
    from varient.training.data import LabeledImages

    source = LabeledImages(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    spec = SPEC.model_copy(update={"images_sha256": source.identity})
    with contextlib.redirect_stderr(io.StringIO()):
        build_token_cache(folder / "tokens", source, spec, lambda image: (image.flatten(1)[:, :5] > 0).long())
    (folder / "spec.json").write_text(spec.model_dump_json())
    return folder / "tokens" / name


def _read_token_cache(path: Path) -> bytes:
    spec = TokenCacheSpec.model_validate_json((path.parents[1] / "spec.json").read_text())
    found = TokenCache(path.parent, spec)
    TokenCache(path.parent, spec, check_hashes=False)
    tokens = found.tokens(torch.arange(COUNT), torch.zeros(COUNT, dtype=torch.bool))
    return _bytes([tokens.numpy(), found.labels.numpy()])


def _index(folder: Path) -> Path:
    for label in range(3):
        (folder / f"images/train/{label}").mkdir(parents=True)
        Image.fromarray(IMAGES[label].transpose(1, 2, 0).copy()).save(folder / f"images/train/{label}/0.png")
    _open_index(folder / "index.npz")
    return folder / "index.npz"


def _open_index(path: Path) -> ImageFolder:
    return ImageFolder(path.parent / "images", "train", num_classes=3, index=path)


def _read_index(path: Path) -> bytes:
    """A damaged index is made again, so that the images are the same."""
    found = _open_index(path)
    return _bytes(found.load(index).numpy() for index in range(len(found))) + found.labels.numpy().tobytes()


# Results

CLAIMS = ({"where": "Table 2", "claim": "VARiant-d16: KV cache", "printed": "16092", "verdict": "contradicts",
           "found": "17091.6 MB", "evidence": "the formula gives 17091.6", "source": "arithmetic"},
          {"where": "Table 4", "claim": "FID", "printed": "2.05", "verdict": "open"},
          {"where": "text", "claim": "FID of d8", "printed": "2.15", "verdict": "contradicts", "found": "2.12",
           "evidence": "Different value", "source": "paper"})
TABLE2 = "method,system,fid,fid_pm,latency_s\nVAR-d30,var-d30,0.666,0.057,0.4\nreal images,real,0.1,,\n"


def _results(name: str, folder: Path) -> Path:
    with (folder / "claims.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Judgement)], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(CLAIMS)
    (folder / "table2.csv").write_text(TABLE2)
    Image.fromarray(IMAGES[0].transpose(1, 2, 0).copy()).save(folder / "figure.png")
    return folder / name


def _read_results(path: Path) -> bytes:
    folder = path.parent
    run("opening", folder / "claims.csv", folder / "table2.csv", folder / "figure.png", "--output",
        folder / "opening.rst", "--summary", folder / "summary.html")
    page, summary = (folder / "opening.rst").read_text(), (folder / "summary.html").read_text()
    if re.search(r"^ *\.\. (include|raw)", page, re.MULTILINE) or "<script" in summary:
        raise RuntimeError("a cell became a directive or a tag")
    return (page + summary).encode()


TEXT = (odd_text,)
NPZ = (odd_arrays, odd_header)
KINDS = {kind.name: kind for kind in (
    *(Kind(f"config-{name}", partial(_config, name), _read_config, (odd_yaml,) * 4 + TEXT, sealed=False)
      for name in ("smoke", "digits", "imagenet256")),
    Kind("archive", _archive, _read_samples, NPZ),
    Kind("adm", partial(_adm, np.savez), _read_reference, NPZ),
    Kind("adm-packed", partial(_adm, np.savez_compressed), _read_reference, NPZ),
    Kind("features", _features, _read_features, NPZ),
    Kind("curves", _curves, _read_curves, NPZ),
    Kind("unfinished-batch", _batches, _read_batches, NPZ),
    Kind("image-index", _index, _read_index, NPZ),
    Kind("png", partial(_picture, ".png"), _read_samples),
    Kind("jpeg", partial(_picture, ".jpg"), _read_samples, sealed=False),
    Kind("manifest-adm", partial(_exported, "adm"), _read_export, (odd_json, odd_json, *TEXT), sealed=False),
    Kind("manifest-png", partial(_exported, "png"), _read_export, (odd_json, odd_json, *TEXT), sealed=False),
    Kind("manifest-tokens", partial(_token_cache, "manifest.json"), _read_token_cache, (odd_json, odd_json, *TEXT)),
    Kind("tokens", partial(_token_cache, "tokens-00001.npy"), _read_token_cache),
    Kind("record-score", partial(_record, score("var-d6", 1.25, 0.05, experiment="smoke", inception_score=5.0,
                                                precision=0.8)), partial(_read_record, ScoreRecord),
         (odd_json, odd_json, odd_json, *TEXT), sealed=False),
    Kind("record-profile", partial(_record, profile("var-d6", [0.1, 0.2, 0.3], experiment="smoke",
                                                    latency_by_scale_s=[0.02] * 10, energy_j_per_image=2.5,
                                                    idle_w=60.0)),
         partial(_read_record, ProfileRecord), (odd_json, odd_json, odd_json, *TEXT), sealed=False),
    Kind("record-reconstruction", partial(_record, reconstruction(smoke(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0.5])),
         partial(_read_record, ReconstructionRecord), (odd_json, odd_json, odd_json, *TEXT), sealed=False),
    Kind("record-fidelity", partial(_record, fidelity("base", "var-d6", "free-d4", experiment="smoke",
                                                      reference="var-d6")),
         partial(_read_record, FidelityRecord), (odd_json, odd_json, odd_json, *TEXT), sealed=False),
    Kind("baseline", _baseline, partial(_read_baseline, Baseline), (odd_json, *TEXT), sealed=False),
    Kind("speed", _speed, partial(_read_baseline, SpeedBaseline), (odd_json, *TEXT), sealed=False),
    Kind("weights", _weights, _read_weights, (odd_safetensors_header, odd_safetensors_header)),
    Kind("released", _released, _read_released, (odd_tensors, odd_tensors, odd_pickle)),
    Kind("state", _state, _read_state, (odd_tensors, odd_pickle)),
    *(Kind(name.partition(".")[0], partial(_results, name), _read_results, (odd_cells, odd_cells, *TEXT), sealed=False)
      for name in ("claims.csv", "table2.csv")),
)}

logging.getLogger("varient").setLevel(logging.CRITICAL)
