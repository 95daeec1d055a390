"""What a training of the VAR transformer costs before anything is started: a full network, or a supernet.

Exact, from config and shapes alone: steps, images, tokens, the expected numbers of subnet and full batches (which batch
is which is drawn; the spread is binomial), token-layers, FLOPs of matrix products, and the bytes of weights, gradients
and AdamW's moments.  FLOPs count a multiply-add as two.  Backward takes twice the forward's, except at the embedding of
the tokens, whose input needs no gradient.  Attention is counted as `varient.models.block_attention` calls it: with the
pairs of tokens of a block that the mask then hides, without the keys behind it.

Estimated:

* Activations, by what autograd keeps in `varient.models.transformer` (`kept_bytes`); tests hold it against the tensors
  that it keeps on a CPU, within 1 %.  What exists for a moment only is coarser (`loss_bytes`, `block_bytes`): the peak
  of a forward and backward is held against `MemoryWatch` on a CPU, 2 % below to 20 % above.  On a GPU none of it was
  measured.  CUDA context, cuBLAS, NCCL and the allocator's fragmentation are not in it; `USABLE_MEMORY` is for them.
  That autocast's copies of the matrices stay whole under fsdp follows from how both work and was not measured.
* Hours: FLOPs over the device's peak times an assumed utilisation, or scaled from a measured step.  Reading images,
  augmenting them, communication, the update itself and saving are in the utilisation or nowhere.

Left out: what happens once an epoch (the gradient probe of `Curves`, validation of automatic schedules), and building a
token cache.  The paper (Table 6: 8 H100, 1024 images a step, fp16) prints neither hours nor memory of its trainings, so
there is nothing to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from varient.config import (
    BaseTraining,
    DataConfig,
    ExperimentConfig,
    Optimizer,
    SupernetTraining,
    TokenizerSpec,
)
from varient.plan import DepthPlan
from varient.profiling.devices import Device, device
from varient.profiling.kv_accounting import passes, token_layers
from varient.profiling.parameters import var_parameters, vqvae_parameters
from varient.profiling.sizes import MIB
from varient.profiling.work import FLOAT32_BYTES, PRECISIONS, Precision, VARShape
from varient.pyramid import Pyramid
from varient.training.distributed import Hardware
from varient.training.recipes import Supernet, schedule_of
from varient.training.schedule import P_START, AutomaticSchedule, FixedRatioSchedule, ProgressiveSchedule, Schedule

if TYPE_CHECKING:
    from varient.models.block_attention import Block

TRAINING_PRECISIONS = {name: PRECISIONS[form] for name, form in (
    ("fp32", "fp32"), ("fp16", "fp16-autocast"), ("bf16", "bf16-autocast"))}
"""Of matrix products; weights, gradients and moments are float32 in all of them (`varient.training.loop`)."""

IMAGES = {"imagenet": 1_281_167, "digits": 1797}
"""Of the whole training data: ImageNet-1k (ILSVRC 2012, its training set), scikit-learn's digits before the holdout."""

ASSUMED_UTILISATION = 0.35
"""Share of a device's peak that a training reaches: an assumption, not a measurement.  Tuned trainings of language
models report 0.35 to 0.55; eager PyTorch with adaLN, masked attention and float32 element-wise work may stay below."""

USABLE_MEMORY = 0.9
"""Share of a device's memory that a plan may fill and still counts as fitting: an assumption, see above."""

LOGIT_COPIES_WORKING = 2
"""float32 copies of the logits that exist beside the one that autograd keeps: on the way forward the logits and the
softmax of the losses by scale, on the way back the gradients before and after the softmax."""
LOGIT_COPIES_DISTILLED = 3
"""More of them with distillation, on the way to the divergence of two predictions."""


