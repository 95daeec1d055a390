"""The confound of orders between scales: a layout of scales makes more of the picture in some of them than in others.

An untrained subnet does the more harm the more of the picture is made at the scales where it runs.  An order of zones
may thus say where the layout makes the picture, and not at which scales a network needs its depth.  Where a picture is
made is told by the share of real images whose class a judge sees after the scales so far: what a zone adds to it.  The
shares of tokens do not tell (of two layouts on digits one has most tokens where a subnet does no harm), nor do FIDs,
whose differences and those of their roots may be ordered differently; both are told beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from varient.claims.directions import Direction, Pair, Zone
from varient.claims.records import Records
from varient.pyramid import Pyramid
from varient.records import ReconstructionRecord


def layout_remark(direction: Direction, signs: Mapping[Pair, int], records: Records) -> str:
    """Tokens of each zone of a direction and what real images need of them; empty for orders of other things.

    Args:
        signs: of the pairs that have records, see `varient.claims.noise.resolved`.
    """
    pyramid = Pyramid(records.config.patch_nums)
    if not direction.zones or direction.zones[-1][-1] > pyramid.num_scales:
        return ""
    shares = [token_share(pyramid, zone) for zone in direction.zones]
    told = ", ".join(f"r{first}-r{last} {share:.1f} %"
                     for (first, last), share in zip(direction.zones, shares, strict=True))
    parts = [f"Tokens in this layout: {told}."]
    if record := records.results.reconstruction:
        gains = _recognised_gains(direction, record)
        parts += [_rebuilt(direction, record, gains)]
        # The chain goes from zone to zone, and from the last one to another system.
        parts += [_conclusion([(signs.get(pair), more - less)
                               for pair, more, less in zip(direction.pairs, gains, gains[1:], strict=False)])]
    return " ".join(filter(None, parts))


def token_share(pyramid: Pyramid, zone: Zone) -> float:
    """Share of all tokens that a zone holds, %."""
    first, last = zone
    return 100 * (pyramid.end(last) - pyramid.begin(first)) / pyramid.length


def _recognised_gains(direction: Direction, record: ReconstructionRecord) -> list[float]:
    """What each zone adds to the share of recognised images, %; none where nobody judged them."""
    recognised = {scale.scale: scale.recognised for scale in record.scales} | {0: 0.0}
    ends = [(recognised.get(first - 1), recognised.get(last)) for first, last in direction.zones]
    if any(share is None for pair in ends for share in pair):
        return []
    return [100 * (after - before) for before, after in ends]


def _rebuilt(direction: Direction, record: ReconstructionRecord, gains: Sequence[float]) -> str:
    fids = {scale.scale: scale.fid for scale in record.scales}
    told = ", ".join(f"r1-r{last} {fids[last]:.3g}" for _, last in direction.zones if last in fids)
    added = ", ".join(f"r{first}-r{last} {gain:.0f} %"
                      for (first, last), gain in zip(direction.zones, gains, strict=False))
    return (f"FID of real images rebuilt from the tokens of {told}"
            + (f"; of them become recognisable at {added}." if added else "."))


def _conclusion(steps: Sequence[tuple[int | None, float]]) -> str:
    """Whether FID goes with where pictures become recognisable, from zone to zone: (sign of a pair, or None without
    records; more of the picture)."""
    if not steps or any(sign is None for sign, _ in steps):
        return ""
    if all(sign * more > 0 for sign, more in steps):
        return "The more of the picture a zone makes, the more harm: the order follows the layout."
    if all(sign * more < 0 for sign, more in steps):
        return "The less of the picture a zone makes, the more harm: the order does not follow the layout."
    return "Whether the order follows the layout cannot be told."
