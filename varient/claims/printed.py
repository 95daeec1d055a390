"""Consistency of the paper's printed numbers with each other.

Two tests, used where arithmetic does not decide:

* *The same quantity is printed again.*  Values that differ beyond rounding contradict each other.  If one value is
  printed more often than those that disagree with it, only the others count as contradicted; if there are as many on
  each side, all do.  A value that also follows from other numbers counts as printed once more, and so does a range of
  several quantities ("1.96-2.14") that it lies in.
* *A quantity follows from others*, such as a speedup from two latencies.  It is consistent if it follows, within all
  roundings, from the numbers of one place, and contradicted if it follows from none.  A bound ("over 130") holds only
  if all values within the rounding of the others satisfy it; if only some do, nothing is decided.

A ranking is contradicted where printed numbers have the opposite order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from varient.claims.claims import FULL, UNNAMED_FULL, Claim, Evidence, Pair, Ranking
from varient.claims.derived import Derived, Ledger, derive, less, more
from varient.claims.quantity import Interval, Quantity
from varient.paper import DEPTH, PAPER_DEPTHS
from varient.systems.ids import VarId


@dataclass(frozen=True)
class Witnesses:
    """Other printed numbers that bear on a claim.

    Attributes:
        same, other: claims of the same quantity that agree, and that disagree.
        follows, against: values derived from other quantities that agree, and that disagree.
        astride: derived values that satisfy the claim, a bound, for a part of their rounding only.
    """

    claim: Claim
    same: tuple[Claim, ...]
    other: tuple[Claim, ...]
    follows: tuple[Derived, ...]
    against: tuple[Derived, ...]
    astride: tuple[Derived, ...]

    @classmethod
    def call(cls, claim: Claim, ledger: Ledger) -> Witnesses:
        """All printed numbers that bear on a claim, found in the ledger."""
        printings = [printing for printing in (*ledger.of(claim.quantity), *ledger.limits(claim.quantity))
                     if printing is not claim]
        # Numbers follow from others of their own edition; of the second one no tables are known.
        # Tables come first: they are what most of the text is taken from.
        derived = [] if claim.quantity.edition else sorted(derive(claim, ledger), key=lambda value: not all(
            source.is_cell for source in value.inputs))
        meeting = [value for value in derived if value.around.meets(claim.values[0])]
        astride = [value for value in meeting
                   if claim.is_bound and not value.around.within(claim.values[0])]
        return cls(claim,
                   tuple(printing for printing in printings if _same(printing.values, claim.values)),
                   tuple(printing for printing in printings if not _same(printing.values, claim.values)),
                   tuple(value for value in meeting if value not in astride),
                   tuple(value for value in derived if value not in meeting), tuple(astride))

    @property
    def sources(self) -> tuple[Claim, ...]:
        """All claims that bear on it, the claim itself left out."""
        derived = (*self.follows, *self.against, *self.astride)
        inputs = (source for value in derived for source in value.inputs)
        return (*self.same, *self.other, *inputs)

    @property
    def outvoted(self) -> bool:
        """Whether at least as many printed values disagree with the claim as support it, itself included."""
        return _votes(self.other) >= _votes(self.same) + len(self.follows) + 1

    @property
    def agrees(self) -> bool | None:
        """Whether they agree with the claim; None where they do not decide (two equal printings prove little)."""
        if self.outvoted:
            return False
        return True if self.follows else False if self.against and not self.astride else None

    @property
    def found(self) -> str:
        """The value of those that disagree, or the derived one."""
        if self.outvoted:
            numbers = [printing for printing in self.other if not printing.is_bound] or self.other
            return " and ".join(sorted({printing.printed for printing in numbers}))
        return next((derived.shown(self.claim) for derived in (*self.follows, *self.against)), "")

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        inside = [one for one in self.same if one.is_bound and one.printed != self.claim.printed]
        same = [one for one in self.same if one not in inside and _same(one.to_the_digit, self.claim.to_the_digit)]
        near = [one for one in self.same if one not in inside and one not in same]
        follows = [one for one in self.follows if one.to_the_digit.meets(self.claim.to_the_digit[0])]
        nearly = [one for one in self.follows if one not in follows]
        tolerance = self.claim.quantity.kind.tolerance
        parts = [f"Same value in {_places(same)}." if same else "",
                 f"Same value {tolerance}: {_places(near, with_value=True)}." if near else "",
                 f"Within what else is said: {_places(inside, with_value=True)}." if inside else "",
                 f"Different value: {_places(self.other, with_value=True)}." if self.other else "",
                 f"Follows from the paper's other numbers: {_sayings(follows, self.claim)}." if follows else "",
                 f"Follows from the paper's other numbers, each {tolerance}: {_sayings(nearly, self.claim)}."
                 if nearly else "",
                 f"The paper's other numbers give another value: {_sayings(self.against, self.claim)}."
                 if self.against else "",
                 f"On the limit within rounding: {_sayings(self.astride, self.claim)}." if self.astride else ""]
        return " ".join(filter(None, parts))


def printed(claim: Claim, ledger: Ledger) -> Evidence | None:
    """Evidence about a claim from other printed numbers; None where there are none."""
    witnesses = Witnesses.call(claim, ledger)
    if not witnesses.sources:
        return None
    return Evidence(witnesses.agrees, witnesses.found, witnesses.sentence, "paper",
                   data_command(claim, *witnesses.sources))


def remarks(claim: Claim, ledger: Ledger) -> list[str]:
    """Sentences about related numbers of the paper, which do not decide the claim."""
    first = _first_edition(claim, ledger) if claim.quantity.edition else ""
    return [*filter(None, (first, _alike(claim, ledger) if claim.quantity == Quantity.of("fid", UNNAMED_FULL) else ""))]


def _first_edition(claim: Claim, ledger: Ledger) -> str:
    """What the first edition says of a number of another one."""
    before = Witnesses.call(replace(claim, quantity=replace(claim.quantity, edition="")), ledger).sentence
    return f"Against the first edition: {before}" if before else "The first edition prints nothing to compare it with."


def total_memory(claim: Claim, ledger: Ledger) -> str:
    """What the printed totals give for a claim about "memory" that is read as the KV cache; empty for others.

    For a growth from depth to depth the printed KV caches, too, as the verdict is by formula.
    """
    kind, systems = claim.quantity.name, claim.quantity.systems
    if not claim.reading:
        return ""
    if kind == "kv_linearity" and systems == ("d",):
        said = {label: _unevenness(name, ledger) for label, name in (("KV caches", "kv_mb"), ("totals", "memory_mb"))}
        return "; ".join(f"printed {label}: {value:.1f}" for label, value in said.items() if value)
    if kind == "kv_reduction":
        changes, against = less, [(FULL, system) for system in systems]
    elif kind == "kv_growth":
        changes, against = more, [(systems[0], systems[-1])]
    else:
        return ""
    found = []
    for before, after in against:
        pairs = ledger.together(Quantity.of("memory_mb", before), Quantity.of("memory_mb", after))
        values = [changes(*(side.values[0].middle for side in pair)) for pair in pairs]
        found += [" to ".join(dict.fromkeys(f"{end(values):.0f}" for end in (min, max)))] if values else []
    return f"total memory: {' and '.join(found)} %" if found else ""


def _unevenness(name: str, ledger: Ledger) -> float | None:
    """Largest over smallest growth a layer of a size from depth to depth in Table 2; None where one is missing."""
    depths = sorted({*PAPER_DEPTHS, DEPTH})
    systems = [VarId("var" if depth == DEPTH else "variant", depth) for depth in depths]
    sizes = [ledger.at(Quantity.of(name, str(system)), "Table 2") for system in systems]
    values = [size.values[0].middle for size in sizes if size]
    if len(values) < len(depths):
        return None
    steps = [(b - a) / (after - before) for (before, after), (a, b) in zip(pairwise(depths), pairwise(values),
                                                                           strict=True)]
    return max(steps) / min(steps)


def _alike(claim: Claim, ledger: Ledger) -> str:
    """Which supernets' full networks have the FID that is printed for "the full network"."""
    alike = [other.claim for other in ledger.named("fid") if other.where == "Table 4"
             and _is_full(other.quantity.systems[0]) and _same(other.values, claim.values)]
    return f"In Table 4 that FID is printed for: {'; '.join(alike) or 'none'}."


