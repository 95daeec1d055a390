"""The VAR transformer: one stack of blocks for all scales, conditioned on the class by adaptive layer norm.

Shapes: B rows (images; twice as many under guidance), L tokens of all scales, l tokens of one scale, C = embed_dim,
H heads of c = C / H channels, v = z_channels of the tokenizer, V = vocab_size.  Weights may be float32, float16 or
bfloat16; as in the released code under autocast, matrix products and attention run in that dtype, while the residual
stream, norms and logits stay float32.  Follows VAR (FoundationVision/VAR at 78b9539, models/var.py and basic_var.py);
parameter names are those of the released checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varient.config import TransformerSpec
from varient.kv_scheme import KVScheme
from varient.models.attention import Attend, AttentionConstants, SelfAttention
from varient.models.block_attention import Sees, attend_in_ranges, query_ranges
from varient.models.budget_cache import BudgetCache
from varient.models.kv_packing import as_stored
from varient.models.shared_map import by_one_map
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

if TYPE_CHECKING:  # trainings use no cache, and are not repeated when its code changes
    from varient.models.kv_cache import KVCache


class VAR(nn.Module):
    """Class-conditional next-scale transformer (Eq. 1).

    Label ``num_classes`` means "no class"; it is the unconditional input of classifier-free guidance.
    """

    no_weight_decay = ("pos_start", "pos_1LC", "lvl_embed", "scale_mul_1H11", "ada_gss")

    def __init__(self, spec: TransformerSpec, pyramid: Pyramid, *, num_classes: int, vocab_size: int,
                 z_channels: int) -> None:
        super().__init__()
        self.spec, self.pyramid, self.num_classes = spec, pyramid, num_classes
        width = spec.embed_dim
        self.pos_start = nn.Parameter(torch.empty(1, pyramid.tokens(1), width))
        self.pos_1LC = nn.Parameter(torch.empty(1, pyramid.length, width))
        self.word_embed = nn.Linear(z_channels, width)
        self.class_emb = nn.Embedding(num_classes + 1, width)
        self.lvl_embed = nn.Embedding(pyramid.num_scales, width)
        if spec.shared_aln:
            self.shared_ada_lin = _ada_lin(width, 6)
        self.blocks = nn.ModuleList(Block(spec, layer) for layer in range(spec.depth))
        self.head_nm = HeadNorm(spec)
        self.head = nn.Linear(width, vocab_size)

    # -- conditioning and embedding ----------------------------------------------------------------------------

    def condition(self, label_B: Tensor) -> Tensor:
        """Class vectors (B, C) of the labels 0..num_classes."""
        return self.class_emb(label_B)

    def modulation(self, class_BC: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """adaLN parameters (B, 1, 6, C) of each of the given layers; they do not depend on the scale."""
        shared = self.shared_ada_lin(class_BC).view(-1, 1, 6, self.spec.embed_dim) if self.spec.shared_aln else None
        return {layer: self.blocks[layer].modulation(class_BC, shared) for layer in layers}

    def embed_start(self, class_BC: Tensor) -> Tensor:
        """Input tokens (B, l, C) of scale 1: the class vector at each start position."""
        return class_BC.unsqueeze(1).float() + self.pos_start.float() + self._positions(1, 1)

    def embed_scale(self, k: int, x_Blv: Tensor) -> Tensor:
        """Input tokens (B, l, C) of scale k >= 2, from the quantizer's `next_input` (B, l, v)."""
        return self.word_embed(x_Blv.to(self.word_embed.weight.dtype)).float() + self._positions(k, k)

    def embed_scales(self, class_BC: Tensor, x_BLv: Tensor, last: int) -> Tensor:
        """Input tokens (B, L, C) of the scales 1..last.

        Args:
            x_BLv: the quantizer's `teacher_input` (B, L - tokens of scale 1, v), possibly of more scales.
        """
        x_BLC = self.embed_start(class_BC)
        if last == 1:
            return x_BLC
        x_BLv = x_BLv[:, :self.pyramid.end(last) - self.pyramid.tokens(1)]
        later_BLC = self.word_embed(x_BLv.to(self.word_embed.weight.dtype)).float() + self._positions(2, last)
        return torch.cat([x_BLC, later_BLC], dim=1)

    def _positions(self, first: int, last: int) -> Tensor:
        """Level plus position embedding (1, l, C) of the scales first..last."""
        levels = [self.lvl_embed.weight[k - 1].expand(self.pyramid.tokens(k), -1) for k in range(first, last + 1)]
        positions_1lC = self.pos_1LC[:, self.pyramid.begin(first):self.pyramid.end(last)]
        return positions_1lC.float() + torch.cat(levels).float()

    def logits(self, x_BlC: Tensor, class_BC: Tensor) -> Tensor:
        """Logits (B, l, V), float32."""
        return self.head(self.head_nm(x_BlC, class_BC).to(self.head.weight.dtype)).float()

    # -- forward passes through the blocks ---------------------------------------------------------------------

    def forward(self, label_B: Tensor, x_BLv: Tensor, plan: DepthPlan | None = None,
                class_BC: Tensor | None = None) -> Tensor:
        """Teacher-forced logits (B, L, V) of all scales.

        A token is processed only by the layers that ``plan`` lists for its scale; in other layers it is neither
        computed nor visible to other tokens.  Attention is causal between scales and full within a scale; a window in
        the plan hides earlier scales.  If the plan has fewer scales than the network, the logits end with its last.
        Keys and values that the plan packs are seen as stored; their rounding has no gradient.  Budgets by head evict
        as in a generation, scale by scale.  What the plan says of guidance is not looked at, because these rows are no
        halves of it.

        Args:
            label_B: classes 0..num_classes, int64.
            x_BLv: the quantizer's `teacher_input` (B, L - tokens of scale 1, v).
            plan: layers per scale; None means all layers at all scales.
            class_BC: class vectors in place of those of ``label_B`` (mixed classes).
        """
        plan = plan or DepthPlan.full(self.spec.depth, self.pyramid.num_scales)
        last = plan.num_scales
        plan.check_fits(self.spec.depth, min(last, self.pyramid.num_scales))
        class_BC = self.condition(label_B) if class_BC is None else class_BC
        x_BLC = self.embed_scales(class_BC, x_BLv, last)
        for layers, scales in plan.stretches():
            if len(scales) == last:
                x_BLC = self._stretch(x_BLC, class_BC, layers, scales, plan)
                continue
            members_l = torch.cat([torch.arange(self.pyramid.begin(k), self.pyramid.end(k), device=x_BLC.device)
                                   for k in scales])
            part_BlC = self._stretch(x_BLC[:, members_l], class_BC, layers, scales, plan)
            x_BLC = x_BLC.index_copy(1, members_l, part_BlC)
        return self.logits(x_BLC, class_BC)

    def _stretch(self, x_BlC: Tensor, class_BC: Tensor, layers: Sequence[int], scales: Sequence[int],
                 plan: DepthPlan) -> Tensor:
        """Consecutive layers over the tokens of the same scales."""
        attend = (self._by_budgets(scales, plan) if plan.kv.budgets else
                  self._by_masks(layers, scales, plan.kv, x_BlC.device))
        modulation = self.modulation(class_BC, layers)
        for layer in layers:
            x_BlC = self.blocks[layer](x_BlC, modulation[layer], attend)
        return x_BlC

    def _by_masks(self, layers: Sequence[int], scales: Sequence[int], kv: KVScheme, device: torch.device) -> Attend:
        """Attention of all scales at once, which masks what a scale does not see."""
        tokens = [self.pyramid.tokens(k) for k in scales]
        ranges = {scheme: query_ranges(tokens, device, sees=_sees(scheme, scales))
                  for scheme in {kv.of_layer(layer) for layer in layers}}

        def attend(layer: int, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor) -> Tensor:
            # Cast to the kernel's dtype first: the query ranges share keys, which would be cast once for each range.
            q_BHlc, k_BHlc = q_BHlc.to(v_BHlc.dtype), k_BHlc.to(v_BHlc.dtype)
            if kv.bits:
                k_BHlc, v_BHlc = as_stored(k_BHlc, kv.bits), as_stored(v_BHlc, kv.bits)
            return attend_in_ranges(self.blocks[layer].attn.softmax_attention, q_BHlc, k_BHlc, v_BHlc,
                                    ranges[kv.of_layer(layer)])

        return attend

    def _by_budgets(self, scales: Sequence[int], plan: DepthPlan) -> Attend:
        """Attention scale by scale: what a head keeps is known only after it."""
        tokens = [self.pyramid.tokens(k) for k in scales]
        cache = BudgetCache(plan, Pyramid(self.pyramid.patch_nums[:plan.num_scales]))

        def attend(layer: int, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor) -> Tensor:
            of_scales = zip(scales, *(all_BHlc.split(tokens, dim=2) for all_BHlc in (q_BHlc, k_BHlc, v_BHlc)),
                            strict=True)
            return torch.cat([cache.attend(layer, k, query_BHlc, key_BHlc, value_BHlc, self.blocks[layer].attn)
                              for k, query_BHlc, key_BHlc, value_BHlc in of_scales], dim=2)

        return attend

    def attention_constants(self, layers: Sequence[int]) -> dict[int, AttentionConstants]:
        """Of each of the given layers, so that a generation computes them once and not at each scale."""
        return {layer: self.blocks[layer].attn.constants() for layer in layers}

    def scale_step(self, k: int, x_BlC: Tensor, plan: DepthPlan, cache: KVCache, modulation: dict[int, Tensor],
                   constants: dict[int, AttentionConstants], visible_ll: Tensor | None = None) -> Tensor:
        """Hidden states (B, l, C) of scale k after the layers of the plan; reads and extends the cache.

        Where the plan's guidance shares a map, the first half of the rows is the conditional one.

        Args:
            modulation, constants: of each layer of the plan.
            visible_ll: attention mask, bool, among the current tokens, for scales that are processed together; None: no
                mask.
        """

        def attend(layer: int, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor) -> Tensor:
            if isinstance(cache, BudgetCache):
                return cache.attend(layer, k, q_BHlc, k_BHlc, v_BHlc, self.blocks[layer].attn)
            k_BHtc, v_BHtc = cache.extend(layer, k, k_BHlc, v_BHlc)
            # Under one map a head has the values of both halves, one after the other.
            return self.blocks[layer].attn.softmax_attention(q_BHlc, k_BHtc, v_BHtc.flatten(3), visible_ll)

        attention: Attend = by_one_map(attend) if plan.kv.shared_map and plan.kv.guided(k) else attend
        for layer in plan.layers(k):
            x_BlC = self.blocks[layer](x_BlC, modulation[layer], attention, constants[layer])
        return x_BlC

    def visible(self, last: int) -> Tensor:
        """Attention mask (bool, l x l) of the scales 1..last: tokens attend to their own and to earlier scales."""
        scale_l = self.scale_of_token()[:self.pyramid.end(last)]
        return scale_l[:, None] >= scale_l[None, :]

    def scale_of_token(self) -> Tensor:
        """The scale 1..K of each of the L tokens, int64."""
        # Not by repeat_interleave: of numbers on a GPU the host would have to know the sum.
        return torch.cat([torch.full((self.pyramid.tokens(k),), k, device=self.pos_1LC.device)
                          for k in self.pyramid.scales])


