"""What the live page shows, read from the values of its controls; each wrong one is told by the control's name.

Controls of one of the two plans are named with its letter: "a d", "b cache".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from varient.config import CachePolicy, ExperimentConfig
from varient.cost.kv_accounting import POLICIES
from varient.kv_scheme import BITS, COARSEST, KVScheme
from varient.sampling import Guidance
from varient.systems.ids import VarId

SIDES = ("a", "b")
SELECTIONS = ("equidistant", "nested", "prefix", "random")
"""Which d layers a subnet takes: those of Eq. 2, or those of the ids' suffixes; the random ones are of seed 0."""
MOST_IMAGES = 64
MOST_GUIDANCE, TEMPERATURES = 20.0, (0.01, 10.0)
"""Beyond them all images look alike."""
_MOST_SEED = 2 ** 31 - 1


class WrongValues(ValueError):
    """Values that nothing can be drawn from.

    Attributes:
        problems: what is wrong, by control.
    """

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        self.problems = dict(problems)


@dataclass(frozen=True)
class Side:
    """One of the two plans, by the id that it would have without training, and its cache."""

    system: VarId
    policy: CachePolicy


@dataclass(frozen=True)
class State:
    """Everything that is shown depends on this, and on the network."""

    label: int
    seed: int
    count: int
    guidance: Guidance
    sides: tuple[Side, ...]


def read(values: Mapping[str, Any], config: ExperimentConfig) -> State:
    """The state that controls describe.

    Args:
        values: by the control's name; numbers may come as text, as JSON or not at all (None).

    Raises:
        WrongValues: some of them are no numbers, outside their bounds, or do not go together.
    """
    reader, scales = _Reader(values), config.pyramid.num_scales
    label = reader.whole("class", 0, config.data.num_classes - 1)
    seed = reader.whole("seed", 0, _MOST_SEED)
    count = reader.whole("images", 1, MOST_IMAGES)
    guidance = Guidance(reader.number("guidance", 0, MOST_GUIDANCE),
                        reader.whole("top-k", 0, config.tokenizer.model.vocab_size), reader.number("top-p", 0, 1),
                        (reader.number("temperature", *TEMPERATURES),) * scales)
    sides = tuple(_side(reader, name, config) for name in SIDES)
    if reader.problems:
        raise WrongValues(reader.problems)
    return State(label, seed, count, guidance, sides)


def begin(config: ExperimentConfig, depth: int) -> dict[str, Any]:
    """The values at the start: the subnet of depth d beside the full network, drawn as in the experiment."""
    sampling = config.sampling
    common = {"class": 0, "seed": config.seed, "images": 8, "guidance": sampling.cfg, "top-k": sampling.top_k,
              "top-p": sampling.top_p, "temperature": 1.0}
    plan = {"N": config.supernet.bridge, "layers": SELECTIONS[0], "window": 0, "bits": 0, "cache": POLICIES[0]}
    depths = dict(zip(SIDES, (depth, config.transformer.depth), strict=True))
    return common | {f"{side} {name}": value for side in SIDES for name, value in ({"d": depths[side]} | plan).items()}


def stored_bits(config: ExperimentConfig) -> list[int]:
    """In how many bits this network's keys and values can be stored; 0: as computed."""
    heads = config.transformer.num_heads
    return [0, *(bits for bits in BITS if _fits(bits, heads, config.transformer.embed_dim // heads))]


def _fits(bits: int, num_heads: int, head_dim: int) -> bool:
    try:
        KVScheme(bits=bits).check_heads(num_heads, head_dim)
    except ValueError:
        return False
    return True


def _side(reader: _Reader, side: str, config: ExperimentConfig) -> Side:
    scales = config.pyramid.num_scales
    depth = reader.whole(f"{side} d", 2, config.transformer.depth)
    bridge = reader.whole(f"{side} N", 0, scales)
    layers = reader.choice(f"{side} layers", SELECTIONS)
    window = reader.whole(f"{side} window", 0, scales - 1)
    bits = reader.choice(f"{side} bits", stored_bits(config))
    policy = reader.choice(f"{side} cache", POLICIES)
    if policy == "reference" and (window or bits):
        reader.problems[f"{side} cache"] = "it keeps all scales as computed; a window or bits need the lean one"
    # The coarsest scales that a window keeps cannot reach beyond the bridge zone: layers outside the subnet end there.
    coarsest = min(COARSEST, bridge) if window else None
    return Side(VarId("free", depth, bridge=bridge, nested=layers == "nested", prefix=layers == "prefix",
                      random=0 if layers == "random" else None, previous=window or None, coarsest=coarsest,
                      kv_bits=bits or None), policy)


class _Reader:
    """Reads values of controls and notes what is wrong with them; in place of a wrong one stands a possible one."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.problems: dict[str, str] = {}
        self._values = values

    def number(self, name: str, least: float, most: float) -> float:
        """A finite number within bounds."""
        try:
            value = float(self._values[name])
        except (KeyError, TypeError, ValueError, OverflowError):
            value = math.nan
        if not least <= value <= most:
            self.problems[name] = f"a number from {least:g} to {most:g}"
            return least
        return value

    def whole(self, name: str, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self.number(name, least, most)
        if name in self.problems or value != int(value):
            self.problems[name] = f"a whole number from {least} to {most}"
        return int(value)

    def choice(self, name: str, known: Sequence[Any]) -> Any:
        """One of the known values."""
        value = self._values.get(name)
        if value in known:
            return known[known.index(value)]  # 8 for 8.0
        self.problems[name] = f"one of {', '.join(map(str, known))}"
        return known[0]
