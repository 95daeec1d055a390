"""The rankings that the paper claims: which of its systems is better than which.

A ranking is a set of pairs of quantities, the larger first.  The printed numbers must show it, and any experiment with
counterparts of the systems can look for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from varient.claims.claims import FULL, LAST_SCALE, NO_DEPTH, SKIP_ALL, fixed_ratio, stated_rankings, subnet, window
from varient.claims.quantity import KINDS, Quantity
from varient.cost.paper_systems import BRIDGE
from varient.paper import PAPER_DEPTHS
from varient.pyramid import Zone
from varient.systems.ids import VarId

Pair = tuple[Quantity, Quantity]

SHALLOW_FIRST = tuple(sorted(PAPER_DEPTHS))
PRINTED_RATIOS = (10, 100)
"""p(subnet), in percent: Sec. 3.3.1 varies it from 0.1 to 1, and prints the FIDs of both ends."""
NEARLY_EQUIVALENT = 0.05
"""Relative.  How much worse a score may be that counts as at least as good, our choice: the abstract calls an FID of
2.05 "nearly equivalent" to 1.95, which is 5 % below it."""
_NO_WORSE = f"read as at most {NEARLY_EQUIVALENT:.0%} worse (our choice)"
TABLE1_ZONES: tuple[Zone, ...] = ((1, 3), (4, BRIDGE), (BRIDGE + 1, LAST_SCALE))
"""Where Table 1 runs a subnet."""


@dataclass(frozen=True)
class Direction:
    """A ranking.

    Attributes:
        pairs: the first of each is the larger number.
        ablated: an experiment looks for it at the depth of its ablations, where the paper has d = 16.
        reading: how we read the claim, where that is a choice.
        zones: scales that it compares, in the order of its chain; what each holds of the picture is a confound.
        margin: 0 where the first of each pair is claimed to be larger; else the second is claimed to be at least as
            good (non-inferior): larger by no more than this, relative to the first.
    """

    id: str
    where: str
    claim: str
    pairs: tuple[Pair, ...]
    ablated: bool = False
    reading: str = ""
    zones: tuple[Zone, ...] = ()
    margin: float = 0.0

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """All of them, each once."""
        return tuple(dict.fromkeys(quantity for pair in self.pairs for quantity in pair))


def directions(ratios: Sequence[int] = ()) -> list[Direction]:
    """All rankings, in the paper's order.

    Args:
        ratios: p(subnet) that an experiment compares besides the paper's two, in percent.
    """
    ratios = sorted({*ratios, *PRINTED_RATIOS})
    variants = [str(VarId("variant", depth)) for depth in SHALLOW_FIRST]
    full = [str(VarId("variant", depth, full=True)) for depth in SHALLOW_FIRST]
    free = [str(VarId("free", depth)) for depth in SHALLOW_FIRST]
    three_phases = VarId("variant", 16)
    skip_all = replace(three_phases, recipe=SKIP_ALL)
    return [
        Direction("table1-order", "Table 1", "an untrained subnet raises FID most at r1-r3, less at r4-r6 and least "
                  "at r7-r10, and full depth is best",
                  _chain("fid", *(window(16, *zone) for zone in TABLE1_ZONES), FULL), zones=TABLE1_ZONES),
        Direction("table2-fid-order", "Table 2", "FID falls as the subnet gets deeper",
                  _chain("fid", *variants)),
        Direction("table2-is-order", "Table 2", "Inception Score rises as the subnet gets deeper",
                  _chain("is", *reversed(variants))),
        Direction("table2-precision-order", "Table 2", "precision rises as the subnet gets deeper",
                  _chain("precision", *reversed(variants))),
        Direction("table2-recall-order", "Table 2", "recall rises as the subnet gets deeper",
                  _chain("recall", *reversed(variants))),
        Direction("table2-latency-order", "Table 2", "the shallower the subnet, the faster",
                  _chain("latency_s", FULL, *reversed(variants))),
        Direction("table2-memory-order", "Table 2", "the shallower the subnet, the less memory",
                  _chain("memory_mb", FULL, *reversed(variants))),
        Direction("table2-code-order", "Table 2", "d = 8 and d = 16 have a better FID than CoDe",
                  _above("fid", ["code-n6", "code-n6"], ["variant-d8", "variant-d16"])),
        Direction("table4-collapse", "Table 4", "without training every subnet has a worse FID than the full network",
                  _above("fid", free, [FULL] * len(free))),
        Direction("table4-collapse-order", "Table 4", "without training FID falls as the subnet gets deeper",
                  _chain("fid", *free)),
        Direction("table4-recovery", "Table 4", "joint training improves the FID of every subnet",
                  _above("fid", free, variants)),
        Direction("table4-full-order", "Table 4", "the full network's FID is worse for smaller d of its supernet",
                  _chain("fid", *full)),
        *(Direction(f"table5-{network.split()[0]}-{score}-order", "Table 5",
                    f"with a bridge zone the {network} has a better {KINDS[score].label}",
                    _better(score, *(str(replace(system, full=is_full)) for system in (three_phases, skip_all))),
                    ablated=True)
          for network, is_full in (("subnet", False), ("full network", True)) for score in ("fid", "is")),
        Direction("3.3.1-full-order", "section 3.3.1", "the full network has a better FID after p = 0.1 than after "
                  "p = 1.0", _chain("fid", _fixed(100, full=True), _fixed(10, full=True)), ablated=True,
                  reading=NO_DEPTH),
        Direction("3.3.1-subnet-order", "section 3.3.1", "the subnet has a better FID after p = 1.0 than after p = 0.1",
                  _chain("fid", _fixed(10), _fixed(100)), ablated=True, reading=NO_DEPTH),
        *_of_ratios(ratios),
        Direction("table8-depth-order", "Table 8", "FID falls as the subnet gets deeper, for every N",
                  tuple(pair for bridge in range(BRIDGE, LAST_SCALE + 1)
                        for pair in _chain("fid", *(subnet(depth, bridge) for depth in SHALLOW_FIRST)))),
        Direction("table8-bridge-order", "Table 8", "FID is better with all scales in the bridge zone than with six",
                  _above("fid", variants, [subnet(depth, LAST_SCALE) for depth in SHALLOW_FIRST])),
        Direction("figure7-order", "Fig. 7 and section 6.2",
                  "the subnet is better at the end of each phase than at the end of the one before",
                  _chain("fid", *(str(replace(three_phases, phase=phase)) for phase in (1, 2, None)))),
    ]


def _fixed(percent: int, *, full: bool = False) -> str:
    """Id of the subnet, or of the full network, that a fixed p gives; the text names no d."""
    return str(VarId("variant", 16, fixed_ratio(percent), full=full))


def _of_ratios(ratios: Sequence[int]) -> Iterator[Direction]:
    """What is said of fixed ratios and the three phases; no number is printed for those between the two ends."""
    three_phases = VarId("variant", 16)
    subnets, full = ([_fixed(ratio, full=is_full) for ratio in ratios] for is_full in (False, True))
    (rarely, always), (full_rarely, full_always) = (
        [_fixed(ratio, full=is_full) for ratio in PRINTED_RATIOS] for is_full in (False, True))
    ends = _chain("fid", full_always, full_rarely), _chain("fid", rarely, always)
    worse_full = [system for system in full if system != full_rarely]
    worse_subnets = [system for system in subnets if system != always]
    yield _stated("3.3.1-best-p01", _above("fid", worse_full, [full_rarely] * len(worse_full)))
    yield _stated("3.3.1-no-single-p",
                  (*_above("fid", worse_subnets, [always] * len(worse_subnets)), *ends[0]),
                  "Read as: the subnet is best at p = 1.0, and there the full network is not.")
    yield _stated("3.3.1-smooth-front",
                  tuple(dict.fromkeys([*_chain("fid", *reversed(full)), *_chain("fid", *subnets), *ends[0], *ends[1]])),
                  "Read as: from each p to the next the subnet's FID falls and the full network's rises.")
    yield _stated("3.3.2-maintained", _chain("fid", *(str(replace(three_phases, phase=phase, full=True))
                                                             for phase in (2, None))),
                  f"\"Maintains\" {_NO_WORSE} than at the end of phase 2.", NEARLY_EQUIVALENT)
    for network, fixed, is_full in (("subnet", subnets, False), ("full network", full, True)):
        ours = str(replace(three_phases, full=is_full))
        yield Direction(f"figure2-{network.split()[0]}-order", "Fig. 2a and section 3.3.2",
                        f"the three phases give a {network} at least as good as any fixed ratio does",
                        _above("fid", fixed, [ours] * len(fixed)), ablated=True,
                        reading=f"{NO_DEPTH} \"At least as good\" {_NO_WORSE}.", margin=NEARLY_EQUIVALENT)


def _stated(name: str, pairs: tuple[Pair, ...], reading: str = "", margin: float = 0.0) -> Direction:
    """A ranking that the text states of a subnet whose depth it does not say."""
    where, claim = stated_rankings()[name]
    return Direction(name, where, claim, pairs, ablated=True, reading=f"{NO_DEPTH} {reading}".strip(), margin=margin)


def _chain(name: str, *systems: str) -> tuple[Pair, ...]:
    return tuple(pairwise(Quantity.of(name, system) for system in systems))


def _above(name: str, larger: Sequence[str], smaller: Sequence[str]) -> tuple[Pair, ...]:
    return tuple((Quantity.of(name, a), Quantity.of(name, b)) for a, b in zip(larger, smaller, strict=True))


def _better(name: str, better: str, worse: str) -> tuple[Pair, ...]:
    """A low FID is good, a high Inception Score is."""
    return _chain(name, *((worse, better) if name == "fid" else (better, worse)))
