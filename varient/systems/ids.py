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
| `free-d16-prefix`, `free-d16-nested`, `free-d16-random3` | base | as `free-d16`, with other layers than I_16 |
| `var-d30-w1`, `variant-d16-w2-c0` | as without | the same, and they see the W scales before and the C = 2 coarsest |
| `var-d30-w1to3` | base | all, and they see 3 scales before in the layers whose keys change most, else 1 |
| `var-d30-kv8`, `variant-d16-w2-kv4` | as without | the same, and they see keys and values of 8, 6 or 4 bits |
| `var-d30-heads30` | base | all, and heads of two kinds have budgets, in the mean 30 % of the tokens |
| `var-d30-gmap` | as without | the same, and both halves of guidance attend by the conditional half's map |
| `var-d30-g6`, `var-d30-gmap-g6` | as without | the same, with guidance at the first 6 scales alone |
| `code-n6`, `free-code-n6` | CoDe's drafter and refiner: fine-tuned, or as they are | |
| `dit-xl2`, `dit-xl2-250` | DiT of this size, with the experiment's number of steps or with 250 | |
| `llamagen-xxl` | LlamaGen of this size | |

An id of VAR consists of a kind, a depth and suffixes in the order of `SUFFIXES`.  To add a suffix, add an entry there,
a field of `VarId`, and its effect in `VarId.plan`.  Parsing and formatting are inverse: `str(parse(text)) == text`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from varient.head_budgets import HeadBudgets
from varient.kv_scheme import COARSEST, KVScheme, Window
from varient.plan import DepthPlan, nested_layers, prefix_layers, random_layers
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
    Suffix("prefix", "prefix", ("free",), "prefix"),
    Suffix("nested", "nested", ("free",), "nested"),
    Suffix("random", "random{}", ("free",), "random<seed>", FROM_0),
    Suffix("previous", "w{}", KINDS, "w<W>", FROM_0),
    Suffix("previous_by_layer", "w{}to{}", ("var", "free"), "w<W>to<V>", FROM_0),
    Suffix("coarsest", "c{}", KINDS, "c<C>", FROM_0),
    Suffix("kv_bits", "kv{}", KINDS, "kv<bits>"),
    Suffix("budget", "heads{}", ("var", "free"), "heads<percent>", FROM_0),
    Suffix("shared_map", "gmap", KINDS, "gmap"),
    Suffix("guided", "g{}", KINDS, "g<last>", FROM_0),
    Suffix("window", "r{}to{}", ("free",), "r<first>to<last>"),
    Suffix("plain", "plain", KINDS, "plain"),
)
"""All suffixes of VAR's ids, in their order within an id."""

_EXCLUSIVE = (("epoch", "phase"), ("bridge", "full", "window"), ("prefix", "nested", "random"), ("shared_map", "plain"),
              ("guided", "plain"), ("previous", "previous_by_layer"), ("base", "previous_by_layer"),
              ("base", "budget"))
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
        prefix, nested, random: layers of the subnet in place of Eq. 2's: the first d, nested ones, or d drawn with this
            seed.
        previous: W, the number of scales before its own that a scale sees; None: all.
        previous_by_layer: W of most layers, and of those whose keys change most (`varient.systems.key_change`).
        coarsest: C, the number of coarsest scales that it sees too; None: `varient.kv_scheme.COARSEST`.
        kv_bits: bits of stored keys and values; None: as computed.
        budget: mean of the two budgets of heads, in percent of an image's tokens (`varient.head_budgets`); None: none.
        shared_map: both halves of guidance attend by the attention map of the conditional half.
        guided: the last scale with guidance; None: all have it.

    Raises:
        ValueError: fields that exclude each other, that ids of this kind cannot have, or that no cache can keep.
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
    prefix: bool = False
    nested: bool = False
    random: int | None = None
    previous: int | None = None
    previous_by_layer: tuple[int, int] | None = None
    coarsest: int | None = None
    kv_bits: int | None = None
    budget: int | None = None
    shared_map: bool = False
    guided: int | None = None

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
        if self.coarsest is not None and self.previous is None and self.previous_by_layer is None:
            raise ValueError(f"system {self}: '-c{self.coarsest}' needs a window, '-w<W>'")
        try:
            _ = self.kv
        except ValueError as error:
            raise ValueError(f"system {self}: {error}") from None

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

    @property
    def kv(self) -> KVScheme:
        """What the KV cache keeps of earlier scales, and what guidance needs."""
        window, coarsest = None, COARSEST if self.coarsest is None else self.coarsest
        if self.previous is not None:
            window = Window(self.previous, coarsest)
        if self.previous_by_layer:
            window = Window(self.previous_by_layer[0], coarsest, self.previous_by_layer[1])
        budgets = None if self.budget is None else HeadBudgets(self.budget)
        return KVScheme(window, self.kv_bits, self.shared_map, self.guided, budgets)

    def plan(self, depth: int, num_scales: int, bridge: int,
             subnet: Callable[[int], tuple[int, ...] | None] = lambda depth: None,
             ladder: Sequence[int] = ()) -> DepthPlan:
        """The layers that run at each scale, and what they see.

        Where windows differ by layer, the wide ones are the first half; where heads have budgets, the contextual ones
        are the first half of each layer's.  Which ones they are is known with the weights.

        Args:
            depth: D of the network.
            num_scales: K.
            bridge: N if the id does not contain it.
            subnet: d -> layers of the subnet; None for those of Eq. 2.
            ladder: depths of all subnets, for nested layers.

        Raises:
            ValueError: depth, bridge, window or guided scales do not fit the network.
        """
        plan, kv = self._layers_at_scales(depth, num_scales, bridge, subnet, ladder), self.kv
        return replace(plan, kv=kv.with_wide_layers(range(depth // 2)) if self.previous_by_layer else kv)

    def _layers_at_scales(self, depth: int, num_scales: int, bridge: int,
                          subnet: Callable[[int], tuple[int, ...] | None], ladder: Sequence[int]) -> DepthPlan:
        if not self.is_subnet or self.depth == depth:
            return DepthPlan.full(depth, num_scales)
        if self.prefix:
            layers: tuple[int, ...] | None = prefix_layers(depth, self.depth)
        elif self.nested:
            layers = nested_layers(depth, self.depth, ladder)
        elif self.random is not None:
            layers = random_layers(depth, self.depth, self.random)
        else:
            layers = subnet(self.depth)
        if self.window:
            return DepthPlan.window(depth, self.depth, *self.window, num_scales, layers)
        zone = bridge if self.bridge is None else self.bridge
        if self.kv.window and self.kv.window.coarsest > zone:
            raise ValueError(f"C = {self.kv.window.coarsest} coarsest scales, but layers outside the subnet run at the "
                             f"first N = {zone} alone")
        return DepthPlan.bridge(depth, self.depth, zone, num_scales, layers)


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


