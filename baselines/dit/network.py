"""The DiT transformer: diffusers' blocks around one embedding of time and class.

diffusers differs from the authors in three ways, which are undone here: every block has its own copy of that embedding,
each copy drops labels independently, and the frequencies of the time embedding are spaced differently.

Shapes: B images, C channels, H x W positions (pixels or latent), D hidden size.
"""

from __future__ import annotations

import math

import torch
from diffusers import DiTTransformer2DModel
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings, Timesteps
from torch import Tensor, nn

from varient.baselines.dit.settings import Settings, Shape, latent_side
from varient.config import ExperimentConfig

FREQUENCIES = 256
"""Sines and cosines that a time becomes."""


class DiT(nn.Module):
    """Predicts noise and variance of a noised image; arXiv 2212.09748, its layout at facebookresearch/DiT ed81ce2.

    Attributes:
        embedder: time and class -> condition (B, D); its table has one row more than classes, the "no class" row.
        network: diffusers' transformer, whose blocks read the condition that was computed once.
        num_classes: the label of the "no class" row.
        channels: C; the output has 2C.
    """

    def __init__(self, shape: Shape, *, side: int, channels: int, num_classes: int) -> None:
        """``side`` = H = W; without weights of any use, see `initialize`."""
        super().__init__()
        self.num_classes, self.channels = num_classes, channels
        width = shape.hidden_size
        self.network = DiTTransformer2DModel(
            num_attention_heads=shape.num_heads, attention_head_dim=width // shape.num_heads, in_channels=channels,
            out_channels=2 * channels, num_layers=shape.depth, sample_size=side, patch_size=shape.patch_size,
            num_embeds_ada_norm=1, norm_eps=1e-6)  # 1: the copies are thrown away
        # The extra row exists only where labels are dropped; dropping is done once for all blocks, in training.
        self.embedder = CombinedTimestepLabelEmbeddings(num_classes, width, class_dropout_prob=0.1)
        self.embedder.class_embedder.dropout_prob = 0.0
        self.embedder.time_proj = Timesteps(FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=0)
        self._condition = _Condition()
        for block in self.network.transformer_blocks:
            del block.norm1.emb
            block.norm1.emb = self._condition

    def forward(self, x_BCHW: Tensor, time_B: Tensor, label_B: Tensor) -> Tensor:
        """Predicted noise and variance (B, 2C, H, W).

        Args:
            time_B: steps of the 1000-step process, int64, also where sampling takes fewer steps.
            label_B: classes 0..num_classes, int64; the last is "no class".
        """
        self._condition.value_BD = self.embedder(time_B, label_B, hidden_dtype=x_BCHW.dtype)
        prediction = self.network(x_BCHW, timestep=time_B, class_labels=label_B, return_dict=False)[0]
        del self._condition.value_BD  # it would keep the graph of this pass in memory
        return prediction

    @property
    def position_1LD(self) -> Tensor:
        """The fixed sine-cosine table of the L patches, which files of the authors hold and ours do not."""
        return self.network.pos_embed.pos_embed


class _Condition:
    """Replaces the embedding in each of diffusers' blocks and returns the one computed once per pass."""

    value_BD: Tensor

    def __call__(self, timestep: Tensor, class_labels: Tensor, hidden_dtype: torch.dtype | None = None) -> Tensor:
        return self.value_BD


def build_network(config: ExperimentConfig, settings: Settings) -> DiT:
    """The experiment's DiT, its weights still to be initialised or loaded."""
    return DiT(settings.model, side=latent_side(config, settings), channels=settings.channels,
               num_classes=config.data.num_classes)


@torch.no_grad()
def initialize(model: DiT) -> None:
    """Initial weights of the paper (Sec. 3.2, adaLN-Zero): each block starts as the identity, the output as zero.

    Draws from torch's global generator.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    patch = model.network.pos_embed.proj
    bound = math.sqrt(6 / (patch.weight[0].numel() + patch.out_channels))  # as the linear layer that it is
    nn.init.uniform_(patch.weight, -bound, bound)
    nn.init.zeros_(patch.bias)
    embedder = model.embedder
    for layer in (embedder.timestep_embedder.linear_1, embedder.timestep_embedder.linear_2,
                  embedder.class_embedder.embedding_table):
        nn.init.normal_(layer.weight, std=0.02)
    for block in model.network.transformer_blocks:
        nn.init.zeros_(block.norm1.linear.weight)
    for output in (model.network.proj_out_1, model.network.proj_out_2):
        nn.init.zeros_(output.weight)