# -- the question ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class TrainingSetting:
    """Hardware of a training and how it is used.

    Attributes:
        device: what each process has.
        devices: how many there are.
        micro_batch: most rows that go through the network at once in a process; None: all its rows.
        precision: of matrix products.
        strategy: ddp keeps the whole network on each device, fsdp a slice of weights, gradients and moments.
        recompute: keep the blocks' inputs only and run the blocks again on the way back.
        token_cache: images come from a token cache; otherwise they are encoded as they are visited (digits: once).
        utilisation: assumed share of the device's peak.
        step_seconds: measured, of a step of the full network in this very setting; takes the place of ``utilisation``.

    Raises:
        ValueError: a value that no training could have.
    """

    device: Device
    devices: int = 8
    micro_batch: int | None = None
    precision: str = "fp16"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    recompute: bool = False
    token_cache: bool = False
    utilisation: float = ASSUMED_UTILISATION
    step_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ValueError(f"{self.devices} devices: a training needs at least 1")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro-batch {self.micro_batch} is below 1")
        for name, value, known in (("precision", self.precision, tuple(TRAINING_PRECISIONS)),
                                   ("strategy", self.strategy, ("ddp", "fsdp"))):
            if value not in known:
                raise ValueError(f"{name} {value!r} is unknown; known: {', '.join(known)}")
        if self.strategy == "fsdp" and self.devices == 1:
            raise ValueError("strategy fsdp needs at least 2 devices")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation {self.utilisation} is outside 0..1")
        if self.step_seconds is not None and not 0 < self.step_seconds < math.inf:
            raise ValueError(f"a step of {self.step_seconds} s was never measured")

    @property
    def formats(self) -> Precision:
        """Number formats."""
        return TRAINING_PRECISIONS[self.precision]

    @property
    def peak_flops(self) -> float:
        """Of all devices together, FLOP/s in the training's precision; float32 stays outside the tensor cores."""
        tflops = self.device.fp32_tflops if self.precision == "fp32" else self.device.tensor_tflops
        return self.devices * tflops * 1e12


# -- work of one image -------------------------------------------------------------------------------------------------

def forward_flops(shape: VARShape, plan: DepthPlan) -> dict[str, int]:
    """FLOPs of `VAR.forward` for one row under a plan, by part; `word_embed` is apart because its backward is."""
    spec, pyramid = shape.spec, shape.pyramid
    width, hidden = spec.embed_dim, round(spec.embed_dim * spec.mlp_ratio)
    layers = layer_tokens(plan, pyramid)
    tokens = sum(layers)
    projections = _projections(shape, plan)
    return {
        "word_embed": 2 * (pyramid.length - pyramid.tokens(1)) * shape.z_channels * width,
        "attention_projections": 2 * tokens * 4 * width * width,
        "attention_scores": 4 * width * sum(len(stretch) * _attended_pairs(pyramid, scales)
                                            for stretch, scales in plan.stretches()),
        "mlp": 2 * tokens * 2 * width * hidden,
        "adaln": 2 * width * (6 * width * projections + 2 * width),
        "head": 2 * pyramid.length * width * shape.vocab_size,
    }


def backward_flops(shape: VARShape, plan: DepthPlan) -> int:
    """FLOPs of the way back of one row: two products for each of the forward, one for `word_embed`.

    Fused attention kernels compute their scores a third time there, half of ``attention_scores``; that is not in it.
    """
    forward = forward_flops(shape, plan)
    return 2 * sum(forward.values()) - forward["word_embed"]


def recomputed_flops(shape: VARShape, plan: DepthPlan) -> int:
    """FLOPs of running the blocks of one row again; their adaLN projections lie outside and are kept."""
    forward = forward_flops(shape, plan)
    return sum(forward[part] for part in ("attention_projections", "attention_scores", "mlp"))


def _attended_pairs(pyramid: Pyramid, scales: Sequence[int]) -> int:
    """Pairs of a query and a key that attention computes in a layer for one row and head, hidden ones included."""
    return sum((block.end - block.begin) * block.end for block in _attention_blocks(pyramid, scales))


def _attention_blocks(pyramid: Pyramid, scales: Sequence[int]) -> list[Block]:
    from varient.models.block_attention import blocks_of  # which imports torch

    return blocks_of([pyramid.tokens(k) for k in scales])


def _projections(shape: VARShape, plan: DepthPlan) -> int:
    """adaLN projections of a forward: of each layer that runs, or the shared one in each stretch of layers."""
    stretches = plan.stretches()
    return len(stretches) if shape.spec.shared_aln else sum(len(layers) for layers, _ in stretches)


