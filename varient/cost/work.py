"""FLOPs and memory traffic of a transformer, for each forward pass and each part of it.

This module has the parts, the interface of every network (`NetworkPasses`), and VAR; `baseline_work` has DiT and
LlamaGen.  FLOPs count a multiply-add as two and are exact for the matrix products, attention and convolutions of
`varient.sampling.generate`.  FLOPs of sampling are an estimate; those of norms and other element-wise operations are
left out, because these are memory-bound.  Bytes count each operand once from device memory.  Weights, keys and values
follow from the shapes; activations assume one kernel for each operation, as in eager PyTorch, and are approximate.

The adaLN projections are counted once an image, as `VAR.modulation` computes them; the released code repeats them at
every scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from varient.config import CachePolicy, TransformerSpec
from varient.cost.attention_work import attention_work
from varient.cost.kv_accounting import (
    KVBytes,
    Pass,
    kv_bytes,
    passes,
    row_steps,
)
from varient.cost.quantities import FLOAT32_BYTES, NumberFormats, Work
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid

SAMPLING_BYTES_PER_LOGIT = 28 + 30 + 96 + 40 + 16
"""Guidance, top-k, sort, top-p and draw, each operation of the released code reading and writing float32 logits once;
the sort, over the whole vocabulary, is four radix passes over a 4-byte key with an 8-byte index."""
SAMPLING_FLOPS_PER_LOGIT = 25
"""Guidance 3, two softmaxes and cumulative sums 10, comparisons 4, sort 8: an order of magnitude."""

VECTOR_PARTS = frozenset({"elementwise", "sampling"})
"""Parts that run outside the tensor cores."""
PARTS = ("attention_projections", "attention_scores", "mlp", "adaln", "elementwise", "head", "sampling", "latent")
"""`adaln`: projections that depend on class and timestep alone.  `sampling`: guidance and the draw, or the diffusion
step.  `latent`: embeddings, positions and VAR's quantizer between two scales."""


@dataclass(frozen=True)
class PassWork:
    """The work of one forward pass, by part; of one repetition where the pass is repeated."""

    trip: Pass
    parts: dict[str, Work]


class NetworkPasses(Protocol):
    """A network and the forward passes that it makes for one batch, as the cost model sees it.

    Attributes:
        launches_per_layer, launches_per_pass: kernel launches in each layer of a pass, and outside the layers; counted
            in our engine with 16-bit weights on a simulated GPU (docs/cuda.md).
    """

    launches_per_layer: int
    launches_per_pass: int

    @property
    def title(self) -> str:
        """The network, for people."""

    @property
    def pass_unit(self) -> str:
        """Unit in which passes are counted: scales, steps or positions."""

    @property
    def depth(self) -> int:
        """Layers of the network."""

    @property
    def embed_dim(self) -> int:
        """Width of the network."""

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The forward passes."""

    @property
    def full_token_layers(self) -> int:
        """Number of (token, layer) pairs of one row if all layers ran in all passes."""

    def work(self, images: int, rows: int, policy: CachePolicy, precision: NumberFormats) -> list[PassWork]:
        """The work of each pass, for B images in ``rows`` rows (2B under guidance)."""

    def kv(self, rows: int, policy: CachePolicy, precision: NumberFormats) -> KVBytes:
        """Bytes of the KV cache over the passes."""


@dataclass(frozen=True)
class VARShape:
    """Shape of a VAR transformer; defaults are those of the released ImageNet networks at 256 x 256."""

    spec: TransformerSpec
    pyramid: Pyramid = VAR_256
    num_classes: int = 1000
    vocab_size: int = 4096
    z_channels: int = 32


@dataclass(frozen=True)
class VARPasses:
    """A VAR transformer and its forward passes under a plan; CoDe has two, one after the other.

    Attributes:
        shape: the network.
        plan: layers a scale; it may end before the network's last scale, as CoDe's drafter does.
        prefilled: number of leading scales whose tokens enter together in the first pass.
    """

    shape: VARShape
    plan: DepthPlan
    prefilled: int = 1

    launches_per_layer, launches_per_pass = 24, 105

    @cached_property
    def pyramid(self) -> Pyramid:
        """The scales of the plan."""
        return Pyramid(self.shape.pyramid.patch_nums[:self.plan.num_scales])

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The forward passes, one a scale or one for several leading scales."""
        return passes(self.plan, self.pyramid, self.prefilled)

    @property
    def title(self) -> str:
        """As the field names it, "VAR-d30"."""
        return f"VAR-d{self.depth}"

    @property
    def pass_unit(self) -> str:
        """A pass takes one scale, or several."""
        return "scales"

    @property
    def depth(self) -> int:
        """Layers of the network."""
        return self.shape.spec.depth

    @property
    def embed_dim(self) -> int:
        """Width of the network."""
        return self.shape.spec.embed_dim

    @property
    def full_token_layers(self) -> int:
        """Token-layers of one row in the full network at all of its scales."""
        return self.depth * self.shape.pyramid.length

    def work(self, images: int, rows: int, policy: CachePolicy, precision: NumberFormats) -> list[PassWork]:
        """See `var_work`."""
        return var_work(self, images, rows, policy, precision)

    def kv(self, rows: int, policy: CachePolicy, precision: NumberFormats) -> KVBytes:
        """Live entries, as the caches of `varient.models` count them."""
        spec, kv = self.shape.spec, self.plan.kv
        return kv_bytes(row_steps(self.passes, policy, kv, rows, spec.num_heads), kv,
                        head_dim=spec.embed_dim // spec.num_heads,
                        channel_bytes=precision.key_bytes(policy, spec.attn_l2_norm) + precision.value_bytes())


