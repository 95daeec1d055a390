"""LlamaGen's transformer: a Llama that predicts an image's tokens one after the other, row by row, from its class.

Shapes: B images, R rows (images; twice as many under guidance), L tokens of an image, l tokens at hand, C = width,
H heads of c = C / H channels, V = codebook size.  Weights may be float32, float16 or bfloat16: matrix products and
attention run in that dtype, while the residual stream, norms, rotations and logits stay float32 (the authors' stream
has the dtype of the weights).  Follows FoundationVision/LlamaGen at ce98ec4, autoregressive/models/gpt.py; parameter
names are those of the released c2i checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varient.baselines.llamagen.settings import TransformerShape

if TYPE_CHECKING:
    from varient.baselines.llamagen.kv_cache import StaticCache

NORM_EPS = 1e-5
ROTARY_BASE = 10000.0

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, q_RHlc, k_RHlc, v_RHlc) -> out_RHlc: attention over all tokens that are visible in that layer."""


class Transformer(nn.Module):
    """Class-conditional next-token transformer.

    Label ``num_classes`` means "no class"; it is the unconditional input of classifier-free guidance.
    """

    def __init__(self, shape: TransformerShape, *, side: int, vocab_size: int, num_classes: int) -> None:
        """A transformer for side x side tokens; the weights are to be initialised or loaded."""
        super().__init__()
        self.shape, self.side, self.num_classes = shape, side, num_classes
        self.cls_embedding = nn.ModuleDict({"embedding_table": nn.Embedding(num_classes + 1, shape.width)})
        self.tok_embeddings = nn.Embedding(vocab_size, shape.width)
        self.layers = nn.ModuleList(Block(shape, layer) for layer in range(shape.depth))
        self.norm = RMSNorm(shape.width)
        self.output = nn.Linear(shape.width, vocab_size, bias=False)

    @property
    def num_tokens(self) -> int:
        """L, tokens of an image."""
        return self.side ** 2

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.output.weight.device

    def embed_class(self, label_R: Tensor) -> Tensor:
        """What enters at position 0 (R, 1, C), for labels 0..num_classes."""
        return self.cls_embedding["embedding_table"](label_R).unsqueeze(1).float()

    def embed_tokens(self, idx_Rl: Tensor) -> Tensor:
        """What enters at the positions 1.. (R, l, C), for tokens 0..V-1."""
        return self.tok_embeddings(idx_Rl).float()

    def rotations(self) -> Tensor:
        """Cosines and sines (1 + L, c / 2, 2) of all positions, on the device of the weights."""
        return rotary_table(self.side, self.shape.head_dim).to(self.device)

    def forward(self, label_B: Tensor, idx_BL: Tensor) -> Tensor:
        """Teacher-forced logits (B, L, V): those of a token see the class and the tokens before it."""
        def attend(_layer: int, q_BHLc: Tensor, k_BHLc: Tensor, v_BHLc: Tensor) -> Tensor:
            return self._softmax_attention(q_BHLc, k_BHLc, v_BHLc, is_causal=True)

        x_BLC = torch.cat([self.embed_class(label_B), self.embed_tokens(idx_BL[:, :-1])], dim=1)
        return self._logits(x_BLC, self.rotations()[:-1], attend)

    def step(self, x_R1C: Tensor, position: int, cache: StaticCache, rotation_Pp2: Tensor) -> Tensor:
        """Logits (R, V) of the token after ``position``, whose embedding enters; the cache holds the positions before.

        Args:
            rotation_Pp2: `rotations`, made once for all steps.
        """
        def attend(layer: int, q_RH1c: Tensor, k_RH1c: Tensor, v_RH1c: Tensor) -> Tensor:
            k_RHtc, v_RHtc = cache.extend(layer, position, k_RH1c, v_RH1c)
            return self._softmax_attention(q_RH1c, k_RHtc, v_RHtc)

        return self._logits(x_R1C, rotation_Pp2[position:position + 1], attend).squeeze(1)

    def _logits(self, x_RlC: Tensor, rotation_lp2: Tensor, attend: Attend) -> Tensor:
        x_RlC = F.dropout(x_RlC, self.shape.token_drop_rate, self.training)
        for block in self.layers:
            x_RlC = block(x_RlC, rotation_lp2, attend)
        return self.output(self.norm(x_RlC).to(self.output.weight.dtype)).float()

    def _softmax_attention(self, q_RHlc: Tensor, k_RHtc: Tensor, v_RHtc: Tensor, *, is_causal: bool = False) -> Tensor:
        grouped = self.shape.kv_heads != self.shape.num_heads
        return F.scaled_dot_product_attention(q_RHlc, k_RHtc, v_RHtc, is_causal=is_causal, enable_gqa=grouped)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, shape: TransformerShape, layer: int) -> None:
        super().__init__()
        self.layer, self.drop_rate = layer, shape.residual_drop_rate
        self.attention = Attention(shape)
        self.feed_forward = FeedForward(shape)
        self.attention_norm = RMSNorm(shape.width)
        self.ffn_norm = RMSNorm(shape.width)

    def forward(self, x_RlC: Tensor, rotation_lp2: Tensor, attend: Attend) -> Tensor:
        h_RlC = self.attention(self.layer, self.attention_norm(x_RlC), rotation_lp2, attend)
        x_RlC = x_RlC + F.dropout(h_RlC, self.drop_rate, self.training)
        return x_RlC + F.dropout(self.feed_forward(self.ffn_norm(x_RlC)), self.drop_rate, self.training)


