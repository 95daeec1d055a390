"""Checks of the user's files and images: whether they exist, have the expected layout and match published hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from varient.config import ExperimentConfig
from varient.doctor.findings import Finding, fine, note, problem
from varient.doctor.outlook import trains_on
from varient.files import sha256_of
from varient.image_tree import ImageTreeError, check_class_folders, is_image, read_folder
from varient.systems.registry import networks_of, resolve_system, user_files
from varient.yaml_file import parse_yaml

ILSVRC2012 = {"train": 1_281_167, "val": 50_000}
"""Number of images of ImageNet-1k by split."""
_THREADS = 16


class Input(NamedTuple):
    """A file of the user.

    Attributes:
        setting: key in the config that names it.
        check: reads it and returns a description; raises ValueError or OSError if it cannot be used.
    """

    setting: str
    path: Path
    check: Callable[[], str]


def check_inputs(config: ExperimentConfig) -> Iterator[Finding]:
    """Check each file of the user and the folder of images."""
    yield from check_files(inputs_of(config))
    yield from _check_images(config)


def check_files(inputs: Iterable[Input]) -> Iterator[Finding]:
    """Findings on files."""
    for given in inputs:
        if not given.path.exists():
            yield problem(given.setting, f"{given.path} is missing{_source(given.path)}")
            continue
        try:
            said = given.check()
        except (ValueError, OSError) as error:
            yield problem(given.setting, str(error), blocks=True)
            continue
        yield from _compare_hash(given, said)


def inputs_of(config: ExperimentConfig) -> list[Input]:
    """The files that a config names, each once, without those in data.root."""
    found: list[Input] = []
    for setting, part, name in (("tokenizer.weights", config.tokenizer, "check_tokenizer"),
                                ("base.weights", config.base, "check_transformer")):
        if part.weights:
            found.append(Input(setting, part.weights, partial(_check_var, config, name, part.weights)))
    for name, network in networks_of(config).items():
        if network.released:
            found.append(Input(f"network {name}", network.released, partial(_check_network, network.check)))
    for row in config.rows:
        for path in user_files(resolve_system(row, config)):
            found.append(Input(f"row {row}", path, partial(_check_beside_weights, path)))
    if config.evaluation.inception_weights:
        found.append(Input("evaluation.inception_weights", config.evaluation.inception_weights,
                           partial(_check_extractor, config)))
    if reference := config.evaluation.reference:
        found.append(Input("evaluation.reference", reference, partial(_check_reference, config, reference)))
    return list({given.path: given for given in found}.values())


def _check_var(config: ExperimentConfig, function: str, path: Path) -> str:
    from varient.models import official

    getattr(official, function)(config, path)
    return "names and shapes fit"


def _check_network(check: Callable[[], None] | None) -> str:
    if check is None:
        return "exists; its system family has no check of the content"
    check()
    return "names and shapes fit"


def _check_beside_weights(path: Path) -> str:
    """Check a file that a system reads besides its weights; of JSON and safetensors files the header is read."""
    if path.suffix != ".safetensors":
        return "is there"
    from varient.models.checkpoint import read_description

    read_description(path)
    return "is a safetensors file"


def _check_extractor(config: ExperimentConfig) -> str:
    from varient.evaluation.protocols import open_extractor, protocol_named

    settings = config.evaluation
    extractor = open_extractor(protocol_named(settings.protocol), weights=settings.inception_weights,
                               sha256=settings.weights_sha256)
    return f"SHA-256 {extractor.sha256[:16]}..., names and shapes fit"


def _check_reference(config: ExperimentConfig, path: Path) -> str:
    from varient.evaluation.inputs import open_reference
    from varient.evaluation.protocols import protocol_named, reference_problems

    protocol = protocol_named(config.evaluation.protocol)
    reference = open_reference([path])
    wrong = reference_problems(protocol, reference)
    if images := reference.images:
        if images.side != config.data.image_size:
            wrong.append(f"{path}: images of side {images.side}, data.image_size = {config.data.image_size}")
        if protocol.neighbours and protocol.num_reference and len(images) != protocol.num_reference:
            wrong.append(f"{path}: {len(images)} images; published precision and recall use "
                         f"{protocol.num_reference}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return f"statistics and {len(images) if images else 'no'} images"


def _compare_hash(given: Input, said: str) -> Iterator[Finding]:
    """Compare with the published hash: a different file of the same name gives results of unknown weights.

    This does not block the jobs.
    """
    from varient.paper.released import PUBLISHED_SHA256

    expected = PUBLISHED_SHA256.get(given.path.name)
    if expected is None:
        yield fine(given.setting, f"{given.path}: {said}")
    elif (found := sha256_of(given.path)).startswith(expected):
        yield fine(given.setting, f"{given.path}: {said}; the published file (SHA-256)")
    else:
        yield problem(given.setting, f"{given.path}: SHA-256 {found[:16]}..., but the published file of that name has "
                                     f"{expected[:16]}...: a different or damaged file")


def _check_images(config: ExperimentConfig) -> Iterator[Finding]:
    root, source = config.data.root, config.data.source
    if root is None:
        if source == "imagenet":
            yield note("data.root", "is not set: nothing can be trained")
        return
    if not root.exists():
        yield problem("data.root", f"{root} is missing{_source(Path(source))}")
    elif source == "fashion-mnist":
        yield from _check_fashion_mnist(config)
    else:
        for split in trains_on(config):
            yield from _check_split(config, root / split)


def _check_fashion_mnist(config: ExperimentConfig) -> Iterator[Finding]:
    from varient.training.fashion_mnist import FashionMnistError, read_fashion_mnist

    try:
        for part in ("train", "t10k"):
            read_fashion_mnist(config.data.folder, part, config.data.checksums)
    except FashionMnistError as error:
        yield problem("data.root", str(error))
    else:
        yield fine("data.root", f"{config.data.folder}: the four files, with the expected hashes")


def _check_split(config: ExperimentConfig, split: Path) -> Iterator[Finding]:
    subject = f"data.root/{split.name}"
    try:
        check_class_folders(split, config.data.num_classes)
    except ImageTreeError as error:
        yield problem(subject, str(error))
        return
    names = read_folder(split).folders
    with ThreadPoolExecutor(_THREADS) as pool:
        count = sum(pool.map(lambda name: sum(map(is_image, read_folder(split, name).files)), names))
    expected = ILSVRC2012.get(split.name) if config.data.num_classes == 1000 else None
    counted = f"{split}: {len(names)} classes, {count:,} images in their folders"
    if expected in (None, count):
        yield fine(subject, counted)
    else:
        yield note(subject, f"{counted}; ILSVRC 2012 has {expected:,}")


@cache
def _sources() -> dict[str, str]:
    return parse_yaml((files(__package__) / "published_files.yaml").read_text("utf-8"), "published_files.yaml")


def _source(path: Path) -> str:
    found = next((_sources()[name] for name in (path.name, path.parent.name) if name in _sources()), None)
    return f"; get it from {found}" if found else ""
