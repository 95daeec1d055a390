"""What a row of a table is, whoever wrote it, and how an id finds the code that stands behind it.

A *system* turns class labels into images.  Systems come in *families*, modules that installed packages name in the
entry-point group `varient.systems`; ours are VAR with its subnets, CoDe, DiT and LlamaGen, and anybody's package may
add one (docs/adding-a-system.md).  The entry point's name is the family's name, and the key of its settings in the
config: `systems.<family>`.  A family's module must be quick to import, so it imports torch inside its functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ValidationError

from varient.config import CachePolicy, ConfigError, ExperimentConfig, Precision, error_lines

if TYPE_CHECKING:
    from torch import Tensor, nn

ENTRY_POINTS = "varient.systems"

NAME = re.compile(r"[a-z0-9-]+")
"""What ids of rows and names of networks are made of."""
_RESERVED = re.compile(r"tokenizer|base|supernet.*|classifier-.*")


class CountedCache(Protocol):
    """Keys and values kept between steps, counted by the cache itself.

    Attributes:
        held_bytes: storage held now.
        peak_bytes: most bytes of live entries so far.
        scratch_bytes: most bytes of copies beside the entries so far.
    """

    held_bytes: int
    peak_bytes: int
    scratch_bytes: int


class Sampler(Protocol):
    """A system with its networks in memory."""

    @property
    def networks(self) -> Sequence[nn.Module]:
        """All networks, image decoder included."""

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None,
                on_cache: Callable[[CountedCache], None] | None = None) -> Tensor:
        """Whatever the image decoder reads, for a batch of B images; the part of the work that Table 2 times.

        Args:
            labels: classes 0..num_classes-1.
            indices: of the images; an image is a function of (seed, index) and its label, whatever the batch.
            cache_policy: one of the system's; None means its first.
            on_cache: is handed each KV cache as it is made.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """uint8 images (B, 3, S, S) of latents (B, ...)."""


class System(Protocol):
    """A row of a table, before anything is loaded.

    Attributes:
        name: its id, lower case, as in `variant-d16-n7`.
        steps: passes through its networks as the paper prints them, "10" or "6+4".
        weights: names of the networks that it reads, `runs/<experiment>/<name>.safetensors`.
        cache_policies: what its KV cache can do, the default first; "none" for a system without a cache.
        published_as: id of the same system at the size of its authors, whose published numbers stand beside ours.
    """

    name: str
    steps: str
    weights: tuple[str, ...]
    cache_policies: tuple[CachePolicy, ...]
    published_as: str
    # A system that reads files of the user's besides its weights has `files`, a tuple of their paths (`user_files`).

    def parameters(self) -> dict[str, int]:
        """Parameters of each network that takes steps (not of the image decoder), without building it in memory."""

    def protocol(self) -> dict[str, Any]:
        """All that decides what it draws from given weights: guidance, filters, steps.  Goes into the archives."""

    def load(self, run_dir: Path | None, precision: Precision) -> Sampler:
        """The system with its networks from ``run_dir``, on the GPU where there is one.

        Args:
            run_dir: None keeps random weights, drawn from torch's global generator: costs do not depend on values.
            precision: of the weights of the networks that take steps.

        Raises:
            CheckpointError: weights that are missing or do not fit.
            ValueError: a precision that the system cannot have.
        """


@dataclass(frozen=True)
class Network:
    """A weight file of an experiment, `runs/<experiment>/<name>.safetensors`, and what it is made from.

    Attributes:
        name: stem of the file.
        make: trains or imports it: (run_dir, output) -> None.
        code: modules whose sources make it; the workflow makes it again when they change.
        depends: config sections that it depends on, dots for sections of sections.
        needs: names of networks that are made before it.
        released: file of the user's that it is imported from; None where it is trained.
    """

    name: str
    make: Callable[[Path, Path], None]
    code: tuple[str, ...]
    depends: tuple[str, ...]
    needs: tuple[str, ...] = ()
    released: Path | None = None


class Family(Protocol):
    """What an entry point names: a module (or object) with these.

    Attributes:
        FORMS: the ids that it knows, for messages.
        Settings: model of its section in the config, `systems.<family>`.  A family whose section is absent is asleep.
            None: the family has no section and is always awake.
    """

    FORMS: str
    Settings: type[BaseModel] | None

    def resolve(self, name: str, config: ExperimentConfig, settings: Any) -> System | None:
        """The system of that id, or None where the id is not one of the family's.

        Raises:
            ValueError: an id of the family's that the experiment does not have.
        """

    def networks(self, config: ExperimentConfig, settings: Any) -> Sequence[Network]:
        """The weight files that the family adds to the experiment."""


def installed() -> EntryPoints:
    """The entry points of the installed families; a test or a notebook may stand in with its own."""
    return entry_points(group=ENTRY_POINTS)


def awake(config: ExperimentConfig) -> dict[str, tuple[Family, Any]]:
    """The families that the experiment has, by name, each with its settings.

    Raises:
        ConfigError: a section of `systems` that no installed family reads, or wrong keys in one.
    """
    families: dict[str, Family] = {point.name: _load(point) for point in installed()}
    if "var" not in families:
        raise ConfigError("varient's own system families are not installed: run `pip install --no-deps -e .` once more")
    with_settings = sorted(name for name, family in families.items() if family.Settings)
    for name in config.systems:
        if name not in with_settings:
            raise ConfigError(f"systems.{name}: no installed system family has settings of that name; known: "
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


def _load(point: EntryPoint) -> Family:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        package = point.dist.name if point.dist else "its package"
        raise ConfigError(f"system family {point.name!r} cannot be loaded from {point.value} ({error}); mend or "
                          f"uninstall {package}") from None


def resolve_system(name: str, config: ExperimentConfig) -> System:
    """The system of that id in the experiment.

    Raises:
        ValueError: an id that no family of the experiment knows.
    """
    return _locate(name, config)[1]


def user_files(system: System) -> tuple[Path, ...]:
    """Files of the user's that a system reads besides its weights, such as DiT's image decoder."""
    return tuple(getattr(system, "files", ()))


def family_of(name: str, config: ExperimentConfig) -> str:
    """The name of the family that knows the id.

    Raises:
        ValueError: an id that no family of the experiment knows.
    """
    return _locate(name, config)[0]


def module_of(family: str) -> str:
    """The module that an installed family is."""
    return installed()[family].module


def networks_of(config: ExperimentConfig) -> dict[str, Network]:
    """The weight files that families add to those of VAR and its supernets, by name.

    Raises:
        ValueError: two of one name.
    """
    found: dict[str, Network] = {}
    for family, settings in awake(config).values():
        for network in family.networks(config, settings):
            if network.name in found or _RESERVED.fullmatch(network.name):
                raise ValueError(f"two make a network {network.name!r}: names must differ, also from those of VAR")
            if not NAME.fullmatch(network.name):
                raise ValueError(f"network {network.name!r}: names are of lower-case letters, digits and dashes")
            found[network.name] = network
    return found


def _locate(name: str, config: ExperimentConfig) -> tuple[str, System]:
    found = awake(config)
    for key, (family, settings) in found.items():
        if system := family.resolve(name, config, settings):
            return key, system
    forms = ", ".join(family.FORMS for family, _ in found.values())
    asleep = sorted({point.name for point in installed()} - set(found))
    hint = f"; without settings in {config.name}: {', '.join(asleep)}" if asleep else ""
    raise ValueError(f"system {name!r} is unknown; known forms: {forms}{hint}")
