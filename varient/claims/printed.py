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

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

from varient.claims.claims import FULL, UNNAMED_FULL, Claim, Evidence, Pair, Ranking
from varient.claims.quantity import OUT_OF_MEMORY, Interval, Quantity
from varient.cost.roofline import PAPER_BATCH_SIZE
from varient.systems.ids import VarId

Formula = Callable[..., float]

_ENDS = {"fid_least": "at least", "fid_most": "at most"}
"""Kinds of the ends of a range of several networks' FIDs, and what an end says of each of them."""


class Ledger:
    """All claims that print a number, by the quantity that they denote."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        self._claims: dict[Quantity, list[Claim]] = {}
        self._limits: dict[Quantity, list[Claim]] = {}
        for claim in claims:
            self._claims.setdefault(claim.quantity, []).append(claim)
            for system in claim.quantity.systems if claim.quantity.name in _ENDS else ():
                one = Quantity.of("fid", system)
                limit = replace(claim, printed=f"{_ENDS[claim.quantity.name]} {claim.printed}", quantity=one)
                self._limits.setdefault(one, []).append(limit)

    def of(self, quantity: Quantity) -> list[Claim]:
        """All claims that print it."""
        return self._claims.get(quantity, [])

    def limits(self, quantity: Quantity) -> list[Claim]:
        """The ends of all ranges that a FID has to lie in."""
        return self._limits.get(quantity, [])

    def at(self, quantity: Quantity, where: str) -> Claim | None:
        """The claim that prints it at a place, else the first one anywhere."""
        found = self.of(quantity)
        return next((claim for claim in found if claim.where == where), found[0] if found else None)

    def named(self, name: str) -> list[Claim]:
        """All numbers of a kind."""
        return [claim for quantity, claims in self._claims.items() if quantity.name == name for claim in claims]

    def together(self, *quantities: Quantity) -> list[tuple[Claim, ...]]:
        """For each place that prints all quantities, their claims; without such a place, the most precise of each."""
        printings = [self.of(quantity) for quantity in quantities]
        if not all(printings):
            return []
        one_place = [found for found in product(*printings) if len({claim.where for claim in found}) == 1]
        return one_place or [tuple(min(found, key=_width) for found in printings)]


@dataclass(frozen=True)
class Derived:
    """A value that follows from printed numbers.

    Attributes:
        value: computed from the numbers as printed.
        around: all values within the rounding and tolerances of the inputs.
        to_the_digit: all values within the rounding of the inputs.
        inputs: the claims that it is computed from.
    """

    value: float
    around: Interval
    to_the_digit: Interval
    inputs: tuple[Claim, ...]

    @property
    def is_printed(self) -> bool:
        """Whether it is a printed number itself and nothing is computed."""
        return len(self.inputs) == len(self.inputs[0].values) == 1 and self.value == self.inputs[0].values[0].middle

    def shown(self, claim: Claim) -> str:
        """The value, as printed or as one of a claim's kind."""
        return self.inputs[0].printed if self.is_printed else claim.quantity.kind.show((Interval.point(self.value),))

    def says(self, claim: Claim) -> str:
        """In words."""
        places = groupby(self.inputs, key=lambda source: source.where)
        inputs = " with ".join(f"{', '.join(map(_with_batch, sources))} in {where}" for where, sources in places)
        assumed = _ASSUMED.get(claim.quantity.name, "")
        return inputs if self.is_printed else f"{self.shown(claim)} from {inputs}{assumed}"


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
        derived = [] if claim.quantity.edition else sorted(_derive(claim, ledger), key=lambda value: not all(
            source.is_cell for source in value.inputs))
        meeting = [value for value in derived if value.around.meets(claim.values[0])]
        astride = [value for value in meeting
                   if claim.values[0].is_bound and not value.around.within(claim.values[0])]
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
        return len(self.other) >= len(self.same) + len(self.follows) + 1

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
            numbers = [printing for printing in self.other if not printing.values[0].is_bound] or self.other
            return " and ".join(sorted({printing.printed for printing in numbers}))
        return next((derived.shown(self.claim) for derived in (*self.follows, *self.against)), "")

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        inside = [one for one in self.same if one.values[0].is_bound and one.printed != self.claim.printed]
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
                 f"Follows from the paper's other numbers {tolerance}: {_sayings(nearly, self.claim)}."
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
    """By how much total memory falls, for a claim about "memory" that is read as the KV cache; empty for others."""
    if claim.quantity.name != "kv_reduction" or not claim.reading:
        return ""
    savings = []
    for system in claim.quantity.systems:
        pairs = ledger.together(Quantity.of("memory_mb", FULL), Quantity.of("memory_mb", system))
        falls = [_less(full.values[0].middle, ours.values[0].middle) for full, ours in pairs]
        savings += [" to ".join(dict.fromkeys(f"{end(falls):.0f}" for end in (min, max)))] if falls else []
    return f"total memory: {' and '.join(savings)} %" if savings else ""


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