def layer_tokens(plan: DepthPlan, pyramid: Pyramid) -> tuple[int, ...]:
    """Tokens of one row that run in each of the layers 0..D-1 (the zone rule)."""
    return tuple(sum(pyramid.tokens(k) for k in plan.scales_of(layer)) for layer in range(plan.depth))


def encoder_flops(spec: TokenizerSpec, pyramid: Pyramid) -> int:
    """FLOPs of turning one image into tokens and inputs: `VQVAE.encode` and `MultiScaleQuantizer.teacher_input`."""
    side = pyramid.patch_nums[-1] * spec.downsampling
    width, flops = spec.ch, _conv(spec.in_channels, spec.ch, side)
    for level, mult in enumerate(spec.ch_mult):
        is_last = level == len(spec.ch_mult) - 1
        for _ in range(spec.num_res_blocks):
            flops += _resnet(width, spec.ch * mult, side)
            width = spec.ch * mult
            flops += _attention(width, side) if is_last and spec.using_sa else 0
        if not is_last:
            side //= 2
            flops += _conv(width, width, side)
    flops += 2 * _resnet(width, width, side) + (_attention(width, side) if spec.using_mid_sa else 0)
    flops += _conv(width, spec.z_channels, side) + _conv(spec.z_channels, spec.z_channels, side)  # the last: quant_conv
    phis = pyramid.num_scales + pyramid.num_scales - 1  # while encoding, and for the inputs of all scales but the last
    nearest = 2 * pyramid.length * spec.z_channels * spec.vocab_size
    return flops + nearest + phis * _conv(spec.z_channels, spec.z_channels, side)


def _conv(width_in: int, width_out: int, side: int, kernel: int = 3) -> int:
    return 2 * width_in * width_out * kernel * kernel * side * side


def _resnet(width_in: int, width: int, side: int) -> int:
    shortcut = _conv(width_in, width, side, kernel=1) if width_in != width else 0
    return _conv(width_in, width, side) + _conv(width, width, side) + shortcut


def _attention(width: int, side: int) -> int:
    return _conv(width, 4 * width, side, kernel=1) + 4 * side ** 4 * width


# -- memory of one device ----------------------------------------------------------------------------------------------

def kept_bytes(shape: VARShape, plan: DepthPlan, rows: int, formats: Precision, *, recompute: bool = False,
               distilled: bool = False) -> int:
    """Bytes that autograd keeps from the forward of some rows for their backward, weights and their copies left out.

    Of a token in a block (C channels, H heads; float32 unless 16 bits are said):

    | part | kept |
    |---|---|
    | both adaLN norms | input and normalised input, mean and deviation; 16 bits: their result, into the matrix |
    | attention | 16 bits: query, key, value as projected, query and key as normalised, result |
    | l2 norm of query and key | query before its scale; under autocast both once more in float32; 4 norms a head |
    | scores | logarithm of the sum, one a head; masks, once for all rows; 16 bits: the result again if it is joined |
    | both branches before gamma | 16 bits: C |
    | MLP | 16 bits: hidden channels before and after GELU |

    With ``recompute`` a block keeps its inputs alone.  A row also keeps gammas, scales and shifts of each layer, and
    what each stretch of layers over a part of the tokens hands back.
    """
    spec, pyramid = shape.spec, shape.pyramid
    width, narrow, wide = spec.embed_dim, formats.compute_bytes, FLOAT32_BYTES
    layers = [count for count in layer_tokens(plan, pyramid) if count]
    if recompute:
        blocks = rows * sum(layers) * width * wide
        modulation = 6 * width * (wide if spec.shared_aln else narrow)
    else:
        blocks = sum(len(stretch) * _blocks_bytes(shape, scales, rows, formats) for stretch, scales in plan.stretches())
        modulation = (6 + 2) * width * wide
    handed_back = sum(pyramid.tokens(k) for _, scales in plan.stretches() if len(scales) < plan.num_scales
                      for k in scales)
    a_row = (handed_back * width * wide + len(layers) * modulation
             + _projections(shape, plan) * width * narrow                          # into the adaLN matrices
             + width * wide                                                        # class vector
             + (pyramid.length - pyramid.tokens(1)) * shape.z_channels * narrow    # into word_embed
             + 3 * width * wide + width * narrow)                                  # the head's adaLN
    return blocks + rows * (a_row + _head_bytes(shape, formats, distilled))


