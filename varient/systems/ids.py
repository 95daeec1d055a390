"""Ids of systems: parsing and formatting.  `varient.systems.names` does the same for names of supernets.

| id | weights | which layers run |
|---|---|---|
| `var-d30` | base | all |
| `variant-d16`, `variant-d16-n7` | supernet of d = 16 | all at the first N scales (default: the config's), then I_16 |
| `variant-d16-full` | supernet of d = 16 | all |
| `variant-d16-p50-s1` | supernet trained by the recipe `p50` with seed 1 | as `variant-d16` |
| `variant-d16-b1`, `var-d30-b1` | supernet trained from the base network of seed 1; that base network | |
| `variant-d16-full-plain` | supernet of d = 16 | all, and tokens drawn without guidance and filters |
| `variant-d16-e5`, `variant-d16-end1` | supernet after epoch 5; at the end of phase 1 | as `variant-d16` |
| `free-d16`, `free-d16-n7` | base, without further training | as `variant-d16` |
| `free-d16-r4to6` | base | I_16 at r4-r6, all elsewhere (Table 1) |
| `code-n6`, `free-code-n6` | CoDe's drafter and refiner: fine-tuned, or as they are | |
| `dit-xl2`, `dit-xl2-250` | DiT of this size, with the experiment's number of steps or with 250 | |
| `llamagen-xxl` | LlamaGen of this size | |

An id of VAR consists of a kind, a depth and suffixes in the order of `SUFFIXES`.  To add a suffix, add an entry there,
a field of `VarId`, and its effect in `VarId.plan`.  Parsing and formatting are inverse: `str(parse(text)) == text`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from varient.plan import DepthPlan
from varient.systems.names import (
    BASE,
    EPOCH,
    FROM_0,
    FROM_1,
    KINDS,
    SEED,
    Kind,
    Suffix,
    Word,
    given,
    pattern_of,
    values_of,
    written,
)

if TYPE_CHECKING:
    from varient.config import ExperimentConfig


@dataclass(frozen=True)
class _Recipe(Word):
    """The name of a recipe, which must not match any other suffix."""

    @property
    def pattern(self) -> str:
        others = "|".join(suffix.pattern for suffix in SUFFIXES if suffix is not self)
        return rf"(?!(?:{others})(?![a-z0-9])){super().pattern}"


_RECIPE = _Recipe("recipe", "{}", ("variant",), "<recipe>")

SUFFIXES = (
    _RECIPE,
    SEED,
    BASE,
    EPOCH,
    Suffix("phase", "end{}", ("variant",), "end<phase>"),
    Suffix("bridge", "n{}", ("variant", "free"), "n<N>", FROM_0),
    Suffix("full", "full", ("variant",), "full"),
    Suffix("window", "r{}to{}", ("free",), "r<first>to<last>"),
    Suffix("plain", "plain", KINDS, "plain"),
)
"""All suffixes of VAR's ids, in their order within an id."""

_EXCLUSIVE = (("epoch", "phase"), ("bridge", "full", "window"))
"""Groups of mutually exclusive fields."""


