"""Work and KV cache of the networks of Table 2 other than VAR: DiT and LlamaGen.  Conventions as in `work`.

Both repeat one forward pass.  DiT runs all image tokens through all layers at each diffusion step, without a cache.
LlamaGen runs one token through all layers for each token that it draws, with a cache of constant size.
Layouts are those of DiT at ed81ce2 and LlamaGen at ce98ec4.  FLOPs and weight bytes are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

from varient.config import CachePolicy
from varient.cost.kv_accounting import KVBytes, Pass, token_layers
from varient.cost.quantities import FLOAT32_BYTES, NumberFormats, Work
from varient.cost.work import PassWork, adaln_block_bytes, linear

DIFFUSION_ACCESSES = 30
"""Reads and writes of each float32 latent value in a DDPM step with learned variance (order of magnitude)."""
DIFFUSION_FLOPS = 20
"""FLOPs for each latent value in such a step (order of magnitude)."""

DRAW_BYTES_PER_LOGIT = 32 + 8 + 8 + 24
"""Guidance, temperature, softmax and draw of LlamaGen, without filters (top-k 0, top-p 1)."""
DRAW_FLOPS_PER_LOGIT = 12
"""Guidance 3, temperature 1, softmax 5, draw 3: an order of magnitude."""


@dataclass(frozen=True)
class DiTShape:
    """Shape of a DiT with learned variance; defaults are those of DiT-XL/2 at 256 x 256.

    Attributes:
        num_tokens: patches of the latent.
        patch_channels: values of a patch; the network gives twice as many, noise and variance.
        timestep_channels: of the sinusoidal embedding.
    """

    depth: int = 28
    width: int = 1152
    num_tokens: int = 256
    patch_channels: int = 16
    timestep_channels: int = 256


@dataclass(frozen=True)
class DiTPasses:
    """DiT and its diffusion steps.  Both halves of the guided batch run in each step."""

    shape: DiTShape
    steps: int

    launches_per_layer, launches_per_pass = 25, 20

    @property
    def title(self) -> str:
        """The network, for people."""
        return "DiT"

    @property
    def pass_unit(self) -> str:
        """A pass is one diffusion step."""
        return "steps"

    @property
    def depth(self) -> int:
        """Layers of the network."""
        return self.shape.depth

    @property
    def embed_dim(self) -> int:
        """Width of the network."""
        return self.shape.width

    @property
    def passes(self) -> tuple[Pass, ...]:
        """One pass with all tokens, repeated at every step."""
        return (Pass(1, self.steps, self.shape.num_tokens, tuple(range(self.depth)), times=self.steps),)

    @property
    def full_token_layers(self) -> int:
        """Those of all steps: no step leaves out a layer."""
        return token_layers(self.passes)

    def work(self, images: int, rows: int, policy: CachePolicy, precision: NumberFormats) -> list[PassWork]:
        """The work of one step.  adaLN is computed in each, because it depends on the timestep."""
        shape, narrow = self.shape, precision.compute_bytes
        depth, width, hidden = shape.depth, shape.width, 4 * shape.width
        tokens = rows * shape.num_tokens
        casts = int(narrow != FLOAT32_BYTES)
        final_norm = tokens * width * (6 * FLOAT32_BYTES + casts * (FLOAT32_BYTES + narrow))
        values = images * shape.num_tokens * shape.patch_channels * 2  # the released loop carries both halves
        return [PassWork(self.passes[0], {
            "attention_projections": (linear(width, 3 * width, tokens, precision)
                                      + linear(width, width, tokens, precision)) * depth,
            # Queries, keys and values are read, the result is written: one fused kernel.
            "attention_scores": Work(flops=tokens * 4 * shape.num_tokens * width,
                                     activation_bytes=tokens * 4 * width * narrow) * depth,
            "mlp": (linear(width, hidden, tokens, precision) + linear(hidden, width, tokens, precision)) * depth,
            "adaln": linear(shape.timestep_channels, width, rows, precision) + linear(width, width, rows, precision)
            + linear(width, 6 * width, rows, precision) * depth,
            "elementwise": Work(
                activation_bytes=depth * tokens * adaln_block_bytes(width, hidden, precision, l2_norm=False)),
            "head": linear(width, 2 * width, rows, precision) + Work(activation_bytes=final_norm)
            + linear(width, 2 * shape.patch_channels, tokens, precision),
            "sampling": Work(flops=values * DIFFUSION_FLOPS,
                             activation_bytes=values * DIFFUSION_ACCESSES * FLOAT32_BYTES),
            "latent": linear(shape.patch_channels, width, tokens, precision)
            + Work(activation_bytes=tokens * width * (narrow + FLOAT32_BYTES)),  # positions are added
        })]

    def kv(self, rows: int, policy: CachePolicy, precision: NumberFormats) -> KVBytes:
        """Zero: DiT has no cache."""
        return KVBytes((0,), (0,), 0)


@dataclass(frozen=True)
class LlamaGenShape:
    """Shape of a LlamaGen class-conditional transformer; defaults are those of XXL at 384 x 384.

    Attributes:
        hidden: of SwiGLU.
        num_tokens: of an image.
    """

    depth: int = 48
    width: int = 1536
    hidden: int = 4096
    vocab_size: int = 16384
    num_tokens: int = 576

    @property
    def positions(self) -> int:
        """Of the cache: one class and the image tokens, rounded up to a multiple of 8 (`setup_caches`)."""
        return -(-(1 + self.num_tokens) // 8) * 8


@dataclass(frozen=True)
class LlamaGenPasses:
    """LlamaGen drawing its tokens one by one, with its authors' cache: storage for all positions, read in full.

    The class embedding predicts token 1 and each token the next, so there are as many passes as tokens.  A mask hides
    positions not yet written, so every pass does the same work.  Keys and values are counted in the format of the
    operands; the authors store them in that of the weights, which is the same under their bfloat16.
    """

    shape: LlamaGenShape

    launches_per_layer, launches_per_pass = 38, 22

    @property
    def title(self) -> str:
        """The network, for people."""
        return "LlamaGen"

    @property
    def pass_unit(self) -> str:
        """A pass takes one position: the class, or a token."""
        return "positions"

    @property
    def depth(self) -> int:
        """Layers of the network."""
        return self.shape.depth

    @property
    def embed_dim(self) -> int:
        """Width of the network."""
        return self.shape.width

    @property
    def passes(self) -> tuple[Pass, ...]:
        """One pass with one token, repeated for every token."""
        return (Pass(1, self.shape.num_tokens, 1, tuple(range(self.depth)), times=self.shape.num_tokens),)

    @property
    def full_token_layers(self) -> int:
        """Those of all passes: none leaves out a layer."""
        return token_layers(self.passes)

    def work(self, images: int, rows: int, policy: CachePolicy, precision: NumberFormats) -> list[PassWork]:
        """The work of one token."""
        shape, narrow, stream = self.shape, precision.compute_bytes, precision.weight_bytes
        depth, width, hidden = shape.depth, shape.width, shape.hidden
        cached = rows * 2 * width * precision.value_bytes()  # key and value of one position in one layer
        logits = rows * shape.vocab_size
        casts = int(narrow != FLOAT32_BYTES)
        return [PassWork(self.passes[0], {
            "attention_projections": (linear(width, 3 * width, rows, precision, bias=False)
                                      + linear(width, width, rows, precision, bias=False)) * depth,
            # Beside the cache: query, fresh key and value are read, the result is written.
            "attention_scores": Work(flops=rows * 4 * shape.positions * width,
                                     kv_read_bytes=shape.positions * cached, kv_written_bytes=cached,
                                     activation_bytes=rows * 4 * width * narrow) * depth,
            "mlp": (linear(width, hidden, rows, precision, bias=False) * 2
                    + linear(hidden, width, rows, precision, bias=False)) * depth,
            "adaln": Work(),
            "elementwise": Work(weight_bytes=2 * width * precision.weight_bytes,
                                activation_bytes=rows * self._block_bytes(precision)) * depth,
            "head": linear(width, shape.vocab_size, rows, precision, bias=False)
            + Work(weight_bytes=width * precision.weight_bytes,
                   activation_bytes=rows * self._norm_bytes(precision) + logits * casts * (narrow + FLOAT32_BYTES)),
            "sampling": Work(flops=images * shape.vocab_size * DRAW_FLOPS_PER_LOGIT,
                             activation_bytes=images * shape.vocab_size * DRAW_BYTES_PER_LOGIT),
            "latent": Work(activation_bytes=rows * 2 * width * stream),  # a row of the embedding table
        })]

    def kv(self, rows: int, policy: CachePolicy, precision: NumberFormats) -> KVBytes:
        """Storage for all positions, allocated from the first token to the last."""
        held = rows * self.depth * self.shape.positions * 2 * self.embed_dim * precision.value_bytes()
        return KVBytes((held,), (held,), 0)

    def _norm_bytes(self, precision: NumberFormats) -> int:
        """RMSNorm of one token, in float32 whatever the stream, operation by operation."""
        stream, narrow, wide = precision.weight_bytes, precision.compute_bytes, FLOAT32_BYTES
        accessed = 5 * wide + 2 * stream                                # square, mean, product; weight
        accessed += 2 * (stream + wide) if stream != wide else 0        # to float32 and back
        return self.embed_dim * (accessed + (stream + narrow if stream != narrow else 0))

    def _block_bytes(self, precision: NumberFormats) -> int:
        """Element-wise work of one token in one layer: two norms, rotary query and key, residual sums, SwiGLU."""
        stream, narrow, wide = precision.weight_bytes, precision.compute_bytes, FLOAT32_BYTES
        rotary = 9 * wide + (2 * (narrow + wide) if narrow != wide else 0)  # products, sums, stack; casts
        residual = 2 * stream + narrow
        return 2 * (self._norm_bytes(precision) + self.embed_dim * (rotary + residual)) + 5 * self.shape.hidden * narrow
