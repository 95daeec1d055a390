"""Interfaces of systems: `System` (before its networks are loaded), `Sampler` (with its networks) and `Family`.

A *system* turns class labels into images.  It belongs to a *family*, which defines its ids, its settings in the config,
and the weight files that it adds to an experiment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from varient.config import CachePolicy, ExperimentConfig, Precision

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = re.compile(r"[a-z0-9-]+")
"""Pattern of system ids and network names."""


class CountedCache(Protocol):
    """A KV cache that counts its own memory.

    Attributes:
        held_bytes: bytes of allocated storage.
        peak_bytes: peak bytes of live entries so far.
        scratch_bytes: peak bytes of temporary copies so far.
    """

    held_bytes: int
    peak_bytes: int
    scratch_bytes: int


class Sampler(Protocol):
    """A system with its networks in memory."""

    # Optional attribute `acceleration`: switches of `varient.models.acceleration` that it was prepared with.

    @property
    def networks(self) -> Sequence[nn.Module]:
        """All networks, image decoder included."""

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None,
                on_cache: Callable[[CountedCache], None] | None = None) -> Tensor:
        """Generate latents, the input of the image decoder, for a batch of B images.  Table 2 times this part.

        Args:
            labels: classes 0..num_classes-1, one per image.
            indices: indices of the images.  An image depends on (seed, index) and its label only, not on the batch.
            seed: the experiment's seed.
            cache_policy: one of the system's cache policies; None: the first.
            on_cache: called with each KV cache when it is created.

        Returns:
            Tensor (B, ...) for `decode`.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, ...) to uint8 images (B, 3, S, S)."""


@runtime_checkable
class ScaleSampler(Sampler, Protocol):
    """A sampler that generates scale by scale and can say when the tokens of each are chosen."""

    @property
    def told_scales(self) -> Sequence[int]:
        """The scales that ``on_scale`` is called with, in order; none where a generation is replayed as a CUDA graph,
        in which no Python runs."""

    def latents(self, labels: Sequence[int], indices: Sequence[int], seed: int, *,
                cache_policy: CachePolicy | None = None,
                on_cache: Callable[[CountedCache], None] | None = None,
                on_scale: Callable[[int], None] | None = None) -> Tensor:
        """As `Sampler.latents`.

        Args:
            on_scale: called with k when the tokens of scale k are chosen; on a GPU, when their kernels are launched.
        """


class System(Protocol):
    """A row of a table, before anything is loaded.

    Attributes:
        name: its id in lower case, such as `variant-d16-n7`.
        steps: number of passes through its networks as the paper prints it, "10" or "6+4".
        weights: names of the networks that it reads, `runs/<experiment>/<name>.safetensors`.
        cache_policies: supported policies of its KV cache, the default first; "none" for a system without a cache.
        published_as: id of the same system at its authors' size, whose published numbers are shown beside ours.
    """

    name: str
    steps: str
    weights: tuple[str, ...]
    cache_policies: tuple[CachePolicy, ...]
    published_as: str
    # Optional attribute `files`: paths of the user's files that the system reads besides its weights (`user_files`).

    def parameters(self) -> dict[str, int]:
        """Number of parameters of each network except the image decoder, without building the network."""

    def protocol(self) -> dict[str, Any]:
        """All settings besides the weights that determine the images (guidance, filters, steps); stored in archives."""

    def load(self, run_dir: Path | None, precision: Precision) -> Sampler:
        """Load the system with its networks, on the device of this process.

        Args:
            run_dir: folder of the weights.  None: random weights from torch's global generator, for measurements.
            precision: dtype of the weights of all networks except the image decoder.

        Raises:
            CheckpointError: weights are missing or do not fit.
            ValueError: the system does not support the precision.
        """


@dataclass(frozen=True)
class Network:
    """A weight file of an experiment, `runs/<experiment>/<name>.safetensors`, and how to produce it.

    Attributes:
        name: stem of the file.
        make: function that trains or imports it: (run_dir, output) -> None.
        code: modules that produce it; the workflow reruns ``make`` when their sources change.
        depends: config sections that it depends on; a dot separates nested sections.
        needs: names of networks that must exist before it.
        released: file of the user that it is imported from; None if it is trained.
        check: checks names and shapes in ``released`` without reading the weights; raises CheckpointError.
    """

    name: str
    make: Callable[[Path, Path], None]
    code: tuple[str, ...]
    depends: tuple[str, ...]
    needs: tuple[str, ...] = ()
    released: Path | None = None
    check: Callable[[], None] | None = None


class Family(Protocol):
    """Interface of a family: the module (or object) that an entry point names.

    Attributes:
        FORMS: the forms of its ids, for messages.
        Settings: pydantic model of its config section `systems.<family>`; the family is enabled in experiments that
            have this section.  None: the family has no section and is always enabled.
    """

    FORMS: str
    Settings: type[BaseModel] | None

    def resolve(self, name: str, config: ExperimentConfig, settings: Any) -> System | None:
        """The system with this id, or None if the id does not belong to the family.

        Raises:
            ValueError: the id belongs to the family, but the experiment has no such system.
        """

    def networks(self, config: ExperimentConfig, settings: Any) -> Sequence[Network]:
        """The weight files that the family adds to the experiment."""