class Block(nn.Module):
    """x + g1 attn(n(x)), then x + g2 ffn(n(x)), where n is layer norm scaled and shifted by the class."""

    def __init__(self, spec: TransformerSpec, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.norm_eps = spec.norm_eps
        # Stochastic depth grows linearly from 0 at the first block, as in VAR.
        self.drop_path = spec.drop_path_rate * layer / max(spec.depth - 1, 1)
        self.attn = SelfAttention(spec)
        self.ffn = FeedForward(spec)
        if spec.shared_aln:
            self.ada_gss = nn.Parameter(torch.empty(1, 1, 6, spec.embed_dim))
        else:
            self.ada_lin = _ada_lin(spec.embed_dim, 6)

    def modulation(self, class_BC: Tensor, shared_B16C: Tensor | None) -> Tensor:
        """(B, 1, 6, C) in the order gamma1, gamma2, scale1, scale2, shift1, shift2."""
        if shared_B16C is not None:
            return self.ada_gss + shared_B16C
        return self.ada_lin(class_BC).view(-1, 1, 6, class_BC.shape[-1])

    def forward(self, x_BlC: Tensor, modulation_B16C: Tensor, attend: Attend,
                constants: AttentionConstants | None = None) -> Tensor:
        gamma_B12C, scale_B12C, shift_B12C = modulation_B16C.float().chunk(3, dim=2)
        (gamma1, gamma2), (shift1, shift2) = gamma_B12C.unbind(2), shift_B12C.unbind(2)
        factor1, factor2 = (scale_B12C + 1).unbind(2)
        h_BlC = self.attn(self.layer, self.before_attention(x_BlC, factor1, shift1), attend, constants)
        return self.after_attention(x_BlC, h_BlC, gamma1, factor2, shift2, gamma2)

    def before_attention(self, x_BlC: Tensor, factor_B1C: Tensor, shift_B1C: Tensor) -> Tensor:
        """Input of the attention."""
        return _modulated_norm(x_BlC, factor_B1C, shift_B1C, self.norm_eps)

    def after_attention(self, x_BlC: Tensor, h_BlC: Tensor, gamma1: Tensor, factor2: Tensor, shift2: Tensor,
                        gamma2: Tensor) -> Tensor:
        """Output of the block from its input and the attention's output."""
        x_BlC = self._add(x_BlC, h_BlC, gamma1)
        h_BlC = self.ffn(_modulated_norm(x_BlC, factor2, shift2, self.norm_eps))
        return self._add(x_BlC, h_BlC, gamma2)

    def compile_parts(self) -> None:
        """Have torch compile, at their first call, what the block computes before and after its cache and attention."""
        for part, name in ((self, "before_attention"), (self.attn, "queries_keys_values"), (self, "after_attention")):
            setattr(part, name, torch.compile(getattr(part, name)))

    def _add(self, x_BlC: Tensor, h_BlC: Tensor, gamma_B1C: Tensor) -> Tensor:
        """x + gamma h; in training with stochastic depth, which drops the branch for a random share of the rows."""
        if not self.training:
            return torch.addcmul(x_BlC, h_BlC, gamma_B1C)
        h_BlC = h_BlC * gamma_B1C  # by itself, because autocast would keep a float32 copy of addcmul's operand
        if self.drop_path > 0:
            keep = 1 - self.drop_path
            h_BlC = h_BlC * h_BlC.new_empty(h_BlC.shape[0], 1, 1).bernoulli_(keep).div_(keep)
        return x_BlC + h_BlC


class FeedForward(nn.Module):
    """Two linear layers around a tanh-approximated GELU."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        hidden = round(spec.embed_dim * spec.mlp_ratio)
        self.fc1 = nn.Linear(spec.embed_dim, hidden)
        self.fc2 = nn.Linear(hidden, spec.embed_dim)

    def forward(self, x_BlC: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x_BlC.to(self.fc1.weight.dtype)), approximate="tanh"))


class HeadNorm(nn.Module):
    """Layer norm before the head, scaled and shifted by the class."""

    def __init__(self, spec: TransformerSpec) -> None:
        super().__init__()
        self.norm_eps = spec.norm_eps
        self.ada_lin = _ada_lin(spec.embed_dim, 2)

    def forward(self, x_BlC: Tensor, class_BC: Tensor) -> Tensor:
        scale_B1C, shift_B1C = self.ada_lin(class_BC).float().unsqueeze(1).chunk(2, dim=2)
        return _modulated_norm(x_BlC, scale_B1C + 1, shift_B1C, self.norm_eps)


def _sees(kv: KVScheme, scales: Sequence[int]) -> Sees:
    """What is seen in a layer, by positions in ``scales``."""
    return lambda query, key: kv.sees(scales[query], scales[key])


def _ada_lin(width: int, parts: int) -> nn.Sequential:
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


def _modulated_norm(x_BlC: Tensor, factor_B1C: Tensor, shift_B1C: Tensor, eps: float) -> Tensor:
    return torch.addcmul(shift_B1C, F.layer_norm(x_BlC, x_BlC.shape[-1:], eps=eps), factor_B1C)


@torch.no_grad()
def initialize(model: VAR, *, gamma: float = 1e-5) -> None:
    """Initial weights for training from scratch, drawn from torch's global generator; VAR's scheme.

    Args:
        gamma: factor on the adaLN weights of the residual gates; VAR uses 1e-5 to 1e-3 depending on depth.
    """
    width, depth = model.spec.embed_dim, model.spec.depth
    std = math.sqrt(1 / width / 3)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for table in (model.class_emb.weight, model.lvl_embed.weight, model.pos_start, model.pos_1LC):
        nn.init.trunc_normal_(table, std=std)
    model.head.weight.mul_(0.02)
    model.head_nm.ada_lin[1].weight.mul_(0.5)
    for block in model.blocks:
        block.attn.q_bias.zero_()
        block.attn.v_bias.zero_()
        if model.spec.attn_l2_norm:
            block.attn.scale_mul_1H11.fill_(math.log(4))
        block.attn.proj.weight.div_(math.sqrt(2 * depth))
        block.ffn.fc2.weight.div_(math.sqrt(2 * depth))
        if model.spec.shared_aln:
            block.ada_gss.normal_(std=width ** -0.5)
            block.ada_gss[:, :, 2:].mul_(0.5)
            block.ada_gss[:, :, :2].mul_(gamma)
        else:
            block.ada_lin[1].weight[2 * width:].mul_(0.5)
            block.ada_lin[1].weight[:2 * width].mul_(gamma)