def var_work(stage: VARPasses, images: int, rows: int, policy: CachePolicy, precision: NumberFormats) -> list[PassWork]:
    """The work of each pass of a VAR.

    Args:
        images: batch size B.
        rows: rows of the transformer, 2B under guidance.

    Raises:
        ValueError: unknown policy, or a plan that the network cannot run.
    """
    if stage.plan.depth != stage.shape.spec.depth:
        raise ValueError(f"the plan is for {stage.plan.depth} layers, the network has {stage.shape.spec.depth}")
    spec, kv = stage.shape.spec, stage.plan.kv
    groups = row_steps(stage.passes, policy, kv, rows, spec.num_heads)
    return [PassWork(trip, {
        **_layers(spec, trip, trip.rows(rows), precision),
        "attention_scores": attention_work(spec, kv, groups, index, policy, precision),
        "adaln": _modulation(stage, rows, precision) if index == 0 else Work(),
        "head": _head(stage.shape, stage.pyramid.tokens(trip.last), trip.rows(rows), precision),
        "sampling": _sampling(stage.shape, stage.pyramid.tokens(trip.last), images),
        "latent": _latent(stage.shape, trip, images, trip.rows(rows), precision),
    }) for index, trip in enumerate(stage.passes)]


def _layers(spec: TransformerSpec, trip: Pass, rows: int, precision: NumberFormats) -> dict[str, Work]:
    """Work of all layers of a pass on its new tokens, attention over the cache left out."""
    width, hidden = spec.embed_dim, round(spec.embed_dim * spec.mlp_ratio)
    layers, tokens, narrow = len(trip.layers), rows * trip.tokens, precision.compute_bytes
    element_bytes = adaln_block_bytes(width, hidden, precision, l2_norm=spec.attn_l2_norm)
    return {
        "attention_projections": Work(
            flops=layers * tokens * 2 * 4 * width * width,
            weight_bytes=layers * (4 * width * width + 3 * width) * precision.weight_traffic_bytes,
            activation_bytes=layers * tokens * (1 + 3 + 1 + 1) * width * narrow),
        "mlp": Work(
            flops=layers * tokens * 2 * 2 * width * hidden,
            weight_bytes=layers * (2 * width * hidden + hidden + width) * precision.weight_traffic_bytes,
            activation_bytes=layers * tokens * 2 * (width + hidden) * narrow),
        "elementwise": Work(activation_bytes=layers * tokens * element_bytes),
    }


