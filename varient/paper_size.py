"""Whether an experiment is the paper's own, and whether a record is of it: one rule for verdicts, tables and figures.

The paper's experiment has the size of VAR-d30 on ImageNet at 256 x 256, its number of images and its protocol, and
starts from the weights that were released.  A record counts as the paper's only if all of that is so and if it is of
the config that it claims to be of.  Weights are known by their published hashes (`varient.paper.released`): results of
other files, or of files whose hash nobody published, are marked, and decide nothing.  Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from varient.config import PROFILED, REHEARSAL, CachePolicy, ExperimentConfig, TokenizerSpec
from varient.cost.paper_systems import paper_system
from varient.cost.parameters import vqvae_parameters
from varient.paper import DEPTH
from varient.paper.released import why_unknown
from varient.profile_records import ProfileRecord
from varient.pyramid import VAR_256
from varient.records import CPU, ScoreRecord
from varient.results import Results
from varient.systems.ids import VarId, base_system
from varient.systems.lineage import imported_networks
from varient.systems.protocol import System
from varient.systems.registry import family_of, resolve_system
from varient.targets import PAPER_EXPERIMENT

PROTOCOL = "adm"
"""Whose Inception features and reference the paper's scores are of."""
NUM_IMAGES = 50_000
SIDE, NUM_CLASSES = 256, 1000
REAL = "real-"
"""How the records of real images are called."""
UNKNOWN_WEIGHTS = "unknown weights"
_EXTRACTORS = {"adm": "extractor", REHEARSAL: "extractor", "torch-fidelity": "extractor",
               "clean-fid": "clean-fid-extractor", "fd-dinov2": "dinov2-extractor", "cmmd": "clip-extractor"}
"""What the network of a protocol is among the released files."""


def is_meant(config: ExperimentConfig) -> bool:
    """Whether the experiment goes by the paper's: by its name, or as VAR-d30 on ImageNet.  Else it is a miniature."""
    return config.name == PAPER_EXPERIMENT or (
        config.data.source == "imagenet" and config.data.image_size == SIDE and config.transformer.depth == DEPTH)


def is_paper_size(config: ExperimentConfig) -> bool:
    """Whether the networks are the paper's in every size, on images of the paper's."""
    return not size_differences(config)


def size_differences(config: ExperimentConfig) -> tuple[str, ...]:
    """What makes the networks or the images of an experiment others than the paper's; empty where nothing does."""
    paper = paper_system(str(VarId("var", DEPTH)))
    pairs: dict[str, tuple[object, object]] = {
        "source of images": (config.data.source, "imagenet"), "side": (config.data.image_size, SIDE),
        "classes": (config.data.num_classes, NUM_CLASSES), "depth": (config.transformer.depth, DEPTH),
        "scales": (config.patch_nums, VAR_256.patch_nums),
        "parameters": (_parameters(config), paper.transformer_parameters[0]),
        "parameters of the tokenizer": (vqvae_parameters(config.tokenizer.model, len(config.patch_nums)),
                                        vqvae_parameters(TokenizerSpec(), VAR_256.num_scales)),
    }
    return _differences(pairs)


def differences(config: ExperimentConfig) -> tuple[str, ...]:
    """All that makes an experiment another than the paper's: sizes, number of images, protocol."""
    return size_differences(config) + _differences({
        "images": (config.sampling.num_images, NUM_IMAGES), "protocol": (config.evaluation.protocol, PROTOCOL)})


def unknown_weights(config: ExperimentConfig, record: ScoreRecord | ProfileRecord) -> dict[str, str]:
    """Files behind a record that are not known to be the released ones: network -> why.

    They are the experiment's imported networks, and the network and reference of its protocol.  A profile with random
    weights has none, nor has an experiment that trains all of its networks itself.
    """
    found: dict[str, str | None] = {}
    sources, system = record.provenance.imported_sha256, _system(config, record)
    if system and getattr(record, "weights", "trained") == "trained":
        found |= {name: sources.get(name) for name in imported_networks(system, config)}
    if isinstance(record, ScoreRecord) and (extractor := _EXTRACTORS.get(record.protocol)):
        found |= {extractor: record.provenance.weights_sha256.get("extractor"), "reference": record.reference_sha256}
    return {name: why for name, digest in found.items() if (why := why_unknown(name, digest))}


