"""The settings of `systems.llamagen`: shapes, protocol, and where the weights come from.  Imports no torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from varient.config import (
    BaseTraining,
    Count,
    DataConfig,
    Depth,
    Positive,
    Rate,
    Real,
    Share,
    Strict,
    TokenizerSpec,
    TokenizerTraining,
    UserFile,
    Weight,
    Whole,
)


class TransformerShape(Strict):
    """Shape of the transformer; XXL is depth 48, width 1536, 24 heads (LlamaGen at ce98ec4, autoregressive/models)."""

    depth: Depth
    width: Positive
    num_heads: Positive
    num_kv_heads: Positive | None = Field(None, description="heads of keys and values; null: as many as of queries")
    multiple_of: Positive = Field(256, description="the hidden width of the MLP, 8/3 of the width, is rounded up to it")
    class_drop_rate: Share = Field(0.1, description="share of labels dropped in training, for guidance")
    token_drop_rate: Share = Field(0.1, description="dropout on what enters the first layer, in training")
    residual_drop_rate: Share = Field(0.1, description="dropout on what attention and MLP add, in training")

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_dim(self) -> int:
        """Channels a head."""
        return self.width // self.num_heads

    @property
    def hidden(self) -> int:
        """Hidden width of the MLP: 4096 for XXL."""
        return -(-int(2 * 4 * self.width / 3) // self.multiple_of) * self.multiple_of

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerShape:
        if self.width % (4 * self.num_heads):
            raise ValueError(f"width = {self.width} is not divisible by 4 x num_heads = {4 * self.num_heads}: rotary "
                             "positions turn pairs of channels, half of them by row and half by column")
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_heads = {self.num_heads} is not divisible by num_kv_heads = {self.kv_heads}")
        return self


class TokenizerShape(Strict):
    """Shape of the image tokenizer; the defaults are those of vq_ds16_c2i.pt."""

    codebook_size: Positive = 16384
    codebook_dim: Positive = 8
    z_channels: Positive = 256
    ch: Positive = 128
    ch_mult: tuple[Positive, ...] = Field((1, 1, 2, 2, 4), min_length=1, max_length=12)
    num_res_blocks: Depth = 2
    norm_groups: Positive = 32
    commitment: Weight = Field(0.25, description="weight of the commitment loss")

    @property
    def convolutions(self) -> TokenizerSpec:
        """The same encoder and decoder in the words of VAR's tokenizer; both are taming-transformers VQGANs."""
        return TokenizerSpec(vocab_size=self.codebook_size, z_channels=self.z_channels, ch=self.ch,
                             ch_mult=self.ch_mult, num_res_blocks=self.num_res_blocks, norm_groups=self.norm_groups)

    @model_validator(mode="after")
    def _fits(self) -> TokenizerShape:
        _ = self.convolutions  # has the checks
        return self


class TransformerConfig(Strict):
    model: TransformerShape
    weights: UserFile | None = None
    training: BaseTraining | None = None


class TokenizerConfig(Strict):
    model: TokenizerShape = TokenizerShape()
    weights: UserFile | None = None
    training: TokenizerTraining | None = None


class Settings(Strict):
    """The section `systems.llamagen`; the protocol's defaults are the authors' for XXL (sample_c2i_ddp.py)."""

    size: Annotated[str, Field(pattern=r"^[a-z0-9]+$")] = Field(description="names the system: llamagen-<size>")
    image_size: Positive | None = Field(None, description="side of the generated image, resized to data.image_size; "
                                                          "null: no resizing")
    transformer: TransformerConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    cfg: Weight = Field(1.75, description="guidance scale s: u + s (c - u) at every token; up to 1: none")
    cfg_interval: Whole = Field(-1, ge=-1, description="last guided token, less one; -1: all are guided")
    top_k: Count = Field(0, description="0 keeps all")
    top_p: Real = Field(1.0, gt=0, le=1, description="1 keeps all")
    temperature: Rate = Field(1.0, description="divides the logits before filtering")

    @model_validator(mode="after")
    def _weights_come_from_somewhere(self) -> Settings:
        for name, part in (("tokenizer", self.tokenizer), ("transformer", self.transformer)):
            if (part.weights is None) == (part.training is None):
                raise ValueError(f"{name} needs exactly one of 'weights' (a file) and 'training' (settings)")
        return self

    def generated_size(self, data: DataConfig) -> int:
        """Side of the image as it is generated, in pixels."""
        return self.image_size or data.image_size

    def token_side(self, data: DataConfig) -> int:
        """Tokens along a side of the generated image."""
        return self.generated_size(data) // self.tokenizer.model.convolutions.downsampling

    def check_fits(self, data: DataConfig) -> None:
        """Raise ValueError for settings that do not fit the experiment's images."""
        size, step = self.generated_size(data), self.tokenizer.model.convolutions.downsampling
        if size % step:
            raise ValueError(f"systems.llamagen: images of {size} pixels do not divide into tokens of {step}")
        if size != data.image_size and (self.tokenizer.training or self.transformer.training):
            raise ValueError(f"systems.llamagen: training is on images as they are, so image_size = {size} must be "
                             f"data.image_size = {data.image_size}")