def _head_bytes(shape: VARShape, formats: Precision, distilled: bool) -> int:
    """What the head and the loss keep of a row: the final norm, its result, the softmax; three with distillation."""
    width, wide = shape.spec.embed_dim, FLOAT32_BYTES
    logits = (3 if distilled else 1) * shape.vocab_size * wide
    return shape.pyramid.length * (2 * width * wide + 2 * wide + width * formats.compute_bytes + logits)


def _blocks_bytes(shape: VARShape, scales: Sequence[int], rows: int, formats: Precision) -> int:
    """What a block keeps of the tokens of some scales of all rows, with the masks; see `kept_bytes`."""
    attention = _attention_blocks(shape.pyramid, scales)
    joined = shape.spec.embed_dim * formats.compute_bytes if len(attention) > 1 else 0
    masks = sum((block.end - block.begin) * block.end for block in attention if block.visible_lt is not None)
    tokens = sum(shape.pyramid.tokens(k) for k in scales)
    return rows * tokens * (_block_token_bytes(shape, formats) + joined) + masks * formats.compute_bytes


def _block_token_bytes(shape: VARShape, formats: Precision) -> int:
    """What a block keeps of a token; see `kept_bytes`."""
    spec, narrow, wide = shape.spec, formats.compute_bytes, FLOAT32_BYTES
    hidden = round(spec.embed_dim * spec.mlp_ratio)
    wide_channels, narrow_channels, head_numbers = 4, 1 + 3 + 1 + 1 + 1 + 1, 1
    if spec.attn_l2_norm:
        wide_channels += 1 + 2 * formats.autocast
        narrow_channels += 2
        head_numbers += 4
    return (spec.embed_dim * (wide_channels * wide + narrow_channels * narrow) + 2 * hidden * narrow
            + (4 + head_numbers * spec.num_heads) * wide)


def loss_bytes(shape: VARShape, rows: int, *, distilled: bool = False) -> int:
    """Bytes of the logits' copies around the loss, beside what `kept_bytes` counts."""
    copies = LOGIT_COPIES_WORKING + (LOGIT_COPIES_DISTILLED if distilled else 0)
    return rows * copies * shape.pyramid.length * shape.vocab_size * FLOAT32_BYTES