def _is_full(system: str) -> bool:
    """Whether it is a full network of a supernet at the end of the three phases."""
    found = VarId.parse(system)
    return found is not None and found == VarId("variant", found.depth, full=True)


def _same(mine: Sequence[Interval], theirs: Sequence[Interval]) -> bool:
    return len(mine) == len(theirs) and all(a.same(b) for a, b in zip(mine, theirs, strict=True))


def _votes(printings: Sequence[Claim]) -> int:
    """How often something is printed; both ends of a range are one printing."""
    ends = [printing for printing in printings if printing.is_bound]
    return len(printings) - len(ends) + len({end.finding for end in ends})


def _sayings(derived: Sequence[Derived], claim: Claim) -> str:
    return "; ".join(dict.fromkeys(one.says(claim) for one in derived))


def _places(claims: Sequence[Claim], *, with_value: bool = False) -> str:
    by_value: dict[str, list[str]] = {}
    for claim in claims:
        how = f" ({claim.reading.removesuffix('.')})" if with_value and claim.reading else ""
        by_value.setdefault(claim.printed if with_value else "", []).append(claim.where + how)
    return "; ".join(f"{value} in {', '.join(dict.fromkeys(places))}".removeprefix(" in ")
                     for value, places in by_value.items())


def data_command(*claims: Claim) -> str:
    """Shell command that shows the data rows of the claims."""
    names = dict.fromkeys(_file(claim.where) for claim in claims)
    return f"cat {' '.join(f'varient/paper/{name}.csv' for name in names)}"


def _file(where: str) -> str:
    return where.lower().replace(" ", "") if where.startswith("Table") else "claims"


# --- rankings -------------------------------------------------------------------------------------------------------


def printed_pair(pair: Pair, ledger: Ledger, where: str) -> str:
    """"12.91 > 8.5", as printed; empty where a side is not."""
    larger, smaller = (ledger.at(quantity, where) for quantity in pair)
    if larger is None or smaller is None:
        return ""
    first, second = (side.values[0].middle for side in (larger, smaller))
    return f"{larger.printed} {'>' if first > second else '<' if first < second else '='} {smaller.printed}"


def broken_pairs(ranking: Ranking, ledger: Ledger) -> list[Pair]:
    """The pairs whose printed numbers are the other way round, by more than the ranking's margin."""
    sides = ((pair, [ledger.at(quantity, ranking.where) for quantity in pair]) for pair in ranking.pairs)
    return [pair for pair, (larger, smaller) in sides if larger and smaller
            and larger.values[0].middle * (1 + ranking.margin) < smaller.values[0].middle]
