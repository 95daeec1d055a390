"""The paper's claims, read from its CSV files: numbers in the text, cells of tables, rankings of systems.

Each row says what it denotes, in the words of `KINDS` and `OF`.  All rows are checked before any claim is judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise

from varient.claims.quantity import KINDS, OUT_OF_MEMORY, RANKED, Interval, Kind, Quantity, parse
from varient.cost.paper_systems import BRIDGE, paper_system
from varient.cost.roofline import PAPER_BATCH_SIZE
from varient.paper import DEPTH, TABLES, paper_rows, system_id
from varient.pyramid import VAR_256, Zone
from varient.systems.ids import VarId

LAST_SCALE = VAR_256.num_scales
"""K, the number of scales."""
FULL = str(VarId("var", DEPTH))
"""The pretrained full network."""
UNNAMED_FULL = "variant-full"
"""The row d = 30 of Table 8 and "the full network" of Sec. 6.3.  It is a full network after joint training, because its
FID is not that of VAR-d30; the paper does not say of which supernet."""
LOSS_MARGIN = 0.005
"""Margin of a ranking of losses, where that of FIDs has one; about one standard deviation between trainings."""
PRINTED_RATIOS = (10, 100)
"""p(subnet), in percent: Sec. 3.3.1 varies it from 0.1 to 1, and prints the FIDs of both ends."""


EDITIONS = {"conference abstract": "conference"}
"""Places that belong to another edition of the paper than arXiv v1, with its name."""


class ClaimError(ValueError):
    """A row of the paper's data that cannot be read; the message names the file, the row and what is expected."""


@dataclass(frozen=True)
class Claim:
    """A printed number, or several that belong together.

    Attributes:
        id: unique.
        where: place in the paper: "abstract", "section 4.2", "Table 3".
        claim: the claim in words.
        printed: the number or numbers, or the words, as printed.
        quantity: what they denote.
        reading: our interpretation, where the paper leaves a choice.
        means: the number that words stand for ("over 10"); empty where a number is printed.
        named: name of the finding, where claims about several quantities are one; see `finding`.
    """

    id: str
    where: str
    claim: str
    printed: str
    quantity: Quantity
    reading: str = ""
    means: str = ""
    named: str = ""

    @property
    def finding(self) -> str:
        """What is found about the claim has this name; claims that say the same thing in several places share it."""
        return self.named or str(self.quantity)

    @property
    def is_cell(self) -> bool:
        """Whether it stands in a table."""
        return self.where.startswith("Table")

    @property
    def is_bound(self) -> bool:
        """Whether it prints a limit and not a number."""
        return any(value.is_bound for value in self.values)

    @cached_property
    def values(self) -> tuple[Interval, ...]:
        """Values that the printed numbers may stand for, tolerances included."""
        return parse(self.means or self.printed, self.quantity.kind)

    @cached_property
    def to_the_digit(self) -> tuple[Interval, ...]:
        """The same by the printed digits alone."""
        return parse(self.means or self.printed, self.quantity.kind, tolerant=False)


Pair = tuple[Quantity, Quantity]


