"""Loading of an experiment for the command line and the workflow: the config, plus checks of all systems it names.

`varient.config` validates the settings alone and knows no systems, so that training and sampling do not depend on the
code of the comparisons.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from varient.ablations import arms
from varient.config import ConfigError, ExperimentConfig, load_config, parse_config
from varient.files import write_text
from varient.systems.ids import VarId, forms, is_recipe_name
from varient.systems.protocol import NAME
from varient.systems.registry import families_of, networks_of, resolve_system, user_files


def load_experiment(path: Path) -> ExperimentConfig:
    """Read and validate a YAML or JSON config, and check the systems that it names.

    Raises:
        ConfigError: as `load_config` and `check_systems`, each line with the file's name.
    """
    return _checked(load_config(path), str(path))


def parse_experiment(settings: object, origin: str) -> ExperimentConfig:
    """Validate settings read from ``origin`` (a file name for the message), and check the systems that they name.

    Raises:
        ConfigError: as `parse_config` and `check_systems`, each line with the origin.
    """
    return _checked(parse_config(settings, origin), origin)


def keep_config(config: ExperimentConfig, folder: Path) -> Path:
    """Write the config with all defaults into a folder, under a name that contains its hash.

    A file with this content is left alone, and another config gets another file, so processes that are reading one are
    not disturbed.  A file of this name with other content was edited or cut off, and is written again.

    Returns:
        The file, ``config-<first 16 hex digits of its SHA-256>.json``.

    Raises:
        OutputError: it could not be written.
    """
    text = config.model_dump_json(indent=2)
    path = folder / f"config-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)
    return path


def check_systems(config: ExperimentConfig) -> None:
    """Check the settings of all families, their networks, the arms of the ablations, and the ids of rows and rivals.

    Raises:
        ValueError: the first of them that is wrong.
    """
    for name in config.supernet.recipes:
        if not is_recipe_name(name):
            raise ConfigError(f"supernet.recipes: a recipe cannot be named {name!r}, which is a suffix of system ids")
    if config.tokenizer.training:
        config.data.require_in_memory("tokenizer.training")
    if config.evaluation.trains_its_network:
        config.data.require_in_memory(f"evaluation.protocol = {config.evaluation.protocol!r}")
    networks_of(config)
    for name, (_, settings) in families_of(config).items():
        if settings is not None:
            config.check_batches(settings, f"systems.{name}")
    if config.ablations:
        arms(config)
    _check_rows(config, "rows", config.rows)
    _check_rows(config, "rivals", config.rivals)
    for name in config.rivals:
        if VarId.parse(name) is None:
            raise ConfigError(f"rivals: {name!r} is no system of VAR: {forms()}")


def _check_rows(config: ExperimentConfig, section: str, names: Sequence[str]) -> None:
    stands_for: dict[str, str] = {}
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{section}: {twice} is named twice")
    for name in names:
        try:
            system = resolve_system(name, config)
        except ValueError as error:
            raise ConfigError(f"{section}: {error}") from None
        if not NAME.fullmatch(name):
            raise ConfigError(f"{section}: {name!r}: ids consist of lower-case letters, digits and dashes")
        if (other := stands_for.setdefault(system.published_as, name)) != name:
            raise ConfigError(f"{section}: {other} and {name} both stand for {system.published_as}; keep one of them")


def named_files(config: ExperimentConfig) -> list[Path]:
    """The user's files and folders that an experiment reads, whether they exist or not."""
    named = [config.data.root, config.tokenizer.weights, config.base.weights, config.evaluation.inception_weights,
             config.evaluation.reference, *(network.released for network in networks_of(config).values()),
             *(path for name in config.rows for path in user_files(resolve_system(name, config)))]
    return [path for path in named if path]


def _checked(config: ExperimentConfig, origin: str) -> ExperimentConfig:
    try:
        check_systems(config)
    except ValueError as error:
        raise ConfigError("\n".join(f"{origin}: {line}" for line in str(error).splitlines())) from None
    return config