def block_bytes(shape: VARShape, plan: DepthPlan, rows: int, formats: Precision, *, recompute: bool = False,
                distilled: bool = False) -> int:
    """Bytes of the last block on its way back, beside what `kept_bytes` counts less what the head kept, gone by then.

    Gradients of the residual stream and of the hidden channels, and with ``recompute`` all that the block has just kept
    again.
    """
    hidden = round(shape.spec.embed_dim * shape.spec.mlp_ratio)
    scales = max((scales for _, scales in plan.stretches()), key=len)
    tokens = sum(shape.pyramid.tokens(k) for k in scales)
    again = _blocks_bytes(shape, scales, rows, formats) if recompute else 0
    gradients = rows * tokens * (shape.spec.embed_dim * FLOAT32_BYTES + hidden * formats.compute_bytes)
    return again + gradients - rows * _head_bytes(shape, formats, distilled)


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device.

    Attributes:
        weights, gradients, moments: float32; AdamW has two moments.  Exact (fsdp: but for the padding of slices).
        buckets: DDP's copies of the gradients for communication; a single device has none.
        gathered: fsdp's whole units: what lies outside the blocks, two parts of blocks, one's gradient.
        weight_copies: matrices in 16 bits, which autocast makes once a micro-batch and which live until the backward.
            Under fsdp too they are of the whole network.
        tokenizer: its weights, where images are encoded on the way.
        activations: kept for backward; estimated.
        working: most that exists for a moment beside them and the copies, around the loss or in a block on its way
            back; estimated.  With recomputation blocks copy their own matrices again and the others' are gone by then.
        update: copies that the optimizer's step makes, when activations are gone.
    """

    weights: int
    gradients: int
    moments: int
    buckets: int
    gathered: int
    weight_copies: int
    tokenizer: int
    activations: int
    working: int
    update: int

    @property
    def resident(self) -> int:
        """There all the time."""
        return self.weights + self.gradients + self.moments + self.buckets + self.tokenizer

    @property
    def peak(self) -> int:
        """At the worst moment of a step, which is in the forward and backward or in the update."""
        on_the_way = self.gathered + self.weight_copies + self.activations + self.working
        return self.resident + max(on_the_way, self.update)


def device_memory(shape: VARShape, plans: Sequence[DepthPlan], rows: int, setting: TrainingSetting, *,
                  distilled: bool = False, tokenizer_parameters: int = 0) -> DeviceMemory:
    """Memory of one device with ``rows`` of the batch at once, at the worst of the plans."""
    formats, sharded = setting.formats, setting.strategy == "fsdp"
    parameters = var_parameters(shape.spec, shape.pyramid, num_classes=shape.num_classes, vocab_size=shape.vocab_size,
                                z_channels=shape.z_channels)
    own = -(-parameters // setting.devices) if sharded else parameters
    copies = matrix_parameters(shape) * formats.compute_bytes if formats.autocast else 0
    gone = copies if setting.recompute else 0
    kept = [(kept_bytes(shape, plan, rows, formats, recompute=setting.recompute, distilled=distilled),
             max(loss_bytes(shape, rows, distilled=distilled),
                 block_bytes(shape, plan, rows, formats, recompute=setting.recompute, distilled=distilled) - gone))
            for plan in plans]
    activations, working = max(kept, key=sum)
    return DeviceMemory(
        weights=own * FLOAT32_BYTES, gradients=own * FLOAT32_BYTES, moments=2 * own * FLOAT32_BYTES,
        buckets=parameters * FLOAT32_BYTES if setting.devices > 1 and not sharded else 0,
        gathered=_gathered_parameters(shape, parameters) * FLOAT32_BYTES if sharded else 0,
        weight_copies=copies, tokenizer=tokenizer_parameters * FLOAT32_BYTES, activations=activations,
        working=working, update=own * FLOAT32_BYTES)


def matrix_parameters(shape: VARShape) -> int:
    """Weights of all linear layers, biases left out."""
    width = shape.spec.embed_dim
    hidden = round(width * shape.spec.mlp_ratio)
    projections = 1 if shape.spec.shared_aln else shape.spec.depth
    return (width * (shape.z_channels + shape.vocab_size + 2 * width + 6 * width * projections)
            + shape.spec.depth * (4 * width * width + 2 * width * hidden))


def _gathered_parameters(shape: VARShape, parameters: int) -> int:
    """Most parameters in one piece under fsdp, whose units are the children of blocks: see `DeviceMemory`."""
    spec, width = shape.spec, shape.spec.embed_dim
    hidden = round(width * spec.mlp_ratio)
    attention = 4 * width * width + 3 * width + spec.num_heads * spec.attn_l2_norm
    mlp = 2 * width * hidden + hidden + width
    modulation = 0 if spec.shared_aln else 6 * width * (width + 1)
    outside = parameters - spec.depth * (attention + mlp + modulation)
    return outside + 3 * max(attention, mlp, modulation)


# -- the training ------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class BatchKind:
    """A plan that batches run: the full network or a subnet.

    Attributes:
        token_layers: of one image.
        flops: of one image forward and backward.
        extra_flops: of one image computed beyond that: blocks run again, the full network as a target.
        batches: expected number of them in each epoch.
    """

    name: str
    plan: DepthPlan
    token_layers: int
    flops: int
    extra_flops: int
    batches: tuple[float, ...]


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs first..last (from 1) with their totals; expectations where plans are drawn.

    Attributes:
        probabilities: p(subnet) of the first and the last epoch.
        subnet_deviation: standard deviation of ``subnet_batches``.
        flops: forward and backward.
        computed_flops: with what is computed twice, and the tokenizer.
    """

    name: str
    first: int
    last: int
    probabilities: tuple[float, float]
    steps: int
    images: int
    tokens: int
    full_batches: float
    subnet_batches: float
    subnet_deviation: float
    token_layers: float
    flops: float
    computed_flops: float
    hours: float


