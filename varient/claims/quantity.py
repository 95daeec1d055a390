"""What a printed number denotes, and which values agree with it.

Two numbers are compared only if their `Quantity` is the same.  Which values agree depends on how a number is printed:

* Half a unit of the last printed place: 2.30 stands for 2.295 to 2.305, and 8.5 for 8.45 to 8.55.
* KV caches and totals of memory also agree within 0.1 % (our choice): the paper rounds some and truncates others, and
  prints one size as 28677 and as 28687 MB.  Its "MB" are MiB, and the text's "GB" are 1000 MiB.
* What follows from printed numbers agrees if it does for some values within the rounding and tolerance of each of them.
* A percentage without decimals that is a multiple of 5 ("80 %", "40-65 %", "about 30 %") is rounded to the nearest 5,
  but for shares of the layers, among which the paper prints 13 %.
* The evidence says so where a value agrees only by one of these two tolerances, and not to the last printed digit.
* Counts (steps, epochs) are exact.
* "over" and "exceeding" have no upper limit, "less than" and "at most" no lower one.

`RULES` says the same to the readers of the verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isinf
from typing import NamedTuple

from varient.cost.gpus import device
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_DEVICE

OUT_OF_MEMORY, FITS = "OOM", "fits"
ROUND_PERCENT = 5
SIZE_TOLERANCE = 1e-3
"""Relative difference of sizes of memory that still agree."""
_SLACK = 1e-9
"""Relative tolerance for the binary rounding of sums of decimal fractions."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
_UNIT_SIZES = {"GB": 1e3, "K": 1e3, "M": 1e6, "B": 1e9}
_LOWER, _UPPER = ("over", "exceeding", "at least", ">"), ("less than", "at most", "≤")
_BOUND = re.compile(rf"({'|'.join((*_LOWER, *_UPPER))}) ({_NUMBER.pattern})")
_UNIT = re.compile(rf"\d({'|'.join(_UNIT_SIZES)})$")


class Interval(NamedTuple):
    """All values that a printed number may stand for, from ``low`` to ``high`` inclusive."""

    low: float
    high: float

    @classmethod
    def point(cls, value: float) -> Interval:
        """One value."""
        return cls(value, value)

    @property
    def middle(self) -> float:
        """The number itself."""
        return (self.low + self.high) / 2

    def meets(self, other: Interval) -> bool:
        """Whether both may stand for one value."""
        slack = _SLACK * max(abs(edge) for edge in (*self, *other) if not isinf(edge))
        return self.low <= other.high + slack and other.low <= self.high + slack

    def same(self, other: Interval) -> bool:
        """Whether both may be roundings of one value; adjacent ones that only touch, as 2.12 and 2.13, may not."""
        return self == other or (self.meets(other) and min(self.high, other.high) - max(self.low, other.low)
                                 > _SLACK * max(abs(self.low), abs(other.low)))

    def within(self, other: Interval) -> bool:
        """Whether all values are the other's too."""
        return other.low <= self.low and self.high <= other.high

    @property
    def is_bound(self) -> bool:
        """Whether it stands for a limit ("over 50", "less than 4") and not for a rounded number."""
        return isinf(self.high) or self.low == 0 < self.high


@dataclass(frozen=True)
class Kind:
    """A kind of number.

    Attributes:
        label: name of the kind in texts.
        unit: of values; printed numbers are converted to it.
        relative: relative difference up to which a value still agrees.
        exact: whether it is a count, which is not rounded.
        shown: decimals of values in our texts.
        trained: whether it depends on trained weights.
        of: what the number belongs to, in order: words of `varient.claims.claims.OF`, optional ones with "?".
        fives: whether percentages that are multiples of 5 are taken as rounded to the nearest 5.
    """

    label: str
    unit: str = ""
    relative: float = 0.0
    exact: bool = False
    shown: int = 2
    trained: bool = False
    of: str = "system"
    fives: bool = True

    @property
    def tolerance(self) -> str:
        """The tolerance beyond the printed digits, in words."""
        return f"within {100 * self.relative:g} %" if self.relative else f"to the nearest {ROUND_PERCENT} %"

    def interval(self, text: str, unit_size: float, *, tolerant: bool = True) -> Interval:
        """Values that a printed number may stand for.

        Args:
            text: the number as printed.
            unit_size: size of its printed unit, in the unit of the kind.
            tolerant: whether the tolerances of the kind apply, or the printed digits alone.
        """
        value, (digits, _, exponent) = float(text), text.partition("e")
        decimals = len(digits.partition(".")[2]) - int(exponent or 0)
        half = 0.0 if self.exact else 0.5 * 10.0 ** -decimals
        if tolerant and self.fives and self.unit == "%" and not decimals and value % ROUND_PERCENT == 0:
            half = ROUND_PERCENT / 2
        half = max(half * unit_size, value * unit_size * self.relative * tolerant)
        return Interval(value * unit_size - half, value * unit_size + half)

    def show(self, values: Sequence[Interval]) -> str:
        """Values in words; both ends of an interval that is not narrow."""
        unit = f" {self.unit}" if self.unit else ""
        return " and ".join(self._one(value) for value in values) + unit

    def _one(self, value: Interval) -> str:
        if isinf(value.high):
            return f"more than {value.low:.{self.shown}f}"
        low, high = f"{value.low:.{self.shown}f}", f"{value.high:.{self.shown}f}"
        return low if low == high else f"{low} to {high}"


