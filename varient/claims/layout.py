"""The confound of orders between scales: a layout of scales puts more of the picture in some of them than in others.

An untrained subnet does the more harm the more of the picture the scales hold at which it runs.  An order of zones may
thus say where the layout puts the picture, and not at which scales a network needs its depth.  The verdict is held
against the shares of tokens.  What real images look like without the later zones is told beside it and decides
nothing: differences of FIDs and those of their roots, the distances, may be ordered differently.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    rebuilt = _rebuilt(direction, records.results.reconstruction) if records.results.reconstruction else ""
    # The chain goes from zone to zone, and from the last one to another system.
    steps = [(signs.get(pair), more - less) for pair, more, less in zip(direction.pairs, shares, shares[1:],
                                                                        strict=False)]
    return " ".join(filter(None, (f"Tokens in this layout: {told}.", rebuilt, _conclusion(steps))))


def token_share(pyramid: Pyramid, zone: Zone) -> float:
    """Share of all tokens that a zone holds, %."""
    first, last = zone
    return 100 * (pyramid.end(last) - pyramid.begin(first)) / pyramid.length


def _rebuilt(direction: Direction, record: ReconstructionRecord) -> str:
    fids = {scale.scale: scale.fid for scale in record.scales}
    told = ", ".join(f"r1-r{last} {fids[last]:.3g}" for _, last in direction.zones if last in fids)
    return f"FID of real images rebuilt from the tokens of {told}."


def _conclusion(steps: list[tuple[int | None, float]]) -> str:
    """Whether FID goes with the tokens from zone to zone: (sign of a pair or None without records, more tokens)."""
    if any(sign is None for sign, _ in steps):
        return ""
    if all(sign * more > 0 for sign, more in steps):
        return "The more tokens, the more harm: the order follows where the layout puts the picture."
    if all(sign * more < 0 for sign, more in steps):
        return "The fewer tokens, the more harm: the order does not follow where the layout puts the picture."
    return "Whether the order follows where the layout puts the picture cannot be told."
