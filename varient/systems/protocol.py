"""What a system is to everybody else: a row of a table before its networks are loaded, and with them in memory.

A *system* turns class labels into images.  It comes from a *family*, which knows its ids, its settings in the config,
and the weight files that it adds to an experiment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from varient.config import CachePolicy, ExperimentConfig, Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = re.compile(r"[a-z0-9-]+")
"""What ids of rows and names of networks are made of."""


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
        check: sees that this file has the layout and shapes, without reading its weights; raises CheckpointError.
    """

    name: str
    make: Callable[[Path, Path], None]
    code: tuple[str, ...]
    depends: tuple[str, ...]
    needs: tuple[str, ...] = ()
    released: Path | None = None
    check: Callable[[], None] | None = None


class Family(Protocol):
    """What an entry point names: a module (or object) with these.

    Attributes:
        FORMS: the ids that it knows, for messages.
        Settings: model of its section in the config, `systems.<family>`; an experiment without that section has no rows
            of the family.  None: the family has no section, and every experiment has its rows.
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
