"""Which attention calls cover the tokens of several scales, so that little is computed that the scale mask forbids.

A token sees its own scale and the earlier ones.  The keys of consecutive scales are therefore a prefix of all keys:
what lies behind it is never computed, and a block of a single scale needs no mask at all.

A call costs time whatever its size, so small scales share one, with a mask: at most `SHARED_TOKENS` in a block, of
which the mask then forbids less than half.  The ten scales of VAR at 256 x 256 are five blocks (r1-r6, r7, r8, r9, r10)
with 0.63 of the products of one masked call over all 680 tokens; a subnet's bridge zone r1-r6 is one, and so are all 65
tokens of the digits.  Blocks depend on scales alone, never on the batch, so that an image's result does not either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SHARED_TOKENS = 128
"""Within 5 % of the fastest of seven limits at all of 13 sizes (15 to 2240 tokens, 1 to 64 rows times heads), there and
back on one CPU thread; 256 does as well, one call for all takes up to 1.6 times as long and one a scale 2.1 times
(benchmarks/records/training-attention.json)."""

Attention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(q_BHlc, k_BHtc, v_BHtc, visible_lt) -> out_BHlc, where visible_lt is bool and None means all."""


class Block(NamedTuple):
    """Queries of consecutive scales: the tokens begin <= i < end, which see no key from ``end`` on."""

    begin: int
    end: int
    visible_lt: Tensor | None
    """Which of them see which keys 0..end; None: each sees all."""


def blocks_of(tokens: Sequence[int], device: torch.device | None = None,
              shared_tokens: int = SHARED_TOKENS) -> list[Block]:
    """The blocks of consecutive scales with so many ``tokens`` each; 0 ``shared_tokens`` gives each scale its own."""
    gathered: list[list[int]] = []
    for scale_tokens in tokens:
        if gathered and sum(gathered[-1]) + scale_tokens <= shared_tokens:
            gathered[-1].append(scale_tokens)
        else:
            gathered.append([scale_tokens])
    blocks, begin = [], 0
    for shared in gathered:
        end = begin + sum(shared)
        blocks.append(Block(begin, end, _visible(begin, shared, device) if len(shared) > 1 else None))
        begin = end
    return blocks


def _visible(begin: int, shared: Sequence[int], device: torch.device | None) -> Tensor:
    """For each of the queries of scales with ``shared`` tokens: whether it sees each key up to the last of them."""
    visible_lt = torch.ones(sum(shared), begin + sum(shared), dtype=torch.bool, device=device)
    row = 0
    for scale_tokens in shared:
        visible_lt[row:row + scale_tokens, begin + row + scale_tokens:] = False
        row += scale_tokens
    return visible_lt


def attend_in_blocks(attention: Attention, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor,
                     blocks: Sequence[Block]) -> Tensor:
    """Attention of all queries, block by block."""
    if len(blocks) == 1:  # no slices: each would cost a copy on the way back
        return attention(q_BHlc, k_BHlc, v_BHlc, blocks[0].visible_lt)
    return torch.cat([attention(q_BHlc[:, :, begin:end], k_BHlc[:, :, :end], v_BHlc[:, :, :end], visible_lt)
                      for begin, end, visible_lt in blocks], dim=2)