def record_differences(config: ExperimentConfig, record: ScoreRecord | ProfileRecord) -> tuple[str, ...]:
    """How a record contradicts the config that it claims to be of; empty where it does not."""
    system = _system(config, record)
    if system is None and not record.system.startswith(REAL):
        return (f"{config.name} has no such system",)
    pairs: dict[str, tuple[object, object]]
    if isinstance(record, ScoreRecord):
        settings = config.digest(*config.sampling.image_sections, "evaluation")
        pairs = {"protocol": (record.protocol, config.evaluation.protocol)}
        if system:
            pairs |= {"images": (record.num_images, config.sampling.num_images)}
    else:
        settings = config.digest(*PROFILED, f"systems.{family_of(record.system, config)}")
        counted = sum(system.parameters().values()) if system else 0
        pairs = {"parameters": (record.num_parameters, counted)}
    pairs |= {"seed": (record.provenance.seed, config.seed)}
    found = [f"{what} {here}, the config's {wanted}" for what, (here, wanted) in pairs.items() if here != wanted]
    return (*found, *(("made with other settings",) if record.provenance.settings != settings else ()))


def on_cpu(benchmarks: Iterable[ProfileRecord], batch_size: int) -> dict[tuple[str, CachePolicy], ProfileRecord]:
    """Profiles of the paper's networks with random weights in float32 on a CPU, by system and cache."""
    return {(record.system, record.cache_policy): record for record in benchmarks
            if record.batch_size == batch_size and record.precision == "fp32" and record.weights.startswith("random")
            and not record.acceleration and record.provenance.made_on.startswith(CPU)
            and record.num_parameters == _published(record.system)}


def _published(system: str) -> int | None:
    """Parameters of a system at its authors' size; None for one that the cost model does not know."""
    try:
        return sum(paper_system(system).transformer_parameters)
    except ValueError:
        return None


def marks(config: ExperimentConfig, results: Results) -> dict[str, str]:
    """What has to be said beside results of an experiment, each under a few words; nothing of a sound one."""
    records = _own_records(config, results)
    contradicted = [(why, record) for record in records for why in record_differences(config, record)]
    said = {
        f"A rehearsal ({REHEARSAL})": "its numbers are comparable with nothing"
                                      if config.evaluation.protocol == REHEARSAL else "",
        "Not the paper's experiment, and nothing of it is ImageNet's": "; ".join(differences(config))
                                                                       if is_meant(config) else "",
        UNKNOWN_WEIGHTS.capitalize(): unknown_files(config, records),
        "Not as the config says": _grouped(contradicted)}
    return {title: text for title, text in said.items() if text}


def unknown_files(config: ExperimentConfig, records: Iterable[ScoreRecord | ProfileRecord]) -> str:
    """All files behind some records that are not known to be the released ones, in words; empty without any."""
    by_reason: dict[str, dict[str, None]] = {}
    for record in records:
        for network, why in unknown_weights(config, record).items():
            by_reason.setdefault(why, {})[network] = None
    return "; ".join(f"{', '.join(networks)} ({why})" for why, networks in by_reason.items())


def warnings(config: ExperimentConfig, results: Results) -> str:
    """What the records themselves warn of; empty where they do not."""
    return _grouped([(_without_place(warning), record) for record in _own_records(config, results)
                     for warning in getattr(record, "warnings", ())])


def _own_records(config: ExperimentConfig, results: Results) -> list[ScoreRecord | ProfileRecord]:
    records: list[ScoreRecord | ProfileRecord] = [*results.scores.values(), *results.profiles.values()]
    return [record for record in records if record.provenance.experiment == config.name]


def _grouped(found: Sequence[tuple[str, ScoreRecord | ProfileRecord]]) -> str:
    """Each text once, with how many records it is said of, or which one."""
    by_text: dict[str, list[str]] = {}
    for text, record in found:
        by_text.setdefault(text, []).append(f"{record.kind} of {record.system}")
    return "; ".join(f"{text}: {names[0] if len(names) == 1 else f'{len(names)} records'}"
                     for text, names in by_text.items())


def _without_place(warning: str) -> str:
    """A warning without the file or folder that it begins with, so that those of several systems are one."""
    place, separator, text = warning.partition(": ")
    return text if separator and ("/" in place or "." in place) else warning


def _system(config: ExperimentConfig, record: ScoreRecord | ProfileRecord) -> System | None:
    """The system of a record; None for real images, and for one that the experiment does not have."""
    try:
        return None if record.system.startswith(REAL) else resolve_system(record.system, config)
    except ValueError:
        return None


def _parameters(config: ExperimentConfig) -> int:
    return sum(resolve_system(base_system(config), config).parameters().values())


def _differences(pairs: dict[str, tuple[object, object]]) -> tuple[str, ...]:
    return tuple(f"{what} {here}, the paper's {papers}" for what, (here, papers) in pairs.items() if here != papers)
