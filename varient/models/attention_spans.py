"""Grouping of scales into spans that share one attention call.  Imports no torch, because the cost model uses it too.

Each attention call has a fixed overhead, so small consecutive scales share a masked call: a span has at most
`SHARED_TOKENS` tokens, unless it is a single scale.  The ten scales of VAR at 256 x 256 form five spans (r1-r6, r7, r8,
r9, r10), which take 0.63 of the multiplications of one masked call over all 680 tokens.  The bridge zone r1-r6 is one
span, and so are all 65 tokens of the digits experiment.  Spans depend only on the scales and not on the batch, so the
result of an image does not depend on the batch either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

SHARED_TOKENS = 128
"""Chosen by a benchmark of seven limits: within 5 % of the fastest for all 13 sizes (15 to 2240 tokens, 1 to 64 rows
times heads; forward and backward pass on one CPU thread).  256 is as fast; a single call for all scales takes up to 1.6
times as long, one call per scale 2.1 times (benchmarks/records/training-attention.json)."""


class Span(NamedTuple):
    """Consecutive scales whose queries share an attention call.

    Attributes:
        begin: number of tokens before the first of the scales.
        scales: number of tokens of each scale.
    """

    begin: int
    scales: tuple[int, ...]

    @property
    def end(self) -> int:
        """Number of tokens up to and including the last of the scales; these are the keys of the call."""
        return self.begin + sum(self.scales)


def spans_of(tokens: Sequence[int], shared_tokens: int = SHARED_TOKENS) -> list[Span]:
    """Group consecutive scales into spans.

    Args:
        tokens: number of tokens of each scale.
        shared_tokens: limit of the tokens in a span of several scales; 0: one span per scale.
    """
    spans: list[Span] = []
    for scale_tokens in tokens:
        last = spans[-1] if spans else None
        if last and sum(last.scales) + scale_tokens <= shared_tokens:
            spans[-1] = Span(last.begin, (*last.scales, scale_tokens))
        else:
            spans.append(Span(last.end if last else 0, (scale_tokens,)))
    return spans
