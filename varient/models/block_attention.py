"""Which attention calls cover the tokens of several scales, so that little is computed that the scale mask forbids.

A token sees its own scale and the earlier ones.  The keys of consecutive scales are therefore a prefix of all keys:
what lies behind it is never computed, and a block of a single scale needs no mask at all.  Which scales share a block
is said in `varient.models.attention_spans`.
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
    """Queries of consecutive scales: the tokens begin <= i < end, which see no key from ``end`` on."""

    begin: int
    end: int
    visible_lt: Tensor | None
    """Which of them see which keys 0..end; None: each sees all."""


def blocks_of(tokens: Sequence[int], device: torch.device | None = None,
              shared_tokens: int = SHARED_TOKENS) -> list[QueryRange]:
    """The blocks of consecutive scales with so many ``tokens`` each; 0 ``shared_tokens`` gives each scale its own."""
    return [
        QueryRange(span.begin, span.end, _visible(span.begin, span.scales, device) if len(span.scales) > 1 else None)
        for span in spans_of(tokens, shared_tokens)
    ]


def _visible(begin: int, shared: Sequence[int], device: torch.device | None) -> Tensor:
    """For each of the queries of scales with ``shared`` tokens: whether it sees each key up to the last of them."""
    visible_lt = torch.ones(sum(shared), begin + sum(shared), dtype=torch.bool, device=device)
    row = 0
    for scale_tokens in shared:
        visible_lt[row:row + scale_tokens, begin + row + scale_tokens:] = False
        row += scale_tokens
    return visible_lt


def attend_in_blocks(attention: Attention, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor,
                     blocks: Sequence[QueryRange]) -> Tensor:
    """Attention of all queries, block by block."""
    if len(blocks) == 1:  # no slices: each would cost a copy on the way back
        return attention(q_BHlc, k_BHlc, v_BHlc, blocks[0].visible_lt)
    return torch.cat([attention(q_BHlc[:, :, begin:end], k_BHlc[:, :, :end], v_BHlc[:, :, :end], visible_lt)
                      for begin, end, visible_lt in blocks], dim=2)
