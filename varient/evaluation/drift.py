"""Regression check: whether the code still generates the images and scores of an accepted baseline.

The baseline, `results/baseline/`, holds small networks trained on digits, their sampling settings, a hash of each image
that they generated, and the scores of these images.  A check generates the same images again from the same seeds.  On
the same machine every bit agrees.  On another machine matrix products round differently, which occasionally changes a
token.  The rate of such changes is estimated when the baseline is made: every weight is perturbed by one unit in its
last place, up or down, and the images that change are counted.  More changes than that are drift.

Baseline and check always run on the CPU: a GPU rounds differently in many more places than this perturbation covers.

A check covers tokenizer, transformer, plans, cache, guidance, filters, sampling, decoder, features and scores.  It does
not cover training, which the score records of a whole run do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import model_validator
from scipy.stats import betabinom
from torch import nn
from tqdm import tqdm

from varient import markdown
from varient.archive import Archive
from varient.config import ExperimentConfig, load_config
from varient.devices import wanting
from varient.evaluation.extractors import ClassifierExtractor
from varient.evaluation.image_source import Reference, digests_of, source_of
from varient.evaluation.scoring import protocol_of, score
from varient.files import sha256_of, write_text
from varient.generation import images, label_of
from varient.models.build import load_classifier
from varient.models.checkpoint import copy_in_half_precision
from varient.records import Amount, Count, Number, Positive, Provenance, Record, provenance, read_record, write_record
from varient.systems.protocol import Sampler
from varient.systems.registry import resolve_system
from varient.training.data import load_images

SYSTEMS = ("variant-d4", "variant-d4-full")
"""Subnet and full network of one supernet: both plans from one weight file."""
NUM_IMAGES = 500
VARIANTS = 10
"""Perturbed copies of the weights that are sampled when a baseline is made."""
UNIT = 2.0 ** -23
"""A unit in the last place of a float32 in [1, 2)."""
ALARM = 1e-4
"""Probability of a false alarm for each system, if another machine changes images as often as the perturbation."""
STEPS = 4.0
"""Number of standard deviations within which a score may differ, scaled by the allowed share of changed images."""
SCORES = ("fid", "inception_score", "kid", "precision", "recall")


class DriftError(ValueError):
    """A baseline that is missing or damaged."""


class SystemBaseline(Record):
    """Digests and scores of the images of one system."""

    digests: list[str]
    """SHA-256 of each image's pixels, by index; the first 16 digits."""
    scores: dict[str, Number]
    scores_sd: dict[str, Amount]
    changed: list[Count]
    """Images that changed in each perturbed variant."""

    def allowed_changes(self, num_images: int) -> int:
        """Number of changed images, of ``num_images``, that is exceeded with a probability of at most `ALARM`.

        The count is beta-binomial: a uniform prior on the rate of changes, updated by the counts of the variants.
        """
        drawn = len(self.changed) * len(self.digests)
        return int(betabinom.isf(ALARM, num_images, 1 + sum(self.changed), 1 + drawn - sum(self.changed)))


class Baseline(Record):
    """The accepted state."""

    systems: dict[str, SystemBaseline]
    num_images: Positive
    provenance: Provenance

    @model_validator(mode="after")
    def _is_whole(self) -> Baseline:
        if set(self.systems) != set(SYSTEMS):
            raise ValueError(f"has {', '.join(self.systems) or 'nothing'}, expected {', '.join(SYSTEMS)}")
        for name, system in self.systems.items():
            if len(system.digests) != self.num_images or not system.changed or max(system.changed) > self.num_images:
                raise ValueError(f"{name}: {len(system.digests)} digests of {self.num_images} images, "
                                 f"changes in {len(system.changed)} variants: {max(system.changed, default=0)}")
            if set(system.scores) != set(SCORES) or set(system.scores_sd) != set(SCORES):
                raise ValueError(f"{name}: scores are {', '.join(system.scores)}, expected {', '.join(SCORES)}")
        return self


@dataclass(frozen=True)
class Finding:
    """One compared quantity."""

    system: str
    what: str
    baseline: float
    now: float
    tolerance: float

    @property
    def moved(self) -> bool:
        """Whether the difference exceeds the tolerance; NaN does."""
        return not abs(self.now - self.baseline) <= self.tolerance


def check_drift(folder: Path, num_images: int | None = None) -> list[Finding]:
    """Generate the baseline's images again and compare.

    Args:
        folder: `results/baseline`.
        num_images: compare only so many, the first ones; scores are then not compared.

    Raises:
        DriftError: no baseline there.
        CheckpointError, RecordError: files of it that are damaged.
    """
    baseline, config = open_baseline(folder)
    findings = []
    for name, accepted in baseline.systems.items():
        drawn = _draw(accepted_sampler(name, config, folder), config, num_images or baseline.num_images)
        old_digests = accepted.digests[:len(drawn)]
        changed = sum(new != old for new, old in zip(_short(drawn), old_digests, strict=True))
        allowed = accepted.allowed_changes(len(drawn))
        findings.append(Finding(name, "changed images", 0, changed, allowed))
        if num_images is None:
            now, _ = _scores(folder, config, drawn)
            share = allowed / len(drawn)  # redrawn images differ from the old ones as two independent draws do
            findings += [Finding(name, score_name, value, now[score_name],
                                 STEPS * accepted.scores_sd[score_name] * (2 * share) ** 0.5)
                         for score_name, value in accepted.scores.items()]
    return findings