@dataclass(frozen=True)
class TrainingPlan:
    """A training before its start.

    Attributes:
        name: of the weights.
        encodes: images are encoded as they are visited.
        probabilities: p(subnet) of each epoch.
        notes: what a reader of the numbers must know of this training.
    """

    experiment: str
    name: str
    setting: TrainingSetting
    shape: VARShape
    tokenizer: TokenizerSpec
    num_images: int
    batch_size: int
    steps_per_epoch: int
    accumulation: int
    schedule: Schedule
    probabilities: tuple[float, ...]
    kinds: tuple[BatchKind, ...]
    encodes: bool
    distilled: bool
    notes: tuple[str, ...]

    @property
    def micro_batch(self) -> int:
        """Rows that go through the network at once on each device."""
        return self.batch_size // self.setting.devices // self.accumulation

    @property
    def parameters(self) -> int:
        """Of the transformer."""
        return var_parameters(self.shape.spec, self.shape.pyramid, num_classes=self.shape.num_classes,
                              vocab_size=self.shape.vocab_size, z_channels=self.shape.z_channels)

    @cached_property
    def memory(self) -> DeviceMemory:
        """Of one device."""
        return self._memory(self.micro_batch)

    @property
    def fits(self) -> bool:
        """Whether the estimate leaves a tenth of the device's memory free."""
        return self._fits(self.memory)

    @cached_property
    def largest_micro_batch(self) -> int | None:
        """The largest micro-batch whose estimate fits and that divides a device's share; None where no row does."""
        share = self.batch_size // self.setting.devices
        sizes = (size for size in range(share, 0, -1) if share % size == 0)
        return next((size for size in sizes if self._fits(self._memory(size))), None)

    def step_seconds(self, kind: BatchKind) -> float:
        """Expected time of a step: from the measured step of the full network, or by the assumed utilisation."""
        if self.setting.step_seconds is None:
            return self._ideal_seconds(kind) / self.setting.utilisation
        return self.setting.step_seconds * self._ideal_seconds(kind) / self._ideal_seconds(self.kinds[0])

    @property
    def utilisation(self) -> float:
        """Share of the peak: as assumed, or what the measured step of the full network amounts to."""
        if self.setting.step_seconds is None:
            return self.setting.utilisation
        return self._ideal_seconds(self.kinds[0]) / self.setting.step_seconds

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The schedule's phases: three of the progressive one, else one."""
        lengths = self.schedule.phases if isinstance(self.schedule, ProgressiveSchedule) else (self.schedule.epochs,)
        ends = [sum(lengths[:count + 1]) for count in range(len(lengths))]
        return tuple(self._phase(str(number), end - length + 1, end)
                     for number, (length, end) in enumerate(zip(lengths, ends, strict=True), start=1) if length)

    @cached_property
    def total(self) -> Phase:
        """All epochs."""
        return self._phase("total", 1, self.schedule.epochs)

    def _phase(self, name: str, first: int, last: int) -> Phase:
        steps, chosen = (last - first + 1) * self.steps_per_epoch, slice(first - 1, last)
        counts = [(kind, math.fsum(kind.batches[chosen])) for kind in self.kinds]
        encoding = self.encoder_flops
        return Phase(
            name=name, first=first, last=last, steps=steps,
            probabilities=(self.probabilities[first - 1], self.probabilities[last - 1]),
            images=steps * self.batch_size, tokens=steps * self.batch_size * self.shape.pyramid.length,
            full_batches=counts[0][1], subnet_batches=math.fsum(count for _, count in counts[1:]),
            subnet_deviation=math.sqrt(math.fsum(self.steps_per_epoch * p * (1 - p)
                                                 for p in self.probabilities[chosen])),
            token_layers=self.batch_size * math.fsum(count * kind.token_layers for kind, count in counts),
            flops=self.batch_size * math.fsum(count * kind.flops for kind, count in counts),
            computed_flops=self.batch_size * math.fsum(count * (kind.flops + kind.extra_flops + encoding)
                                                       for kind, count in counts),
            hours=math.fsum(count * self.step_seconds(kind) for kind, count in counts) / 3600)

    @cached_property
    def encoder_flops(self) -> int:
        """Of one image where images are encoded on the way, else 0."""
        return encoder_flops(self.tokenizer, self.shape.pyramid) if self.encodes else 0

    def _ideal_seconds(self, kind: BatchKind) -> float:
        """A step at the devices' peak; the tokenizer runs in float32 (`TokenBatches.batch` sees to that)."""
        encoding = self.encoder_flops / (self.setting.devices * self.setting.device.fp32_tflops * 1e12)
        return self.batch_size * ((kind.flops + kind.extra_flops) / self.setting.peak_flops + encoding)

    def _fits(self, memory: DeviceMemory) -> bool:
        return memory.peak <= USABLE_MEMORY * self.setting.device.memory_mib * MIB

    def _memory(self, rows: int) -> DeviceMemory:
        tokenizer = vqvae_parameters(self.tokenizer, self.shape.pyramid.num_scales) if self.encodes else 0
        return device_memory(self.shape, [kind.plan for kind in self.kinds], rows, self.setting,
                             distilled=self.distilled, tokenizer_parameters=tokenizer)