KINDS = {
    "fid": Kind("FID", trained=True, of="trained"),
    "is": Kind("Inception Score", shown=0, trained=True, of="trained"),
    "precision": Kind("precision", trained=True, of="trained"),
    "recall": Kind("recall", trained=True, of="trained"),
    "latency_s": Kind("latency", "s"),
    "speedup": Kind("speedup", "x"),
    "memory_mb": Kind("total memory", "MB", relative=SIZE_TOLERANCE, shown=0),
    "kv_mb": Kind("KV cache", "MB", relative=SIZE_TOLERANCE, shown=1),
    "params_mb": Kind("parameters in memory", "MB"),
    "parameters": Kind("number of parameters", shown=0),
    "fid_increase": Kind("increase of FID", trained=True, of="trained"),
    "fid_gain": Kind("improvement of FID", "x", shown=1, trained=True, of="trained trained"),
    "fid_difference": Kind("difference of FID", trained=True, of="trained trained"),
    "fid_degradation": Kind("relative increase of FID", "%", shown=1, trained=True, of="trained trained"),
    "fid_limit": Kind("limit of FID", trained=True, of="trained"),
    "fid_least": Kind("least FID of several networks", trained=True, of="trained trained trained? trained?"),
    "fid_most": Kind("largest FID of several networks", trained=True, of="trained trained trained? trained?"),
    "gain_ratio": Kind("last gain of FID over the first", trained=True, of="trained trained trained trained"),
    "gain_after": Kind("share of a gain of FID that comes last", "%", shown=0, trained=True,
                       of="trained trained trained"),
    "early_fid": Kind("FID of the full network after phase 1", trained=True, of="trained trained"),
    "late_fid": Kind("FID of the full network at the end", trained=True, of="trained trained"),
    "start_excess": Kind("FID before the training above the least of the full networks after phase 1", trained=True),
    "loss": Kind("loss", trained=True, of="trained epoch?"),
    "held_out_loss": Kind("held-out loss", shown=3, trained=True),
    "loss_fall": Kind("fall of the loss after an epoch", "%", trained=True, of="trained epoch"),
    "gradient_support": Kind("full-only layers that a gradient of the flexible zone reaches in phase 3", exact=True,
                             shown=0, of="subnet"),
    "bridge_gradient": Kind("largest over smallest mean norm of the bridge zone's gradient", trained=True, of="subnet"),
    "starved_batches": Kind("share of batches that train skipped layers without a bridge zone", "%", shown=1,
                            of="subnet"),
    "models": Kind("number of trained models", "models", exact=True, shown=0, of="subnet subnet subnet subnet"),
    "steps": Kind("steps", exact=True, shown=0),
    "kv_reduction": Kind("reduction of the KV cache", "%", shown=1, of="system system?"),
    "kv_growth": Kind("growth of the KV cache", "%", shown=1, of="system system"),
    "kv_linearity": Kind("largest over smallest step of the KV cache", shown=1, of="axis"),
    "resolution_exponent": Kind("exponent of the KV cache over resolution"),
    "acceleration": Kind("acceleration of VAR-d30 over another system", "x", shown=1),
    "kv_share": Kind("share of the KV cache in the total memory", "%", shown=1),
    "layer_reduction": Kind("reduction of FLOPs in the layers at r7-r10", "%", shown=1, of="subnet"),
    # Table 4 prints 13 % among these, so they are not rounded to fives.
    "depth_share": Kind("subnet's share of the layers", "%", shown=1, of="subnet", fives=False),
    "late_latency_share": Kind("share of r7-r10 in the latency", "%", shown=1),
    "bridge_tokens": Kind("share of the tokens in the bridge zone", "%", shown=1),
    "nested": Kind("nesting of Eq. 2's sets", exact=True, shown=0, of="subnet subnet"),
    "epochs": Kind("epochs", exact=True, shown=0, of="depth phase"),
    "bridge_zone": Kind("bridge zone", exact=True, shown=0, of="setting"),
    "batch_size": Kind("training batch", exact=True, shown=0, of="setting"),
    "gpus": Kind("training hardware", exact=True, shown=0, of="setting"),
    "recommended_n": Kind("N", exact=True, shown=0, of="setting"),
    "distillation_terms": Kind("distillation losses", exact=True, shown=0, of="setting"),
    "setting": Kind("training setting", of="setting"),
}
"""All kinds of numbers; the keys name them in a `Quantity` and in the rows of the paper's data."""

