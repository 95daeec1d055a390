"""An experiment as the command line and the workflow take it: a config whose rows, families and ablations resolve too.

`varient.config` sees to the settings themselves and knows no system, so that what trains and samples does not depend on
what is compared with what.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from varient.ablations import arms
from varient.config import ConfigError, ExperimentConfig, load_config, parse_config
from varient.files import write_text
from varient.systems.ids import is_recipe_name
from varient.systems.protocol import NAME
from varient.systems.registry import families_of, networks_of, resolve_system, user_files


def load_experiment(path: Path) -> ExperimentConfig:
    """Read and validate a YAML or JSON config with all that it names.

    Raises:
        ConfigError: as `load_config` and `check_systems`, each line with the file's name.
    """
    return _checked(load_config(path), str(path))


def parse_experiment(settings: object, origin: str) -> ExperimentConfig:
    """Validate settings read from ``origin`` (a file name for the message) with all that they name.

    Raises:
        ConfigError: as `parse_config` and `check_systems`, each line with the origin.
    """
    return _checked(parse_config(settings, origin), origin)


def keep_config(config: ExperimentConfig, folder: Path) -> Path:
    """The config with all defaults as a file of a folder, named by its content; a file that is there stays as it is.

    So processes that read it are not disturbed by whoever keeps another one.

    Returns:
        The file, ``config-<first 16 hex digits of its SHA-256>.json``.

    Raises:
        OutputError: it could not be written.
    """
    text = config.model_dump_json(indent=2)
    path = folder / f"config-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        write_text(path, text)
    return path


def check_systems(config: ExperimentConfig) -> None:
    """See that families, their networks, the arms of the ablations and the rows can be had.

    Raises:
        ValueError: settings of a family, its networks, an arm or a row's id are wrong.
    """
    for name in config.supernet.recipes:
        if not is_recipe_name(name):
            raise ConfigError(f"supernet.recipes: no recipe can be called {name!r}, which ids have for something else")
    networks_of(config)
    for name, (_, settings) in families_of(config).items():
        if settings is not None:
            config.check_batches(settings, f"systems.{name}")
    if config.ablations:
        arms(config)
    stands_for: dict[str, str] = {}
    for name in config.rows:
        try:
            system = resolve_system(name, config)
        except ValueError as error:
            raise ConfigError(f"rows: {error}") from None
        if not NAME.fullmatch(name):
            raise ConfigError(f"rows: {name!r}: ids are of lower-case letters, digits and dashes")
        if (other := stands_for.setdefault(system.published_as, name)) != name:
            raise ConfigError(f"rows: {other} and {name} both stand for {system.published_as}; one row can")


def named_files(config: ExperimentConfig) -> list[Path]:
    """Files and folders of the user's that an experiment reads, whether they are there or not."""
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
