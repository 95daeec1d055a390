"""How a layout of scales divides an image's tokens."""

from __future__ import annotations

from varient.pyramid import Pyramid

Zone = tuple[int, int]
"""First and last scale."""


def token_share(pyramid: Pyramid, zone: Zone) -> float:
    """Share of all tokens that a zone holds, %."""
    first, last = zone
    return 100 * (pyramid.end(last) - pyramid.begin(first)) / pyramid.length
