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

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import zip_longest
from math import ceil
from typing import Protocol

from varient.config import CachePolicy, TransformerSpec
from varient.cost.kv_accounting import (
    CacheStep,
    KVBytes,
    Pass,
    RowSteps,
    concatenates,
    kv_bytes,
    passes,
    row_steps,
)
from varient.head_budgets import observer_stride
from varient.kv_scheme import KVScheme
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid

FLOAT32_BYTES = 4

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
class NumberFormats:
    """Number formats in which images are generated.

    Attributes:
        name: as on the command line.
        weight_bytes: bytes of a stored parameter.
        compute_bytes: bytes of each operand of a matrix product.

    The residual stream, all norms and the logits are float32 in every format, as in `varient.models.transformer` and in
    the released code under autocast.  Under autocast each weight is cast at every use, because torch caches casts only
    for parameters that require gradients.
    """

    name: str
    weight_bytes: int
    compute_bytes: int

    @property
    def autocast(self) -> bool:
        """Whether stored weights and operands of products have different formats."""
        return self.weight_bytes != self.compute_bytes

    @property
    def weight_traffic_bytes(self) -> int:
        """Bytes moved for one use of one parameter: read, and under autocast written and read again."""
        return self.weight_bytes + (2 * self.compute_bytes if self.autocast else 0)

    def key_bytes(self, policy: CachePolicy, l2_norm: bool = True) -> int:
        """Bytes of one cached key channel: the reference cache keeps normalised keys as they come, in float32."""
        return FLOAT32_BYTES if policy == "reference" and l2_norm else self.compute_bytes

    def value_bytes(self) -> int:
        """Bytes of one cached value channel."""
        return self.compute_bytes


PRECISIONS = {precision.name: precision for precision in (
    NumberFormats("fp16-autocast", 4, 2), NumberFormats("bf16-autocast", 4, 2), NumberFormats("fp32", 4, 4),
    NumberFormats("fp16", 2, 2), NumberFormats("bf16", 2, 2))}
"""Formats by name.  The paper's is `fp16-autocast`: its 8085 MB of parameters are float32, and its KV cache has float16
values."""


@dataclass(frozen=True)
class Work:
    """FLOPs, and bytes moved between device memory and the chip."""

    flops: int = 0
    weight_bytes: int = 0
    kv_read_bytes: int = 0
    kv_written_bytes: int = 0
    activation_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> Work:
        return Work(*(count * times for count in astuple(self)))

    @property
    def moved_bytes(self) -> int:
        """All bytes read and written."""
        return self.weight_bytes + self.kv_read_bytes + self.kv_written_bytes + self.activation_bytes


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
        "attention_scores": sum((_attention(spec, step, rows, policy, precision) for step in groups[0].steps
                                 if step.index == index) if kv.is_plain else
                                _scheme_attentions(spec, kv, groups, index, precision), Work()),
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


def _attention(spec: TransformerSpec, step: CacheStep, rows: int, policy: CachePolicy,
               precision: NumberFormats) -> Work:
    """Work of one attention over the cache, including the copies and casts of the cache itself."""
    narrow = precision.compute_bytes
    fresh = precision.key_bytes("reference", spec.attn_l2_norm) + precision.value_bytes()  # as projected
    kept = precision.key_bytes(policy, spec.attn_l2_norm) + precision.value_bytes()        # as cached
    before = step.seen - step.new
    read = step.seen * 2 * narrow  # by the attention kernel
    written = 0
    if concatenates(step, policy):
        read += before * kept + step.new * fresh
        written += step.seen * kept
    elif policy == "lean" and (step.kept or fresh != kept):
        read += step.new * fresh
        written += step.new * kept
    if policy == "reference" and kept != 2 * narrow:  # keys are cast for the kernel, all of them at every scale
        read += step.seen * (kept - narrow)
        written += step.seen * narrow
    unit = rows * spec.embed_dim
    return Work(flops=rows * 4 * step.new * step.seen * spec.embed_dim, kv_read_bytes=unit * read,
                kv_written_bytes=unit * written, activation_bytes=unit * 2 * step.new * narrow)


def _scheme_attentions(spec: TransformerSpec, kv: KVScheme, groups: Sequence[RowSteps], index: int,
                       precision: NumberFormats) -> Iterator[Work]:
    """Work of the attention of each layer and each kind of rows or heads in a pass of a plan that is not plain."""
    for steps in zip_longest(*(group.steps for group in groups)):
        if steps[0].index != index:
            continue
        dropping = [step.kept < step.seen for step in steps if step]
        shared = kv.shared_map and steps[-1] is not None
        for step, group in zip(steps, groups, strict=True):
            if step:
                drops = step.kept < step.seen if kv.budgets else any(dropping)
                yield _scheme_attention(spec, kv, step, group, precision, shared=shared, drops=drops)


def _scheme_attention(spec: TransformerSpec, kv: KVScheme, step: CacheStep, group: RowSteps, precision: NumberFormats,
                      *, shared: bool, drops: bool) -> Work:
    """Work of one attention for rows or heads of a kind: packing, joining, unpacking, and dropping dead entries.

    Args:
        shared: whether the values of both halves are put beside each other for one map.
        drops: whether entries of the layer die, so that those which do not are copied.
    """
    head_dim, narrow, keys = spec.embed_dim // spec.num_heads, precision.compute_bytes, group.vectors - 1
    width = group.heads * head_dim
    key_bytes = precision.key_bytes("reference", spec.attn_l2_norm)
    fresh = width * (keys * key_bytes + precision.value_bytes())  # as projected
    dense = width * group.vectors * narrow
    stored = kv.token_bytes(group.heads, head_dim, 2 * narrow) * group.vectors // 2
    before = step.seen - step.new
    read = step.seen * dense  # by the attention kernel
    written = 0
    if shared:
        read += step.new * width * precision.value_bytes()
        written += step.new * width * precision.value_bytes()
    if kv.bits is None:
        read += before * dense + step.new * fresh
        written += step.seen * dense
        if kv.budgets and before:  # the heads of a kind are taken from all before they are joined
            read += step.new * dense
            written += step.new * dense
    else:
        read += step.new * (fresh + 2 * dense)         # joined in the compute dtype; largest magnitude, integers
        written += step.new * (dense + stored)
        if before:
            read += step.seen * stored
            written += step.seen * stored
        read += step.seen * (stored + dense)           # integers to the compute dtype, times their factors
        written += step.seen * 2 * dense
    if step.kept and drops:
        read += step.kept * stored
        written += step.kept * stored
    products = group.vectors * step.new  # each key is multiplied with the queries, each value with the map
    if kv.budgets and step.kept and drops:
        products += ceil(step.new / observer_stride(step.new))  # a second map, of some queries
        read += step.seen * width * narrow
    rows = group.count
    return Work(flops=rows * 2 * products * step.seen * width, kv_read_bytes=rows * read,
                kv_written_bytes=rows * written,
                activation_bytes=rows * group.vectors * step.new * width * narrow)  # queries, and what is returned


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
