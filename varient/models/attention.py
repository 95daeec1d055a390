"""Self-attention of a VAR block: queries, keys and values of one layer's tokens, and attention over what they see.

Shapes: B rows, l tokens, t tokens that the queries attend to, C = embed_dim, H heads of c = C / H channels.  What the
tokens see, a cache or a mask, is the caller's: an `Attend`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varient.config import TransformerSpec

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_BHlc, k_BHlc, v_BHlc) -> out_BHlc: attention over all tokens that are visible in that layer."""


class AttentionConstants(NamedTuple):
    """What attention computes from its parameters alone.

    Attributes:
        bias_3C: bias of queries, keys and values.
        length_2H1: length of the normalised queries and keys of each head, float32; None without normalisation.
    """

    bias_3C: Tensor
    length_2H1: Tensor | None


class SelfAttention(nn.Module):
    """Attention with l2-normalised queries and keys and a learned scale per head, or with the fixed 0.25 / sqrt(c)."""

    MAX_LOG_SCALE = math.log(100)
    MIN_NORM = 1e-12  # that of torch's normalize, which the released code calls

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        width = spec.embed_dim
        self.num_heads, self.head_dim, self.l2_norm = spec.num_heads, width // spec.num_heads, spec.attn_l2_norm
        self.softmax_scale = 1.0 if spec.attn_l2_norm else 0.25 / math.sqrt(self.head_dim)
        if spec.attn_l2_norm:
            self.scale_mul_1H11 = nn.Parameter(torch.empty(1, spec.num_heads, 1, 1))
        self.mat_qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.empty(width))
        self.v_bias = nn.Parameter(torch.empty(width))  # keys have no bias
        self.proj = nn.Linear(width, width)

    def constants(self) -> AttentionConstants:
        """The bias with that of the keys, which is 0, and the length of queries (learned) and keys (1)."""
        bias_3C = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        if not self.l2_norm:
            return AttentionConstants(bias_3C, None)
        length_H1 = self.scale_mul_1H11.float().clamp_max(self.MAX_LOG_SCALE).exp().view(-1, 1)
        return AttentionConstants(bias_3C, torch.stack([length_H1, torch.ones_like(length_H1)]))

    def forward(self, layer: int, x_BlC: Tensor, attend: Attend, constants: AttentionConstants | None = None) -> Tensor:
        """Attention (B, l, C).

        Args:
            constants: None: computed here.  Under FSDP2 the parameters are whole in this method alone.
        """
        out_BHlc = attend(layer, *self.queries_keys_values(x_BlC, self.constants() if constants is None else constants))
        return self.proj(out_BHlc.transpose(1, 2).flatten(2))

    def queries_keys_values(self, x_BlC: Tensor, constants: AttentionConstants) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, l, c); normalised queries and keys are float32, whatever the weights are."""
        bias_3C, length_2H1 = constants
        qkv_BlsHc = F.linear(x_BlC.to(bias_3C.dtype), self.mat_qkv.weight, bias_3C).unflatten(
            2, (3, self.num_heads, self.head_dim))
        qk_BlsHc, v_BlHc = qkv_BlsHc[:, :, :2], qkv_BlsHc[:, :, 2]
        if length_2H1 is not None:
            qk_BlsHc = qk_BlsHc.float()  # as under autocast
            qk_BlsHc = qk_BlsHc * (length_2H1 / qk_BlsHc.norm(dim=-1, keepdim=True).clamp_min(self.MIN_NORM))
        return *qk_BlsHc.transpose(1, 3).unbind(2), v_BlHc.transpose(1, 2)

    def softmax_attention(self, q_BHlc: Tensor, k_BHtc: Tensor, v_BHtc: Tensor,
                          visible_lt: Tensor | None = None) -> Tensor:
        """softmax(scale q k') v over the keys marked in ``visible_lt`` (bool; None means all), in the dtype of v."""
        q_BHlc, k_BHtc = q_BHlc.to(v_BHtc.dtype), k_BHtc.to(v_BHtc.dtype)
        return F.scaled_dot_product_attention(q_BHlc, k_BHtc, v_BHtc, attn_mask=visible_lt, scale=self.softmax_scale)

    def attention_map(self, q_BHlc: Tensor, k_BHtc: Tensor) -> Tensor:
        """softmax(scale q k') (B, H, l, t), float32."""
        return (self.softmax_scale * q_BHlc.float() @ k_BHtc.float().transpose(2, 3)).softmax(dim=-1)