def _width(claim: Claim) -> float:
    return sum(value.high - value.low for value in claim.values)


def _with_batch(claim: Claim) -> str:
    batch = claim.quantity.batch
    return claim.printed if batch == PAPER_BATCH_SIZE else f"{claim.printed} (batch {batch})"


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


# --- what follows from what -----------------------------------------------------------------------------------------


def _derive(claim: Claim, ledger: Ledger) -> Iterator[Derived]:
    for formula, quantities in _rules(claim.quantity, ledger):
        for inputs in ledger.together(*quantities):
            if claim not in inputs and all(len(source.values) == 1 for source in inputs):
                values = [source.values[0] for source in inputs]
                yield Derived(formula(*(value.middle for value in values)), _range(formula, values),
                              _range(formula, [source.to_the_digit[0] for source in inputs]), inputs)
    if own := _OWN.get(claim.quantity.name):
        yield from own(claim, ledger)


def _range(formula: Formula, inputs: Sequence[Interval]) -> Interval:
    """All values of a formula that is monotonous in each input."""
    values = [formula(*corner) for corner in product(*inputs)]
    return Interval(min(values), max(values))


def _rules(quantity: Quantity, ledger: Ledger) -> Iterator[tuple[Formula, tuple[Quantity, ...]]]:
    """Formulas for a quantity, each with the quantities that it takes."""
    name, systems = quantity.name, quantity.systems
    if name == "speedup":
        yield lambda full, ours: full / ours, (Quantity.of("latency_s", FULL), Quantity.of("latency_s", *systems))
    elif name == "fid_increase":
        yield lambda full, ours: ours - full, (Quantity.of("fid", FULL), Quantity.of("fid", *systems))
    elif name == "fid_gain":
        yield lambda before, after: before / after, tuple(Quantity.of("fid", system) for system in systems)
    elif name == "fid_difference":
        yield lambda a, b: a - b, tuple(Quantity.of("fid", system) for system in systems)
    elif name == "fid_degradation":
        yield lambda ours, full: 100 * (ours / full - 1), tuple(Quantity.of("fid", system) for system in systems)
    elif name == "fid_limit":
        yield lambda fid: fid, (Quantity.of("fid", *systems),)
    elif name in ("fid_least", "fid_most", "late_fid"):
        yield min if name == "fid_least" else max, tuple(Quantity.of("fid", system) for system in systems)
    elif name == "gain_ratio":
        yield lambda a, b, c, d: (c - d) / (a - b), tuple(Quantity.of("fid", system) for system in systems)
    elif name == "gain_after":
        yield lambda a, b, c: 100 * (b - c) / (a - c), tuple(Quantity.of("fid", system) for system in systems)
    elif name == "models":
        yield _distinct, tuple(Quantity.of("fid", f"{system}-full") for system in systems)
    elif name == "loss_fall":
        yield _less, (Quantity.of("loss", *systems), Quantity.of("loss", systems[0]))
    elif name == "acceleration":
        yield lambda other, full: other / full, (Quantity.of("latency_s", *systems), Quantity.of("latency_s", FULL))
    elif name == "memory_mb" and not any(claim.printed == OUT_OF_MEMORY for claim in ledger.of(quantity)):
        for batch in _other_batches(quantity, ledger):
            yield (lambda weights, total, batch=batch: weights + (total - weights) * quantity.batch / batch), (
                Quantity.of("params_mb", *systems), Quantity.of("memory_mb", *systems, batch=batch))
    elif name == "kv_share":
        yield lambda kv, total: 100 * kv / total, (Quantity.of("kv_mb", FULL), Quantity.of("memory_mb", FULL))
    elif name == "kv_reduction" and len(systems) == 1:
        yield _less, (Quantity.of("kv_mb", FULL), Quantity.of("kv_mb", *systems))
    elif name == "kv_growth":
        yield lambda before, after: 100 * (after / before - 1), tuple(Quantity.of("kv_mb", s) for s in systems)
    elif name == "kv_mb":
        for batch in _other_batches(quantity, ledger):
            yield (lambda kv, batch=batch: kv * quantity.batch / batch), (Quantity.of("kv_mb", *systems, batch=batch),)
        if quantity.batch == PAPER_BATCH_SIZE and systems != (FULL,):
            yield lambda full, less: full * (1 - less / 100), (Quantity.of("kv_mb", FULL),
                                                               Quantity.of("kv_reduction", *systems))
    elif name == "epochs":
        row, phase = systems
        others = [p for p in ("phase1", "phase2", "phase3", "total") if p != phase]
        formula = _sum if phase == "total" else _rest
        yield formula, tuple(Quantity.of("epochs", row, other) for other in others)


