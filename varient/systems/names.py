"""Names of supernets and base networks, and the suffixes that they share with ids (`varient.systems.ids`).

`supernet-d16`; `supernet-d16-p50-s1`, trained by the recipe `p50` with seed 1; `supernet-multi`, for all depths;
`supernet-d16-e5`, its weights after epoch 5; `supernet-d16-b1`, trained from the base network `base-b1`, which is of
seed 1.  Trainings import this module and not the ids, so that the workflow does
not repeat them when a kind of id is added.
"""

from __future__ import annotations

import re
from dataclasses import Field, dataclass, fields
from functools import cache
from typing import Any, ClassVar, Literal, Protocol, get_args

Kind = Literal["var", "variant", "free"]
"""Kinds of ids: the base network, a trained subnet (or the full network of its supernet), an untrained subnet."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Value = int | tuple[int, ...] | bool | str
"""What a suffix says."""

FROM_0, FROM_1 = r"(?:0|[1-9][0-9]*)", r"[1-9][0-9]*"
"""Numbers without leading zeros."""


@dataclass(frozen=True)
class Suffix:
    """One optional part of an id, after a dash.

    Attributes:
        field: field of `VarId` (and of `SupernetId`) that holds its value.
        form: its text with `{}` for each number; without `{}` it is a flag, whose value is True.
        kinds: kinds of ids that may have it.
        example: text for messages.
        number: regular expression of its numbers.
    """

    field: str
    form: str
    kinds: tuple[Kind, ...]
    example: str
    number: str = FROM_1

    @property
    def pattern(self) -> str:
        """Regular expression of the text after the dash."""
        return self.number.join(map(re.escape, self.form.split("{}")))

    def read(self, text: str) -> Value:
        """Convert a text that matches `pattern` to a value."""
        numbers = tuple(map(int, re.findall(r"\d+", text)))
        return (numbers if len(numbers) > 1 else numbers[0]) if numbers else True

    def write(self, value: Any) -> str:
        """Convert a value to text."""
        return self.form.format(*(value if isinstance(value, tuple) else (value,)))


@dataclass(frozen=True)
class Word(Suffix):
    """A suffix that is a word: `p` and a number, or a word that begins with two letters."""

    @property
    def pattern(self) -> str:
        return r"(?:p[0-9]+|[a-z]{2}[a-z0-9]*)"

    def read(self, text: str) -> str:
        return text


RECIPE = Word("recipe", "{}", ("variant",), "<recipe>")
SEED = Suffix("seed", "s{}", ("variant",), "s<seed>")
BASE = Suffix("base", "b{}", KINDS, "b<base>")
EPOCH = Suffix("epoch", "e{}", ("variant",), "e<epoch>")


@dataclass(frozen=True)
class SupernetId:
    """Name of a supernet's weights.

    Attributes:
        depth: d; None for a supernet of all depths.
        recipe, seed, epoch, base: as in `VarId`.
    """

    depth: int | None
    recipe: str | None = None
    seed: int = 0
    epoch: int | None = None
    base: int = 0

    SUFFIXES = (RECIPE, SEED, BASE, EPOCH)

    @classmethod
    def parse(cls, text: str) -> SupernetId | None:
        """Parse a name; None if it is not the name of a supernet."""
        match = re.fullmatch(rf"supernet(-d(?P<depth>{FROM_1}))?" + pattern_of(cls.SUFFIXES), text, re.ASCII)
        if not match or match["depth"] is match["recipe"] is None:
            return None
        return cls(int(match["depth"]) if match["depth"] else None, **values_of(cls.SUFFIXES, match))

    def __str__(self) -> str:
        return "supernet" + (f"-d{self.depth}" if self.depth else "") + written(self.SUFFIXES, self)


def supernet_pattern() -> str:
    """Regular expression of the names of supernets at the end of their training, without named groups."""
    return rf"supernet(?:-d{FROM_1})?(?:-{RECIPE.pattern})?(?:-{SEED.pattern})?(?:-{BASE.pattern})?"


@dataclass(frozen=True)
class BaseId:
    """Name of a base network's weights.

    Attributes:
        base: seed of its training, added to the experiment's seed.
    """

    base: int = 0

    SUFFIXES = (BASE,)

    @classmethod
    def parse(cls, text: str) -> BaseId | None:
        """Parse a name; None if it is not the name of a base network."""
        match = re.fullmatch("base" + pattern_of(cls.SUFFIXES), text, re.ASCII)
        return cls(**values_of(cls.SUFFIXES, match)) if match else None

    def __str__(self) -> str:
        return "base" + written(self.SUFFIXES, self)


def base_pattern() -> str:
    """Regular expression of the names of base networks, without named groups."""
    return rf"base(?:-{BASE.pattern})?"


@cache
def pattern_of(suffixes: tuple[Suffix, ...]) -> str:
    """Regular expression of optional suffixes in this order, with one named group per field."""
    return "".join(rf"(?:-(?P<{suffix.field}>{suffix.pattern}))?" for suffix in suffixes)


def values_of(suffixes: tuple[Suffix, ...], match: re.Match[str]) -> dict[str, Any]:
    """Values of the suffixes present in a match of `pattern_of`, by field."""
    return {suffix.field: suffix.read(match[suffix.field]) for suffix in suffixes if match[suffix.field]}


class Named(Protocol):
    """A dataclass with a field for each of its suffixes."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def given(suffixes: tuple[Suffix, ...], named: Named) -> list[Suffix]:
    """The suffixes whose fields differ from their defaults."""
    defaults = {field.name: field.default for field in fields(named)}
    return [suffix for suffix in suffixes if getattr(named, suffix.field) != defaults[suffix.field]]


def written(suffixes: tuple[Suffix, ...], named: Named) -> str:
    """The suffixes of a dataclass as text, each after a dash."""
    return "".join(f"-{suffix.write(getattr(named, suffix.field))}" for suffix in given(suffixes, named))