def plan_base(config: ExperimentConfig, setting: TrainingSetting) -> TrainingPlan:
    """The training of the full network from nothing.

    Raises:
        ValueError: the config imports it, or the devices do not divide the batch.
    """
    if config.base.training is None:
        raise ValueError(f"{config.name}: the full network is read from {config.base.weights}, no training starts")
    schedule = FixedRatioSchedule(config.base.training.epochs, 0.0)
    return _plan(config, "base", setting, config.base.training, schedule)


def plan_supernet(config: ExperimentConfig, supernet: Supernet, setting: TrainingSetting) -> TrainingPlan:
    """The fine-tuning of the full network together with its subnet, or its subnets.

    Raises:
        ValueError: a depth or a recipe that the config does not have, or devices that do not divide the batch.
    """
    recipe = config.recipe(supernet.recipe)
    depths = config.supernet.depths if recipe.shared else (supernet.depth,)
    for depth in depths:
        if depth not in config.supernet.phases:
            raise ValueError(f"supernet.phases has no entry for depth {depth}")
    return _plan(config, supernet.weights(config), setting, config.supernet.training,
                 schedule_of(recipe, config.supernet.phases_of(supernet.depth, recipe)),
                 {f"d{depth}": config.plan(depth, recipe.bridge) for depth in depths},
                 config.supernet.training.batches_per_epoch, distilled=recipe.distillation > 0)


def training_images(data: DataConfig) -> int:
    """Images of an epoch, the holdout left out."""
    return IMAGES[data.source] - data.holdout


def setting_of(devices: str, training: BaseTraining | SupernetTraining | None, *,
               token_cache: bool = False) -> TrainingSetting:
    """The setting of a training started now: precision from the config, the rest from the environment of the run.

    Args:
        devices: device and count, as in "h100:8"; the count may be left out.

    Raises:
        ValueError: an unknown device, a count that is no number, or an environment that cannot be used.
    """
    name, _, count = devices.partition(":")
    if count and not count.isdecimal():
        raise ValueError(f"devices {devices!r}: expected a device and how many, as in h100:8")
    hardware = Hardware.from_environment()
    return TrainingSetting(device(name), int(count or 1), hardware.micro_batch,
                           training.precision if training else "fp32", hardware.strategy, hardware.recompute,
                           token_cache)


def probabilities(schedule: Schedule) -> tuple[float, ...]:
    """p(subnet) of each epoch; of an automatic schedule as if its first phase never ended: nobody can know."""
    if isinstance(schedule, AutomaticSchedule):
        return (P_START,) * schedule.epochs
    return tuple(schedule.subnet_probability(epoch) for epoch in range(1, schedule.epochs + 1))


