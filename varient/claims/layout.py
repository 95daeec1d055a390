"""The confound of rankings of scales: a layout of scales makes more of the picture in some of them than in others.

An untrained subnet does the more harm the more of the picture is made at the scales where it runs.  A ranking of zones
may thus say where the layout makes the picture, and not at which scales a network needs its depth.  Where a picture is
made is measured by what a zone adds to a judge's accuracy: the share of real images, rebuilt from the scales so far,
whose class a classifier sees.  The shares of tokens do not show it (of two layouts on digits one has most tokens where
a subnet does no harm), nor do FIDs, whose differences and those of their roots may be ranked differently; both are
reported beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from varient.claims.directions import Direction, Pair
from varient.claims.records import Records
from varient.pyramid import Pyramid
from varient.records import ReconstructionRecord


def layout_remark(direction: Direction, signs: Mapping[Pair, int], records: Records) -> str:
    """Tokens of each zone of a direction and what real images need of them; empty for rankings of other things.

    Args:
        signs: of the pairs that have records, see `varient.claims.noise.resolved`.
    """
    pyramid = Pyramid(records.config.patch_nums)
    if not direction.zones or direction.zones[-1][-1] > pyramid.num_scales:
        return ""
    shares = [pyramid.share(zone) for zone in direction.zones]
    listed = ", ".join(f"r{first}-r{last} {share:.1f} %"
                       for (first, last), share in zip(direction.zones, shares, strict=True))
    parts = [f"Tokens in this layout: {listed}."]
    if record := records.results.reconstruction:
        gains = _accuracy_gains(direction, record)
        parts += [_rebuilt(direction, record, gains)]
        # The chain goes from zone to zone, and from the last one to another system.
        parts += [_conclusion([(signs.get(pair), more - less)
                               for pair, more, less in zip(direction.pairs, gains, gains[1:], strict=False)])]
    return " ".join(filter(None, parts))


def _accuracy_gains(direction: Direction, record: ReconstructionRecord) -> list[float]:
    """What each zone adds to the judge's accuracy, percentage points; none where nobody judged the images."""
    recognised = {scale.scale: scale.recognised for scale in record.scales} | {0: 0.0}
    ends = [(recognised.get(first - 1), recognised.get(last)) for first, last in direction.zones]
    if any(share is None for pair in ends for share in pair):
        return []
    return [100 * (after - before) for before, after in ends]


def _rebuilt(direction: Direction, record: ReconstructionRecord, gains: Sequence[float]) -> str:
    fids = {scale.scale: scale.fid for scale in record.scales}
    listed = ", ".join(f"r1-r{last} {fids[last]:.3g}" for _, last in direction.zones if last in fids)
    added = ", ".join(f"r{first}-r{last} {gain:.0f}"
                      for (first, last), gain in zip(direction.zones, gains, strict=False))
    return (f"FID of real images rebuilt from their tokens: {listed}"
            + (f"; each zone adds to the judge's accuracy, in percentage points: {added}." if added else "."))


def _conclusion(steps: Sequence[tuple[int | None, float]]) -> str:
    """Whether FID goes with where pictures become recognisable, from zone to zone: (sign of a pair, or None without
    records; more of the picture)."""
    if not steps or any(sign is None for sign, _ in steps):
        return ""
    if all(sign * more > 0 for sign, more in steps):
        return "The more of the picture a zone makes, the more a subnet harms there: the ranking follows the layout."
    if all(sign * more < 0 for sign, more in steps):
        return ("The less of the picture a zone makes, the more a subnet harms there: the ranking does not follow the "
                "layout.")
    return "Whether the ranking follows the layout cannot be decided."