def _less(full: float, ours: float) -> float:
    return 100 * (1 - ours / full)


def _distinct(*fids: float) -> float:
    """Networks with different scores are different networks."""
    return len(set(fids))


def _sum(*phases: float) -> float:
    return sum(phases)


def _rest(*others: float) -> float:
    return others[-1] - sum(others[:-1])


def _other_batches(quantity: Quantity, ledger: Ledger) -> list[int]:
    """Batches at which the same system's size is printed too, as a number: it is proportional to the batch."""
    return sorted({claim.quantity.batch for claim in ledger.named(quantity.name)
                   if claim.quantity.systems == quantity.systems and not claim.values[0].is_bound} - {quantity.batch})


_ASSUMED = {"memory_mb": ", if all but the parameters grows with the batch"}
"""What a formula assumes beyond the definition of a quantity."""


def _batch_product(claim: Claim, ledger: Ledger) -> Iterator[Derived]:
    """1024 = 128 per GPU x 8 GPUs, all in one cell."""
    if len(claim.values) == 3:
        _, per_gpu, gpus = claim.values
        count = per_gpu.middle * gpus.middle
        yield Derived(count, Interval.point(count), Interval.point(count), (claim,))


def _gpus_of_batch(claim: Claim, ledger: Ledger) -> Iterator[Derived]:
    """The number of GPUs that the batch is split over."""
    for batch in ledger.named("batch_size"):
        yield Derived(batch.values[-1].middle, batch.values[-1], batch.to_the_digit[-1], (batch,))


def _start_excess(claim: Claim, ledger: Ledger) -> Iterator[Derived]:
    """FID before the training above the least that is printed of the full networks after phase 1."""
    for early in ledger.named("early_fid"):
        for start in ledger.of(Quantity.of("fid", *claim.quantity.systems))[:1]:
            inputs = (start.values[0], early.values[0])
            around = _range(lambda before, after: before - after, inputs)
            yield Derived(around.middle, around, around, (start, early))


_OWN: dict[str, Callable[[Claim, Ledger], Iterator[Derived]]] = {
    "batch_size": _batch_product, "gpus": _gpus_of_batch, "start_excess": _start_excess}