class Attention(nn.Module):
    """Attention with rotated queries and keys; fewer heads of keys and values are shared by groups of queries."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.widths = [heads * shape.head_dim for heads in (shape.num_heads, shape.kv_heads, shape.kv_heads)]
        self.head_dim = shape.head_dim
        self.wqkv = nn.Linear(shape.width, sum(self.widths), bias=False)
        self.wo = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, layer: int, x_RlC: Tensor, rotation_lp2: Tensor, attend: Attend) -> Tensor:
        dtype = self.wqkv.weight.dtype
        parts = self.wqkv(x_RlC.to(dtype)).split(self.widths, dim=-1)
        q_RHlc, k_RHlc, v_RHlc = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        out_RHlc = attend(layer, rotate(q_RHlc, rotation_lp2).to(dtype), rotate(k_RHlc, rotation_lp2).to(dtype), v_RHlc)
        return self.wo(out_RHlc.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x)."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.w1 = nn.Linear(shape.width, shape.hidden, bias=False)
        self.w3 = nn.Linear(shape.width, shape.hidden, bias=False)
        self.w2 = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x_RlC: Tensor) -> Tensor:
        x_RlC = x_RlC.to(self.w1.weight.dtype)
        return self.w2(F.silu(self.w1(x_RlC)) * self.w3(x_RlC))


class RMSNorm(nn.Module):
    """weight * x / rms(x), in float32."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))

    def forward(self, x_RlC: Tensor) -> Tensor:
        return F.rms_norm(x_RlC.float(), self.weight.shape, self.weight.float(), NORM_EPS)


def rotary_table(side: int, head_dim: int) -> Tensor:
    """Cosines and sines (1 + side^2, c / 2, 2) of the class token and the tokens of a grid, row by row, float32.

    The first half of the c / 2 channel pairs encodes the row, the second half the column.  The entry of the class token
    is zero instead of the identity rotation, so that its query and key are zero and all tokens attend to it with score
    0.  The released networks were trained in this way.
    """
    half = head_dim // 2
    frequency_f = 1 / ROTARY_BASE ** (torch.arange(0, half, 2).float() / half)
    angle_sf = torch.outer(torch.arange(side).float(), frequency_f)
    by_row_ssf = angle_sf[:, None].expand(side, side, -1)
    by_column_ssf = angle_sf[None, :].expand(side, side, -1)
    angle_Lp = torch.cat([by_row_ssf, by_column_ssf], dim=-1).flatten(0, 1)
    turn_Lp2 = torch.stack([angle_Lp.cos(), angle_Lp.sin()], dim=-1)
    return torch.cat([torch.zeros_like(turn_Lp2[:1]), turn_Lp2])


def rotate(x_RHlc: Tensor, rotation_lp2: Tensor) -> Tensor:
    """Turn neighbouring channels (2i, 2i + 1) of queries or keys by their position's angles; float32 comes back."""
    even_RHlp, odd_RHlp = x_RHlc.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos_lp, sin_lp = rotation_lp2.unbind(-1)
    turned = (even_RHlp * cos_lp - odd_RHlp * sin_lp, odd_RHlp * cos_lp + even_RHlp * sin_lp)
    return torch.stack(turned, dim=-1).flatten(-2)


@torch.no_grad()
def initialize(model: Transformer) -> None:
    """Initial weights for training from scratch, drawn from torch's global generator; the authors' scheme."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            nn.init.ones_(parameter)
        elif name == "output.weight":
            nn.init.zeros_(parameter)
        else:
            nn.init.normal_(parameter, std=0.02)