def open_baseline(folder: Path) -> tuple[Baseline, ExperimentConfig]:
    """The accepted state, and the config of its networks, which are the files that it was made with.

    Raises:
        DriftError: no baseline there, or other networks.
        RecordError, ConfigError: files of it that are damaged.
    """
    if not (folder / "drift.json").exists():
        raise DriftError(f"{folder}: no baseline (drift.json); start from the project's folder or give --baseline")
    baseline, config = read_record(folder / "drift.json", Baseline), load_config(folder / "config.json")
    for name, digest in baseline.provenance.weights_sha256.items():
        path = folder / f"{name}.safetensors"
        if not path.exists() or sha256_of(path) != digest:
            raise DriftError(f"{path}: missing, or not the file that the baseline was made with")
    return baseline, config


def update_baseline(config: ExperimentConfig, run_dir: Path, folder: Path) -> Baseline:
    """Make a baseline of the current code from the networks of a run, which are stored in half precision.

    Raises:
        CheckpointError: a network that the run does not have.
    """
    needed = sorted({name for system in SYSTEMS for name in resolve_system(system, config).weights})
    for name in (*needed, "classifier-features"):
        copy_in_half_precision(run_dir / f"{name}.safetensors", folder / f"{name}.safetensors")
    sampling = config.sampling.model_copy(update={"num_images": NUM_IMAGES, "shards": 1, "batch_size": 100})
    config = config.model_copy(update={"sampling": sampling, "systems": {}, "rows": ()})
    write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")
    systems = {}
    for name in SYSTEMS:
        sampler = accepted_sampler(name, config, folder)
        drawn = _draw(sampler, config, NUM_IMAGES)
        digests = _short(drawn)
        changed = []
        for variant in tqdm(range(VARIANTS), desc=f"{name}, perturbed"):
            with _perturbed(sampler.networks, variant):
                other = _short(_draw(sampler, config, NUM_IMAGES))
            changed.append(sum(new != old for new, old in zip(other, digests, strict=True)))
        values, sds = _scores(folder, config, drawn)
        systems[name] = SystemBaseline(digests=digests, scores=values, scores_sd=sds, changed=changed)
    weights = {name: sha256_of(folder / f"{name}.safetensors") for name in (*needed, "classifier-features")}
    baseline = Baseline(systems=systems, num_images=NUM_IMAGES, provenance=provenance(
        experiment=config.name, seed=config.seed, settings=config.digest(), weights_sha256=weights, on="cpu"))
    write_record(folder / "drift.json", baseline)
    return baseline


def accepted_sampler(name: str, config: ExperimentConfig, folder: Path) -> Sampler:
    """A system of the baseline with its networks, on the CPU."""
    with wanting("cpu"):
        return resolve_system(name, config).load(folder, "fp32")


def _draw(sampler: Sampler, config: ExperimentConfig, num_images: int) -> np.ndarray:
    labels = [label_of(index, config.data.num_classes) for index in range(num_images)]
    size = config.sampling.batch_size
    return np.concatenate([images(sampler, labels[at:at + size], range(at, min(at + size, num_images)), config.seed)
                           for at in range(0, num_images, size)])


def _short(drawn: np.ndarray) -> list[str]:
    return [digest.tobytes().hex()[:16] for digest in digests_of(drawn)]


def _scores(folder: Path, config: ExperimentConfig, drawn: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of the images against the real ones, and their standard deviations."""
    real = load_images(config.data, "train")
    labels = np.array([label_of(index, config.data.num_classes) for index in range(len(drawn))])
    generated = source_of(Archive(drawn, labels, np.arange(len(drawn)), {"system": "drift"}))
    reference = source_of(Archive(real.images.numpy(), real.labels.numpy(), np.arange(len(real)), {"system": "real"}))
    protocol = protocol_of(config.evaluation, len(drawn), len(real))
    extractor = ClassifierExtractor(load_classifier(config, folder / "classifier-features.safetensors"))
    record = score(protocol, extractor, generated, Reference("real digits", reference, {}))
    return ({name: getattr(record, name) for name in SCORES}, {name: getattr(record, f"{name}_sd") for name in SCORES})


@contextmanager
def _perturbed(networks: Sequence[nn.Module], variant: int) -> Iterator[None]:
    """The networks with every weight moved by a unit in its last place, up or down at random."""
    draws = torch.Generator().manual_seed(variant)
    kept = [{name: tensor.clone() for name, tensor in network.state_dict().items()} for network in networks]
    with torch.no_grad():
        for network in networks:
            for parameter in network.parameters():
                sign = torch.randint(0, 2, parameter.shape, generator=draws).mul_(2).sub_(1)
                parameter.mul_(1 + UNIT * sign)
    try:
        yield
    finally:
        for network, state in zip(networks, kept, strict=True):
            network.load_state_dict(state)


def report(findings: Sequence[Finding]) -> str:
    """What was compared, as a Markdown table, beginning with what changed."""
    return markdown.table(("system", "what", "baseline", "now", "tolerance", ""), (
        (found.system, found.what, *(f"{value:.4g}" for value in (found.baseline, found.now, found.tolerance)),
         "moved" if found.moved else "holds") for found in sorted(findings, key=lambda found: not found.moved)))