@dataclass(frozen=True)
class Ranking:
    """A claim that some systems are better than others; it is tested on printed numbers and on any experiment.

    Attributes:
        pairs: pairs of quantities; the first of each is claimed to be the larger.
        ablated: whether an experiment may test it at the depth of its ablations where it does not at the paper's.
        margin: 0 where the first of each pair is claimed to be larger.  Otherwise the second is claimed to be
            non-inferior: larger by no more than this margin, relative to the first.
        reading: our interpretation, where the paper leaves a choice.
    """

    id: str
    where: str
    claim: str
    pairs: tuple[Pair, ...]
    ablated: bool = False
    margin: float = 0.0
    reading: str = ""

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All quantities of the pairs, each once."""
        return tuple(dict.fromkeys(quantity for pair in self.pairs for quantity in pair))

    @property
    def of_losses(self) -> Ranking | None:
        """The same ranking by loss on held-out images; None for rankings by anything but FID.

        A margin becomes `LOSS_MARGIN`: trainings scatter far less in loss than in FID.
        """
        if any(quantity.name != "fid" for quantity in self.quantities):
            return None
        pairs = tuple((replace(larger, name="held_out_loss"), replace(smaller, name="held_out_loss"))
                      for larger, smaller in self.pairs)
        return replace(self, pairs=pairs, margin=LOSS_MARGIN if self.margin else 0.0)

    @property
    def zones(self) -> tuple[Zone, ...]:
        """Zones of scales that it compares with each other, in its order; empty for rankings of other things."""
        ids = [VarId.parse(quantity.systems[0]) for quantity in self.quantities]
        zones = dict.fromkeys(found.window or (BRIDGE + 1, LAST_SCALE) for found in ids if found and found.free)
        return tuple(zones) if len(zones) == len(ids) > 1 else ()


@dataclass(frozen=True)
class Evidence:
    """One piece of evidence about a claim.

    Attributes:
        agrees: whether it agrees with the claim; None where it does not decide.
        found: the value that it gives.
        sentence: the evidence in words.
        source: "paper", "arithmetic", "predicted" or "measured (...)".
        command: shell command that reproduces it.
    """

    agrees: bool | None
    found: str
    sentence: str
    source: str
    command: str


def all_claims() -> list[Claim]:
    """Numbers of the text first, then cells, in the paper's order.

    Raises:
        ClaimError: a row that cannot be read.
    """
    return [*text_claims(), *table_claims()]


def text_claims() -> list[Claim]:
    """The rows of claims.csv."""
    return [_claim(_place("claims", row), row, row["where"], row["value"]) for row in paper_rows("claims")]


def table_claims() -> list[Claim]:
    """Every cell of tables 1 to 8 that is not a label; an OOM row of Table 3 is one claim, about its total.

    Of the rows of cells.csv, the first that has the column and the label of a cell says what it denotes.
    """
    patterns = paper_rows("cells")
    unused = dict(enumerate(patterns))
    found: list[Claim] = []
    for number in map(str, TABLES):
        for row in paper_rows(f"table{number}"):
            label = next(iter(row.values()))
            for column, printed in row.items():
                at = next((at for at, pattern in enumerate(patterns) if (pattern["table"], pattern["column"]) == (
                    number, column) and pattern["row"] in ("", label)), None)
                if at is not None:
                    unused.pop(at, None)
                    found += _cell(patterns[at], f"Table {number}", row, printed)
    for pattern in unused.values():
        raise ClaimError(f"{_place('cells', pattern)}: Table {pattern['table']} has no such cell: row "
                         f"{pattern['row']!r}, column {pattern['column']!r}")
    return found


def _cell(pattern: Mapping[str, str], where: str, row: Mapping[str, str], printed: str) -> Iterator[Claim]:
    place = _place("cells", pattern)
    known = {**row, "kind": _kind(place, pattern).label}
    if "method" in row:
        known["system"] = system_id(row["method"])
    if not printed or (printed == OUT_OF_MEMORY and pattern["kind"] != "memory_mb"):
        return
    try:
        filled = {name: pattern[name].format(**known) for name in ("id", "claim", "of", "finding", "reading")}
    except (KeyError, ValueError, IndexError, AttributeError):
        raise ClaimError(f"{place}: placeholders are {', '.join(f'{{{name}}}' for name in known)}") from None
    yield _claim(place, {**pattern, **filled, "means": "", "batch": row.get("batch_size", "")}, where, printed)


def _claim(place: str, row: Mapping[str, str], where: str, printed: str) -> Claim:
    kind, of = _kind(place, row), tuple(part.strip() for part in row["of"].split(";"))
    if why := _why_not(of, kind.of.split()):
        raise ClaimError(f"{place}: of {row['of']!r}: {why}")
    if not re.fullmatch(r"([1-9]\d*)?", row["batch"]):
        raise ClaimError(f"{place}: batch {row['batch']!r}: expected a number of images, or nothing for the paper's "
                         f"{PAPER_BATCH_SIZE}")
    quantity = Quantity(row["kind"], of, int(row["batch"] or PAPER_BATCH_SIZE), EDITIONS.get(where, ""))
    claim = Claim(row["id"], where, row["claim"], printed, quantity, row["reading"], row["means"], row["finding"])
    if not claim.values and row["kind"] != "setting":
        column = "means" if row["means"] else "value"
        raise ClaimError(f"{place}: {column} {row['means'] or printed!r} holds no number")
    return claim


def rankings(ratios: Sequence[int] = ()) -> list[Ranking]:
    """The rows of rankings.csv.

    In `order` ">" goes from the larger number to the smaller and ";" separates chains.  "p*" stands for each fixed
    p(subnet), and "..." between two ids for those between theirs.

    Args:
        ratios: p(subnet) that an experiment compares besides the paper's two, in percent.

    Raises:
        ClaimError: a row that cannot be read.
    """
    ratios = sorted({*ratios, *PRINTED_RATIOS})
    return [_ranking(_place("rankings", row), row, ratios) for row in paper_rows("rankings")]


def _ranking(place: str, row: Mapping[str, str], ratios: Sequence[int]) -> Ranking:
    if row["depth"] not in ("", "ablations"):
        raise ClaimError(f"{place}: depth {row['depth']!r}: expected ablations, or nothing for the paper's alone")
    if not re.fullmatch(r"(\d+(\.\d+)?%)?", row["margin"]):
        raise ClaimError(f"{place}: margin {row['margin']!r}: expected a percentage such as 5%, or nothing")
    _kind(place, row, RANKED)
    pairs = dict.fromkeys((Quantity.of(row["kind"], larger), Quantity.of(row["kind"], smaller))
                          for text in row["order"].split(";") for chain in _chains(place, text.strip(), ratios)
                          for larger, smaller in pairwise(chain) if larger != smaller)
    return Ranking(row["id"], row["where"], row["claim"], tuple(pairs), row["depth"] == "ablations",
                   float(row["margin"].removesuffix("%") or 0) / 100,
                   row["reading"].replace("{margin}", row["margin"]))


def _chains(place: str, text: str, ratios: Sequence[int]) -> list[list[str]]:
    """The chains of systems that one part of an order stands for."""
    chain = [name.strip() for name in text.split(">")]
    each = ratios if "p*" in text else ratios[:1]
    written = [[name.replace("p*", f"p{ratio}") for name in chain] for ratio in each]
    why = next(filter(None, (_why_not_system(name) for name in written[0] if name != "...")), "")
    if why or len(chain) < 2:
        raise ClaimError(f"{place}: order {text!r}: {why or 'expected <larger> > <smaller>'}")
    if "..." not in chain:
        return written
    start, end = (VarId.parse(name) for name in (chain[0], chain[-1]))
    first, last = (None if found is None else ratio_of(found) for found in (start, end))
    if len(chain) != 3 or start is None or first is None or last is None:
        raise ClaimError(f"{place}: order {text!r}: '...' stands between two systems of a fixed ratio")
    between = [ratio for ratio in ratios if min(first, last) <= ratio <= max(first, last)]
    return [[str(replace(start, recipe=f"p{ratio}")) for ratio in sorted(between, reverse=first > last)]]


def ratio_of(system: VarId) -> int | None:
    """p(subnet) in percent where a system of the paper is trained with a fixed one: its recipe is `p10` for p = 0.1."""
    recipe = system.recipe or ""
    return int(recipe[1:]) if recipe[:1] == "p" and recipe[1:].isdecimal() else None


# --- the words of a row ---------------------------------------------------------------------------------------------


@cache
def _why_not_system(text: str) -> str:
    try:
        paper_system(text)
    except ValueError as error:
        return str(error)
    return ""


def _why_not_trained(text: str) -> str:
    return "" if text == UNNAMED_FULL else _why_not_system(text)


def _why_not_subnet(text: str) -> str:
    if why := _why_not_system(text):
        return why
    found = VarId.parse(text)
    return "" if found and found.is_subnet else f"{text!r} is no subnet of VAR"


def _unless(pattern: str, expected: str) -> Callable[[str], str]:
    return lambda text: "" if re.fullmatch(pattern, text) else f"{text!r} is no {expected}"


OF: dict[str, Callable[[str], str]] = {
    "system": _why_not_system,
    "trained": _why_not_trained,
    "subnet": _why_not_subnet,
    "epoch": _unless(r"epoch \d+", "epoch such as 'epoch 8'"),
    "depth": _unless(r"d\d+", "depth such as 'd16'"),
    "axis": _unless(r"d|N", "axis: d or N"),
    "phase": _unless(r"phase[123]|total", "phase: phase1, phase2, phase3 or total"),
    "setting": _unless(r"[a-z_]+", "name of a setting")}
"""What a number can belong to.  Each function returns what is wrong with a text, "" if nothing is.

A `trained` network may be `UNNAMED_FULL`, for which nothing can be computed.
"""


def _why_not(given: Sequence[str], expected: Sequence[str]) -> str:
    least = sum(not word.endswith("?") for word in expected)
    if not least <= len(given) <= len(expected):
        return f"expected {'; '.join(f'<{word}>' for word in expected)}"
    reasons = (OF[word.removesuffix("?")](text) for text, word in zip(given, expected, strict=False))
    return next(filter(None, reasons), "")


def _kind(place: str, row: Mapping[str, str], known: Collection[str] = KINDS) -> Kind:
    if row["kind"] not in known:
        raise ClaimError(f"{place}: kind {row['kind']!r} is none of {', '.join(known)}")
    return KINDS[row["kind"]]


def _place(name: str, row: Mapping[str, str]) -> str:
    return f"varient/paper/{name}.csv, row {row['id']}"
