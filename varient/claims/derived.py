"""Which printed numbers there are of a quantity, and which follow from others of the paper.

A speedup follows from two latencies, a total of memory at one batch from that at another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product

from varient.claims.claims import FULL, Claim
from varient.claims.quantity import OUT_OF_MEMORY, Interval, Quantity
from varient.cost.roofline import PAPER_BATCH_SIZE

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
                limit = replace(claim, printed=f"{_ENDS[claim.quantity.name]} {claim.printed}", means="", quantity=one)
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


def _with_batch(claim: Claim) -> str:
    batch = claim.quantity.batch
    return claim.printed if batch == PAPER_BATCH_SIZE else f"{claim.printed} (batch {batch})"


def _width(claim: Claim) -> float:
    return sum(value.high - value.low for value in claim.values)


def derive(claim: Claim, ledger: Ledger) -> Iterator[Derived]:
    """All values of a claim's quantity that follow from printed numbers of others."""
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
    fids = tuple(Quantity.of("fid", system) for system in systems)
    if name == "speedup":
        yield lambda full, ours: full / ours, (Quantity.of("latency_s", FULL), Quantity.of("latency_s", *systems))
    elif name == "fid_increase":
        yield lambda full, ours: ours - full, (Quantity.of("fid", FULL), Quantity.of("fid", *systems))
    elif name == "fid_gain":
        yield lambda before, after: before / after, fids
    elif name == "fid_difference":
        yield lambda a, b: a - b, fids
    elif name == "fid_degradation":
        yield lambda ours, full: 100 * (ours / full - 1), fids
    elif name == "fid_limit":
        yield lambda fid: fid, fids
    elif name in ("fid_least", "fid_most", "late_fid"):
        yield min if name == "fid_least" else max, fids
    elif name == "gain_ratio":
        yield lambda a, b, c, d: (c - d) / (a - b), fids
    elif name == "gain_after":
        yield lambda a, b, c: 100 * (b - c) / (a - c), fids
    elif name == "models":
        yield _distinct, tuple(Quantity.of("fid", f"{system}-full") for system in systems)
    elif name == "loss_fall":
        yield less, (Quantity.of("loss", *systems), Quantity.of("loss", systems[0]))
    elif name == "acceleration":
        yield lambda other, full: other / full, (Quantity.of("latency_s", *systems), Quantity.of("latency_s", FULL))
    elif name == "memory_mb" and not any(claim.printed == OUT_OF_MEMORY for claim in ledger.of(quantity)):
        for batch in _other_batches(quantity, ledger):
            yield (lambda weights, total, batch=batch: weights + (total - weights) * quantity.batch / batch), (
                Quantity.of("params_mb", *systems), Quantity.of("memory_mb", *systems, batch=batch))
    elif name == "kv_share":
        yield lambda kv, total: 100 * kv / total, (Quantity.of("kv_mb", FULL), Quantity.of("memory_mb", FULL))
    elif name == "kv_reduction" and len(systems) == 1:
        yield less, (Quantity.of("kv_mb", FULL), Quantity.of("kv_mb", *systems))
    elif name == "kv_growth":
        yield more, tuple(Quantity.of("kv_mb", s) for s in systems)
    elif name == "kv_mb":
        for batch in _other_batches(quantity, ledger):
            yield (lambda kv, batch=batch: kv * quantity.batch / batch), (Quantity.of("kv_mb", *systems, batch=batch),)
        if quantity.batch == PAPER_BATCH_SIZE and systems != (FULL,):
            yield lambda full, saved: full * (1 - saved / 100), (Quantity.of("kv_mb", FULL),
                                                                Quantity.of("kv_reduction", *systems))
    elif name == "epochs":
        row, phase = systems
        others = [p for p in ("phase1", "phase2", "phase3", "total") if p != phase]
        formula = _sum if phase == "total" else _rest
        yield formula, tuple(Quantity.of("epochs", row, other) for other in others)


def less(before: float, after: float) -> float:
    """By how much the second is below the first, %."""
    return 100 * (1 - after / before)


def more(before: float, after: float) -> float:
    """By how much the second is above the first, %."""
    return 100 * (after / before - 1)


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
                   if claim.quantity.systems == quantity.systems and not claim.is_bound} - {quantity.batch})


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