SCORES = {"fid": "fid", "is": "inception_score", "precision": "precision", "recall": "recall"}
"""Kinds that score records hold, each with the name of its field there."""
RANKED = (*SCORES, "latency_s", "memory_mb")
"""Kinds by which systems are ranked: those that `varient.claims.noise` finds in records."""
RULES = (f"A printed number agrees with a value within half a unit of its last place. KV caches and totals of memory "
         f"also agree within {SIZE_TOLERANCE:.1%} (our choice): the paper rounds some and truncates others, and its "
         "28677 and 8156 are off by more than that explains. \"MB\" are MiB, \"GB\" 1000 MiB. A percentage without "
         f"decimals that is a multiple of {ROUND_PERCENT} counts as rounded to the nearest {ROUND_PERCENT}: \"65%\" "
         "stands for 62.5 to 67.5; not shares of the layers, of which one is printed as 13%. What follows from printed "
         "numbers agrees if it does for some values within the rounding and tolerance of each. The evidence says where "
         "a value agrees by one of these tolerances alone.")
"""When two numbers agree, in words."""


@dataclass(frozen=True)
class Quantity:
    """What a number denotes; equal quantities must have equal values.

    Attributes:
        name: a key of `KINDS`.
        systems: ids at the paper's size; for other things, words that identify them.
        batch: images in a batch.
        edition: of the paper; empty for the first.  What two editions print of one thing is not the same quantity.
    """

    name: str
    systems: tuple[str, ...] = ()
    batch: int = PAPER_BATCH_SIZE
    edition: str = ""

    @classmethod
    def of(cls, name: str, *systems: str, batch: int = PAPER_BATCH_SIZE) -> Quantity:
        """The quantity of some systems."""
        return cls(name, systems, batch)

    @property
    def kind(self) -> Kind:
        """The kind of its numbers."""
        return KINDS[self.name]

    def __str__(self) -> str:
        batch = "" if self.batch == PAPER_BATCH_SIZE else f", batch {self.batch}"
        edition = f" ({self.edition})" if self.edition else ""
        return f"{self.kind.label} of {', '.join(self.systems)}{batch}{edition}"


def parse(text: str, kind: Kind, *, tolerant: bool = True) -> tuple[Interval, ...]:
    """The numbers in a printed text, in the kind's unit; with its tolerances, or by the printed digits alone.

    A unit at the end ("2.0+0.3B") holds for all, and "over 50" means all values above.  OOM says that a total is above
    the memory of the paper's GPU, and "fits" that it is not.
    """
    if text in (OUT_OF_MEMORY, FITS):
        limit = device(PAPER_DEVICE).memory_mib
        return (Interval(limit, inf) if text == OUT_OF_MEMORY else Interval(0, limit),)
    if bound := _BOUND.match(text):
        value = float(bound[2])
        return (Interval(value, inf) if bound[1] in _LOWER else Interval(0, value),)
    unit = _UNIT.search(text)
    return tuple(kind.interval(number, _UNIT_SIZES[unit[1]] if unit else 1, tolerant=tolerant)
                 for number in _NUMBER.findall(text))
