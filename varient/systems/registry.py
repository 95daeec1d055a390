"""Registry of the installed system families, and lookup of systems by id.

Families are modules that installed packages register in the entry-point group `varient.systems`.  Built in are VAR with
its subnets, CoDe, DiT and LlamaGen; other packages may add more (docs/adding-a-system.md).  The entry point's name is
the name of the family and the key of its settings in the config: `systems.<family>`.  A family's module must be quick
to import, so it imports torch inside its functions.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from varient.config import ConfigError, ExperimentConfig, error_lines
from varient.systems.names import base_pattern
from varient.systems.protocol import NAME, Family, Network, System

ENTRY_POINTS = "varient.systems"

_RESERVED = re.compile(rf"tokenizer|{base_pattern()}|supernet.*|classifier-.*")


@cache
def installed() -> EntryPoints:
    """The entry points of the installed families; cached, because reading them is slow."""
    return entry_points(group=ENTRY_POINTS)


def families_of(config: ExperimentConfig) -> dict[str, tuple[Family, Any]]:
    """The families that are enabled in the experiment, by name, each with its settings.

    Raises:
        ConfigError: a section of `systems` belongs to no installed family, or has invalid keys.
    """
    families: dict[str, Family] = {point.name: _load(point) for point in installed()}
    if "var" not in families:
        raise ConfigError("varient's own system families are not installed: run `pip install --no-deps -e .` again")
    with_settings = sorted(name for name, family in families.items() if family.Settings)
    for name in config.systems:
        if name not in with_settings:
            raise ConfigError(f"systems.{name}: no installed system family has this name; known: "
                              f"{', '.join(with_settings)}")
    found: dict[str, tuple[Family, Any]] = {}
    for name, family in sorted(families.items()):
        if family.Settings is None:
            found[name] = family, None
        elif name in config.systems:
            try:
                found[name] = family, family.Settings.model_validate(config.systems[name])
            except ValidationError as error:
                raise ConfigError("\n".join(error_lines(error, f"systems.{name}"))) from None
    return found


@cache
def _load(point: EntryPoint) -> Family:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist else "its package"
        raise ConfigError(f"system family {point.name!r} cannot be loaded from {point.value} ({error}); fix or "
                          f"uninstall {package}") from None


def resolve_system(name: str, config: ExperimentConfig) -> System:
    """The system with this id in the experiment.

    Raises:
        ValueError: no family of the experiment knows the id.
    """
    return _locate(name, config)[1]


def user_files(system: System) -> tuple[Path, ...]:
    """The user's files that a system reads besides its weights, such as DiT's image decoder."""
    return tuple(getattr(system, "files", ()))


def family_of(name: str, config: ExperimentConfig) -> str:
    """The name of the family that the id belongs to.

    Raises:
        ValueError: no family of the experiment knows the id.
    """
    return _locate(name, config)[0]


def module_of(family: str) -> str:
    """The module of an installed family."""
    return installed()[family].module


def networks_of(config: ExperimentConfig) -> dict[str, Network]:
    """The weight files that families add to those of VAR and its supernets, by name.

    Raises:
        ValueError: two networks have the same name, or a name is invalid.
    """
    found: dict[str, Network] = {}
    for family, settings in families_of(config).values():
        for network in family.networks(config, settings):
            if network.name in found or _RESERVED.fullmatch(network.name):
                raise ValueError(f"network {network.name!r} is defined twice: names must be unique, also among VAR's")
            if not NAME.fullmatch(network.name):
                raise ValueError(f"network {network.name!r}: names consist of lower-case letters, digits and dashes")
            found[network.name] = network
    return found


def _locate(name: str, config: ExperimentConfig) -> tuple[str, System]:
    found = families_of(config)
    for key, (family, settings) in found.items():
        if system := family.resolve(name, config, settings):
            return key, system
    forms = ", ".join(family.FORMS for family, _ in found.values())
    without = sorted({point.name for point in installed()} - set(found))
    hint = f"; without settings in {config.name}: {', '.join(without)}" if without else ""
    raise ValueError(f"system {name!r} is unknown; known forms: {forms}{hint}")
