"""Which scales share a call of attention; torch-free, because the cost model counts the same calls.

A call costs time whatever its size, so small scales share one, with a mask: at most `SHARED_TOKENS` in a span, of
which the mask then forbids less than half.  The ten scales of VAR at 256 x 256 are five spans (r1-r6, r7, r8, r9, r10)
with 0.63 of the products of one masked call over all 680 tokens; a subnet's bridge zone r1-r6 is one, and so are all 65
tokens of the digits.  Spans depend on scales alone, never on the batch, so that an image's result does not either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SHARED_TOKENS = 128
"""Within 5 % of the fastest of seven limits at all of 13 sizes (15 to 2240 tokens, 1 to 64 rows times heads), there and
back on one CPU thread; 256 does as well, one call for all takes up to 1.6 times as long and one a scale 2.1 times
(benchmarks/records/training-attention.json)."""


class Span(NamedTuple):
    """Consecutive scales whose queries share a call: ``scales`` has the tokens of each, ``begin`` those before them."""

    begin: int
    scales: tuple[int, ...]

    @property
    def end(self) -> int:
        """Tokens up to and with the last of the scales, which are the keys of the call."""
        return self.begin + sum(self.scales)


def spans_of(tokens: Sequence[int], shared_tokens: int = SHARED_TOKENS) -> list[Span]:
    """The spans of consecutive scales with so many ``tokens`` each; 0 ``shared_tokens`` gives each scale its own."""
    spans: list[Span] = []
    for scale_tokens in tokens:
        last = spans[-1] if spans else None
        if last and sum(last.scales) + scale_tokens <= shared_tokens:
            spans[-1] = Span(last.begin, (*last.scales, scale_tokens))
        else:
            spans.append(Span(last.end if last else 0, (scale_tokens,)))
    return spans
