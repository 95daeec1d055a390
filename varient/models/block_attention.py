"""Block-causal attention over the tokens of several scales, split into calls that compute few masked products.

A token attends to its own scale and earlier ones.  The keys of a range of scales are therefore a prefix of all keys:
later keys are not computed, and a range of a single scale needs no mask.  `varient.models.attention_spans` decides
which scales share a range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from varient.models.attention_spans import SHARED_TOKENS, spans_of

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q_BHlc, k_BHtc, v_BHtc, visible_lt) -> out_BHlc, where visible_lt is bool and None means all."""


class QueryRange(NamedTuple):
    """Queries of consecutive scales: the tokens begin <= i < end, which attend only to keys before ``end``."""

    begin: int
    end: int
    visible_lt: Tensor | None
    """Attention mask, bool (end - begin, end); None: no mask."""


def query_ranges(tokens: Sequence[int], device: torch.device | None = None,
              shared_tokens: int = SHARED_TOKENS) -> list[QueryRange]:
    """The query ranges of consecutive scales with the given numbers of tokens; arguments as in `spans_of`."""
    return [
        QueryRange(span.begin, span.end, _visible(span.begin, span.scales, device) if len(span.scales) > 1 else None)
        for span in spans_of(tokens, shared_tokens)
    ]


def _visible(begin: int, shared: Sequence[int], device: torch.device | None) -> Tensor:
    """Attention mask, bool (queries, keys), of scales with ``shared`` tokens each that begin after ``begin`` tokens."""
    visible_lt = torch.ones(sum(shared), begin + sum(shared), dtype=torch.bool, device=device)
    row = 0
    for scale_tokens in shared:
        visible_lt[row:row + scale_tokens, begin + row + scale_tokens:] = False
        row += scale_tokens
    return visible_lt


def attend_in_ranges(attention: Attention, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor,
                     blocks: Sequence[QueryRange]) -> Tensor:
    """Attention (B, H, l, c) of all queries, range by range."""
    if len(blocks) == 1:  # no slices: each would cost a copy in the backward pass
        return attention(q_BHlc, k_BHlc, v_BHlc, blocks[0].visible_lt)
    return torch.cat([attention(q_BHlc[:, :, begin:end], k_BHlc[:, :, :end], v_BHlc[:, :, :end], visible_lt)
                      for begin, end, visible_lt in blocks], dim=2)