@dataclass(frozen=True)
class VarId:
    """Id of VAR or of one of its subnets.

    Attributes:
        kind: `var`, `variant` or `free`.
        depth: D for `var`, else d of the subnet.
        recipe: name of the recipe by which the supernet was trained; None: the paper's.
        seed: seed of that training, added to the experiment's seed.
        base: seed of the base network's training, added to the experiment's seed.
        epoch: use the supernet's weights after this epoch; None: after the last.
        phase: use the weights at the end of this phase, 1 or 2.
        bridge: N; None: the experiment's.
        full: all layers at all scales.
        window: first and last scale at which the subnet runs (Table 1).
        plain: tokens are drawn without guidance and filters.

    Raises:
        ValueError: fields that exclude each other, or that ids of this kind cannot have.
    """

    kind: Kind
    depth: int
    recipe: str | None = None
    seed: int = 0
    epoch: int | None = None
    phase: int | None = None
    bridge: int | None = None
    full: bool = False
    window: tuple[int, int] | None = None
    base: int = 0
    plain: bool = False

    family = "var"

    def __post_init__(self) -> None:
        present = {suffix.field: suffix for suffix in given(SUFFIXES, self)}
        for suffix in present.values():
            if self.kind not in suffix.kinds:
                raise ValueError(f"system {self}: '-{suffix.example}' is only for ids that begin with "
                                 f"{' or '.join(f'{kind}-' for kind in suffix.kinds)}")
        for names in _EXCLUSIVE:
            if len(clash := [present[name].example for name in names if name in present]) > 1:
                raise ValueError(f"system {self}: {' and '.join(clash)} cannot be combined")
        if self.window and self.window[0] > self.window[1]:
            raise ValueError(f"system {self}: the last scale of its window is before the first")

    @classmethod
    def parse(cls, text: str) -> VarId | None:
        """Parse an id; None if it is not one of VAR's.

        Raises:
            ValueError: as the class.
        """
        head = rf"(?P<kind>[a-z]+)-d(?P<depth>{FROM_1})"
        match = re.fullmatch(head + pattern_of(SUFFIXES), text, re.ASCII)
        if not match or (kind := match["kind"]) not in KINDS:
            return None
        return cls(kind, int(match["depth"]), **values_of(SUFFIXES, match))

    def __str__(self) -> str:
        return f"{self.kind}-d{self.depth}" + written(SUFFIXES, self)

    @property
    def of_supernet(self) -> bool:
        """Whether it uses the weights of a supernet."""
        return self.kind == "variant"

    @property
    def free(self) -> bool:
        """Whether it needs no training besides the base network."""
        return self.kind == "free"

    @property
    def is_subnet(self) -> bool:
        """Whether some scales run fewer layers than the network has."""
        return self.kind != "var" and not self.full

    def plan(self, depth: int, num_scales: int, bridge: int,
             subnet: Callable[[int], tuple[int, ...] | None] = lambda depth: None) -> DepthPlan:
        """The layers that run at each scale.

        Args:
            depth: D of the network.
            num_scales: K.
            bridge: N if the id does not contain it.
            subnet: d -> layers of the subnet; None for those of Eq. 2.

        Raises:
            ValueError: depth, bridge or window do not fit the network.
        """
        if not self.is_subnet or self.depth == depth:
            return DepthPlan.full(depth, num_scales)
        layers = subnet(self.depth)
        if self.window:
            return DepthPlan.window(depth, self.depth, *self.window, num_scales, layers)
        return DepthPlan.bridge(depth, self.depth, bridge if self.bridge is None else self.bridge, num_scales, layers)


@dataclass(frozen=True)
class CodeId:
    """Id of CoDe with N drafted scales; ``free``: networks as they are, otherwise fine-tuned for this N."""

    drafted: int
    free: bool = False

    family = "code"

    @classmethod
    def parse(cls, text: str) -> CodeId | None:
        """The id that is written so, or None."""
        match = re.fullmatch(rf"(?P<free>free-)?code-n(?P<drafted>{FROM_0})", text, re.ASCII)
        return cls(int(match["drafted"]), bool(match["free"])) if match else None

    def __str__(self) -> str:
        return f"{'free-' if self.free else ''}code-n{self.drafted}"


@dataclass(frozen=True)
class DiTId:
    """Id of a DiT of a size; ``steps`` is None for the experiment's number of steps."""

    size: str
    steps: int | None = None

    family = "dit"
    free = False

    @classmethod
    def parse(cls, text: str) -> DiTId | None:
        """The id that is written so, or None."""
        match = re.fullmatch(r"dit-(?P<size>[a-z0-9]+)(-(?P<steps>[1-9]\d*))?", text, re.ASCII)
        return cls(match["size"], int(match["steps"]) if match["steps"] else None) if match else None

    def __str__(self) -> str:
        return f"dit-{self.size}" + (f"-{self.steps}" if self.steps else "")


@dataclass(frozen=True)
class LlamaGenId:
    """Id of a LlamaGen of a size."""

    size: str

    family = "llamagen"
    free = False

    @classmethod
    def parse(cls, text: str) -> LlamaGenId | None:
        """The id that is written so, or None."""
        match = re.fullmatch(r"llamagen-(?P<size>[a-z0-9]+)", text, re.ASCII)
        return cls(match["size"]) if match else None

    def __str__(self) -> str:
        return f"llamagen-{self.size}"


SystemId = VarId | CodeId | DiTId | LlamaGenId


def parse(text: str) -> SystemId | None:
    """Parse an id; None for ids of other families.

    Raises:
        ValueError: as `VarId`.
    """
    kinds: tuple[type[SystemId], ...] = (VarId, CodeId, DiTId, LlamaGenId)
    return next((found for kind in kinds if (found := kind.parse(text))), None)


def base_system(config: ExperimentConfig) -> str:
    """The id of an experiment's full network before any supernet training."""
    return str(VarId("var", config.transformer.depth))


def is_recipe_name(text: str) -> bool:
    """Whether a recipe can have this name, which is a suffix of ids."""
    return re.fullmatch(_RECIPE.pattern, text, re.ASCII) is not None


def forms() -> str:
    """The forms of VAR's ids, for messages."""
    kinds: dict[Kind, str] = {"var": "D", "variant": "d", "free": "d"}
    return ", ".join(f"{kind}-d<{letter}>" + "".join(f"[-{s.example}]" for s in SUFFIXES if kind in s.kinds)
                     for kind, letter in kinds.items())


