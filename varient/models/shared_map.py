"""One attention map for both halves of classifier-free guidance, as in LiteVAR: that of the conditional half.

The unconditional half keeps its own values and residual stream; its queries and keys are projected with the others and
not used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from varient.models.attention import Attend


def by_one_map(attend: Attend) -> Attend:
    """Attention over R = 2B rows, conditional ones first, by attention over B rows.

    Args:
        attend: called with queries and keys (B, H, l, c) of the conditional half and with values (B, H, l, 2, c) of
            both; returns (B, H, l, 2c).
    """
    def attend_both(layer: int, q_RHlc: Tensor, k_RHlc: Tensor, v_RHlc: Tensor) -> Tensor:
        q_BHlc, k_BHlc = (conditional.chunk(2)[0] for conditional in (q_RHlc, k_RHlc))
        out_BHlC = attend(layer, q_BHlc, k_BHlc, torch.stack(v_RHlc.chunk(2), dim=3))
        return torch.cat(out_BHlC.chunk(2, dim=3))

    return attend_both