def _plan(config: ExperimentConfig, name: str, setting: TrainingSetting, settings: Optimizer, schedule: Schedule,
          subnets: dict[str, DepthPlan] | None = None, batches_per_epoch: int | None = None, *,
          distilled: bool = False) -> TrainingPlan:
    from varient.training.distributed import accumulation_steps  # which imports torch

    if setting.token_cache and not config.data.cacheable:
        raise ValueError(f"{config.name}: the tokens of images that are augmented like this cannot be kept in a cache"
                         if config.data.source == "imagenet" else f"{config.name} needs no token cache")
    num_images, model = training_images(config.data), config.tokenizer.model
    steps = batches_per_epoch or num_images // settings.batch_size
    if steps * schedule.epochs == 0:
        raise ValueError(f"{name}: no training step; {num_images} images in batches of {settings.batch_size}, "
                         f"{schedule.epochs} epochs")
    shape = VARShape(config.transformer, config.pyramid, num_classes=config.data.num_classes,
                     vocab_size=model.vocab_size, z_channels=model.z_channels)
    shares, subnets = probabilities(schedule), subnets or {}
    full = DepthPlan.full(config.transformer.depth, config.pyramid.num_scales)
    target_flops = sum(forward_flops(shape, full).values()) if distilled else 0
    kinds = [_kind("full", full, shape, setting, 0, [steps * (1 - p) for p in shares])]
    kinds += [_kind(title, plan, shape, setting, target_flops, [steps * p / len(subnets) for p in shares])
              for title, plan in subnets.items()]
    plan = TrainingPlan(
        experiment=config.name, name=name, setting=setting, shape=shape, tokenizer=model, num_images=num_images,
        batch_size=settings.batch_size, steps_per_epoch=steps, schedule=schedule, probabilities=shares,
        accumulation=accumulation_steps(settings.batch_size, setting.devices, setting.micro_batch, name),
        kinds=tuple(kinds), distilled=distilled, notes=(),
        encodes=config.data.source == "imagenet" and not setting.token_cache)
    if plan.utilisation > 1:
        raise ValueError(f"a step in {setting.step_seconds:g} s would be {plan.utilisation:.2f} times the peak of "
                         f"{setting.devices} x {setting.device.name}: it was measured in another setting")
    return replace(plan, notes=tuple(_notes(plan, batches_per_epoch)))


def _kind(name: str, plan: DepthPlan, shape: VARShape, setting: TrainingSetting, target_flops: int,
          batches: list[float]) -> BatchKind:
    again = recomputed_flops(shape, plan) if setting.recompute else 0
    return BatchKind(name, plan, token_layers(passes(plan, shape.pyramid)),
                     sum(forward_flops(shape, plan).values()) + backward_flops(shape, plan), again + target_flops,
                     tuple(batches))


def _notes(plan: TrainingPlan, batches_per_epoch: int | None) -> list[str]:
    setting, notes = plan.setting, []
    measured = setting.step_seconds is not None
    notes.append(f"hours: from {setting.step_seconds:g} s measured for a step of the full network, "
                 f"{plan.utilisation:.2f} of the devices' peak" if measured else
                 f"hours: {setting.utilisation:g} of the devices' peak is ASSUMED; give --step-seconds once a step is "
                 "measured")
    notes.append("images are encoded as they are visited, in float32: "
                 f"{plan.encoder_flops / 1e12:.3f} TFLOP an image, counted as 'again'" if plan.encodes else
                 "tokens were encoded beforehand: the tokenizer is not counted")
    if batches_per_epoch:
        notes.append(f"an epoch is {batches_per_epoch} batches, not all {plan.num_images:,} images")
    if isinstance(plan.schedule, AutomaticSchedule):
        notes.append("automatic schedule: counted as if phase 1 (p = 0.2) never ended; its ends are found in training")
    if plan.distilled:
        notes.append("each subnet batch also runs the full network, forward only")
    if not plan.fits:
        best = plan.largest_micro_batch
        notes.append(f"DOES NOT FIT {USABLE_MEMORY:.0%} of {setting.device.memory_mib:,} MiB at micro-batch "
                     f"{plan.micro_batch}; "
                     + (f"the largest that does is {best}" if best else "nor does a single row"))
    notes.append("the paper prints no training time and no training memory: there is nothing to compare with")
    return notes