def adaln_block_bytes(width: int, hidden: int, precision: NumberFormats, *, l2_norm: bool) -> int:
    """Bytes moved by element-wise operations on one token in a block with adaLN and GELU, as in VAR and DiT."""
    narrow, wide = precision.compute_bytes, FLOAT32_BYTES
    # Reads and writes of C channels of one token in one layer, as the blocks of the released code do them.
    wide_accesses = 2 * (2 + 2 + 2) + 2 * 2     # norm, scale, shift of both branches; residual stream
    narrow_accesses = 2 * 2 + 2                 # gamma of both branches; branch read by the residual sum
    if l2_norm:
        wide_accesses += 1 + 2 + 1              # normalised query, its scale, normalised key
        narrow_accesses += 2                    # query and key read
    if narrow != wide:
        casts = 2 + l2_norm                     # both normed inputs and the query
        wide_accesses, narrow_accesses = wide_accesses + casts, narrow_accesses + casts
    return width * (wide_accesses * wide + narrow_accesses * narrow) + 2 * hidden * narrow  # the last is GELU


def linear(width_in: int, width_out: int, tokens: int, precision: NumberFormats, *, bias: bool = True) -> Work:
    """Work of a linear layer on ``tokens`` tokens."""
    return Work(flops=2 * tokens * width_in * width_out,
                weight_bytes=(width_in + bias) * width_out * precision.weight_traffic_bytes,
                activation_bytes=tokens * (width_in + width_out) * precision.compute_bytes)


def _modulation(stage: VARPasses, rows: int, precision: NumberFormats) -> Work:
    """Work of the adaLN projections of all layers that run in at least one pass."""
    width = stage.shape.spec.embed_dim
    used = {layer for trip in stage.passes for layer in trip.layers}
    projections = 1 if stage.shape.spec.shared_aln else len(used)
    return Work(flops=projections * rows * 2 * width * 6 * width,
                weight_bytes=projections * (width + 1) * 6 * width * precision.weight_traffic_bytes,
                activation_bytes=projections * rows * 7 * width * precision.compute_bytes)


def _head(shape: VARShape, tokens: int, rows: int, precision: NumberFormats) -> Work:
    """Work of the final norm with its adaLN and of the float32 logits, for the tokens that are drawn."""
    width, vocab = shape.spec.embed_dim, shape.vocab_size
    narrow, casts = precision.compute_bytes, int(precision.compute_bytes != FLOAT32_BYTES)
    token_bytes = width * (6 * FLOAT32_BYTES + narrow + casts * (FLOAT32_BYTES + narrow))
    logit_bytes = narrow + casts * (narrow + FLOAT32_BYTES)
    return Work(flops=rows * 2 * width * (2 * width + tokens * vocab),
                weight_bytes=((width + 1) * (2 * width + vocab)) * precision.weight_traffic_bytes,
                activation_bytes=rows * tokens * (token_bytes + vocab * logit_bytes))


def _sampling(shape: VARShape, tokens: int, images: int) -> Work:
    logits = images * tokens * shape.vocab_size
    return Work(flops=logits * SAMPLING_FLOPS_PER_LOGIT, activation_bytes=logits * SAMPLING_BYTES_PER_LOGIT)


def _latent(shape: VARShape, trip: Pass, images: int, rows: int, precision: NumberFormats) -> Work:
    """Work of adding tokens to f_hat (phi convolution at full side) and of embedding f_hat as the next tokens."""
    width, positions = shape.spec.embed_dim, shape.pyramid.tokens(shape.pyramid.num_scales)
    embedded = trip.tokens - (shape.pyramid.tokens(1) if trip.first == 1 else 0)  # scale 1 enters as the class
    phi_flops = 2 * 9 * shape.z_channels ** 2 * positions
    latent_bytes = shape.z_channels * positions * FLOAT32_BYTES * 8  # up, two operands and result of phi, mix, add
    entering_bytes = trip.tokens * width * (precision.compute_bytes + 2 * FLOAT32_BYTES)
    return Work(flops=images * (phi_flops + 2 * embedded * shape.z_channels * width),
                weight_bytes=(shape.z_channels + 1) * width * precision.weight_traffic_bytes,
                activation_bytes=images * latent_bytes + rows * entering_bytes)
