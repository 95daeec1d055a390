"""Block-causal attention over the tokens of several scales, split into calls that compute few masked products.

A token attends to its own scale and earlier ones.  The keys of a range of scales are therefore a prefix of all keys:
later keys are not computed, and a range of a single scale needs no mask unless a window hides earlier scales.
`varient.models.attention_spans` decides which scales share a range.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from varient.models.attention_spans import SHARED_TOKENS, spans_of

Sees = Callable[[int, int], bool]
"""(scale of the queries, scale of the keys) -> whether these queries see these keys."""

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q_BHlc, k_BHtc, v_BHtc, visible_lt) -> out_BHlc, where visible_lt is bool and None means all."""


class QueryRange(NamedTuple):
    """Queries of consecutive scales: the tokens begin <= i < end, which attend only to keys before ``end``."""

    begin: int
    end: int
    visible_lt: Tensor | None
    """Attention mask, bool (end - begin, end); None: no mask."""


def query_ranges(tokens: Sequence[int], device: torch.device | None = None, shared_tokens: int = SHARED_TOKENS,
                 sees: Sees = operator.ge) -> list[QueryRange]:
    """The query ranges of consecutive scales.

    Args:
        tokens, shared_tokens: as in `spans_of`.
        sees: of positions in ``tokens``; a scale sees itself and no later one.
    """
    ranges, first = [], 0
    for span in spans_of(tokens, shared_tokens):
        last = first + len(span.scales)
        hidden = [(query, key) for query in range(first, last) for key in range(last) if not sees(query, key)]
        visible_lt = _visible(tokens, first, last, hidden, device) if hidden else None
        ranges.append(QueryRange(span.begin, span.end, visible_lt))
        first = last
    return ranges


def _visible(tokens: Sequence[int], first: int, last: int, hidden: Sequence[tuple[int, int]],
             device: torch.device | None) -> Tensor:
    """Attention mask, bool (queries, keys), of the scales first <= i < last over the keys of all before ``last``."""
    ends = (0, *accumulate(tokens[:last]))
    visible_lt = torch.ones(ends[last] - ends[first], ends[last], dtype=torch.bool, device=device)
    for query, key in hidden:
        visible_lt[ends[query] - ends[first]:ends[query + 1] - ends[first], ends[key]:ends[key + 1]] = False
    return visible_lt


def attend_in_ranges(attention: Attention, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor,
                     blocks: Sequence[QueryRange]) -> Tensor:
    """Attention (B, H, l, c) of all queries, range by range."""
    if len(blocks) == 1:  # no slices: each would cost a copy in the backward pass
        return attention(q_BHlc, k_BHlc, v_BHlc, blocks[0].visible_lt)
    return torch.cat([attention(q_BHlc[:, :, begin:end], k_BHlc[:, :, :end], v_BHlc[:, :, :end], visible_lt)
                      for begin, end, visible_lt in blocks], dim=2)
