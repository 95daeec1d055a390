"""Memory of one device while the VAR transformer is trained.

Bytes of weights, gradients and AdamW's moments are exact.  Activations are estimated from the tensors that autograd
saves in `varient.models.transformer` (`kept_bytes`), to 1 % of a measurement on a CPU.  Temporary tensors are estimated
more coarsely (`loss_bytes`, `block_bytes`): the predicted peak of a forward and backward pass is 2 % below to 20 %
above the peak measured on a CPU, that of the gradient probe 5 % below to 21 % above.  Nothing was measured on a GPU.
CUDA context, cuBLAS, NCCL and fragmentation of the allocator are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from varient.cost.parameters import var_parameters
from varient.cost.quantities import FLOAT32_BYTES, NumberFormats
from varient.cost.training_setting import TrainingSetting
from varient.cost.training_work import aln_projections, attention_calls, layer_tokens
from varient.cost.work import VARShape
from varient.plan import DepthPlan
from varient.training.course import PROBED_ROWS

LOGIT_COPIES_WORKING = 2
"""Temporary float32 copies of the logits: in the forward pass the logits and the softmax of the losses by scale, in the
backward pass the gradients before and after the softmax."""
LOGIT_COPIES_DISTILLED = 3
"""Further copies with distillation, for the divergence of two predictions."""


def kept_bytes(shape: VARShape, plan: DepthPlan, rows: int, formats: NumberFormats, *, recompute: bool = False,
               distilled: bool = False) -> int:
    """Bytes that autograd saves in the forward pass of some rows, weights and their copies left out.

    For each token in a block (C channels, H heads; float32 unless 16 bits are stated):

    | part | saved |
    |---|---|
    | both adaLN norms | input and normalised input, mean and deviation; 16 bits: their result, into the matrix |
    | attention | 16 bits: query, key, value as projected, query and key as normalised, result |
    | l2 norm of query and key | under autocast both once more in float32; 6 norms a head |
    | scores | logarithm of the sum, one a head; masks, once for all rows; 16 bits: the result again if it is joined |
    | both branches before gamma | 16 bits: C |
    | MLP | 16 bits: hidden channels before and after GELU |

    With ``recompute`` (activation checkpointing) only the inputs of blocks are saved.  For each row there are also the
    gammas, scales and shifts of each layer, and the outputs of each stretch of layers that runs a part of the tokens.

    Args:
        rows: rows of the micro-batch.
        distilled: the loss includes the divergence from the full network's prediction.
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
             + aln_projections(shape, plan) * width * narrow                       # into the adaLN matrices
             + width * wide                                                        # class vector
             + (pyramid.length - pyramid.tokens(1)) * shape.z_channels * narrow    # into word_embed
             + 3 * width * wide + width * narrow)                                  # the head's adaLN
    return blocks + rows * (a_row + _head_bytes(shape, formats, distilled))


def _head_bytes(shape: VARShape, formats: NumberFormats, distilled: bool) -> int:
    """Bytes saved by head and loss for a row: the final norm, its result, one softmax (three with distillation)."""
    width, wide = shape.spec.embed_dim, FLOAT32_BYTES
    logits = (3 if distilled else 1) * shape.vocab_size * wide
    return shape.pyramid.length * (2 * width * wide + 2 * wide + width * formats.compute_bytes + logits)


def _blocks_bytes(shape: VARShape, scales: Sequence[int], rows: int, formats: NumberFormats) -> int:
    """Bytes saved by a block for the tokens of some scales of all rows, masks included; see `kept_bytes`."""
    attention = attention_calls(shape.pyramid, scales)
    joined = shape.spec.embed_dim * formats.compute_bytes if len(attention) > 1 else 0
    masks = sum((call.end - call.begin) * call.end for call in attention if len(call.scales) > 1)
    tokens = sum(shape.pyramid.tokens(k) for k in scales)
    return rows * tokens * (_block_token_bytes(shape, formats) + joined) + masks * formats.compute_bytes


def _block_token_bytes(shape: VARShape, formats: NumberFormats) -> int:
    """Bytes saved by a block for one token; see `kept_bytes`."""
    spec, narrow, wide = shape.spec, formats.compute_bytes, FLOAT32_BYTES
    hidden = round(spec.embed_dim * spec.mlp_ratio)
    wide_channels, narrow_channels, head_numbers = 4, 1 + 3 + 1 + 1 + 1 + 1, 1
    if spec.attn_l2_norm:
        wide_channels += 2 * formats.autocast
        narrow_channels += 2
        head_numbers += 6
    return (spec.embed_dim * (wide_channels * wide + narrow_channels * narrow) + 2 * hidden * narrow
            + (4 + head_numbers * spec.num_heads) * wide)


def loss_bytes(shape: VARShape, rows: int, *, distilled: bool = False) -> int:
    """Bytes of temporary copies of the logits around the loss, in addition to `kept_bytes`."""
    copies = LOGIT_COPIES_WORKING + (LOGIT_COPIES_DISTILLED if distilled else 0)
    return rows * copies * shape.pyramid.length * shape.vocab_size * FLOAT32_BYTES


def block_bytes(shape: VARShape, plan: DepthPlan, rows: int, formats: NumberFormats, *, recompute: bool = False,
                distilled: bool = False) -> int:
    """Bytes in the backward pass of the last block, in addition to `kept_bytes`.

    These are gradients of the residual stream and of the hidden channels and, with ``recompute``, the recomputed
    activations of the block; less what the head saved, which is freed by then.
    """
    hidden = round(shape.spec.embed_dim * shape.spec.mlp_ratio)
    scales = max((scales for _, scales in plan.stretches()), key=len)
    tokens = sum(shape.pyramid.tokens(k) for k in scales)
    again = _blocks_bytes(shape, scales, rows, formats) if recompute else 0
    gradients = rows * tokens * (shape.spec.embed_dim * FLOAT32_BYTES + hidden * formats.compute_bytes)
    return again + gradients - rows * _head_bytes(shape, formats, distilled)


def probe_bytes(shape: VARShape, plan: DepthPlan, rows: int, formats: NumberFormats, *, recompute: bool = False) -> int:
    """Peak bytes of the gradient probe (`varient.training.curves.probed_norms`): graph, copies of matrices, gradients.

    The whole graph is kept while the first zone's gradients are computed, because the second zone's follow.
    """
    gradients = shape.spec.depth * sum(_unit_parameters(shape)) * FLOAT32_BYTES
    copies = copied_bytes(shape, formats)
    way_back = (block_bytes(shape, plan, rows, formats, recompute=recompute)
                + rows * _head_bytes(shape, formats, distilled=False) + (0 if recompute else copies))
    return (kept_bytes(shape, plan, rows, formats, recompute=recompute)
            + max(loss_bytes(shape, rows) + copies, gradients + way_back))


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device.

    Attributes:
        weights, gradients, moments: float32; AdamW has two moments.  Exact (fsdp: but for the padding of slices).
        buckets: DDP's copies of the gradients for communication; none on a single device.
        gathered: what fsdp has gathered at once: parameters outside the blocks, two units and the gradient of one.
        weight_copies: 16-bit copies of the matrices, made by autocast once a micro-batch and kept until the backward
            pass.  Under fsdp too they are of the whole network, which follows from how both work and was not measured.
        tokenizer: its weights, where images are encoded during the training.
        activations: saved for the backward pass; estimated.
        working: peak of temporary tensors, around the loss or in the backward pass of a block; estimated.  With
            activation checkpointing a block makes its own 16-bit copies again, and those of the others are freed.
        update: copies made by the optimizer's step, after activations are freed.
        probe: peak of the gradient probe of `Curves`, which runs between steps; estimated.
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
    probe: int = 0

    @property
    def resident(self) -> int:
        """Bytes that are allocated throughout the training."""
        return self.weights + self.gradients + self.moments + self.buckets + self.tokenizer

    @property
    def peak(self) -> int:
        """Peak memory: of forward and backward pass, of the update or of the probe, whichever is largest."""
        in_a_step = self.gathered + self.weight_copies + self.activations + self.working
        return self.resident + max(in_a_step, self.update, self.probe - self.gradients)


def device_memory(shape: VARShape, plans: Sequence[DepthPlan], rows: int, setting: TrainingSetting, *,
                  distilled: bool = False, probed: bool = False, tokenizer_parameters: int = 0) -> DeviceMemory:
    """Memory of one device, for the plan that needs most.

    Args:
        plans: those that batches run: the full network and its subnets.
        rows: rows of a micro-batch.
        distilled: subnet batches have the full network's prediction as a target.
        probed: gradients of the zones are probed; not under fsdp.
        tokenizer_parameters: of the tokenizer where it is on the device, else 0.
    """
    formats, sharded = setting.formats, setting.strategy == "fsdp"
    parameters = var_parameters(shape.spec, shape.pyramid, num_classes=shape.num_classes, vocab_size=shape.vocab_size,
                                z_channels=shape.z_channels)
    own = -(-parameters // setting.devices) if sharded else parameters
    copies = copied_bytes(shape, formats)
    gone = copies if setting.recompute else 0
    kept = [(kept_bytes(shape, plan, rows, formats, recompute=setting.recompute, distilled=distilled),
             max(loss_bytes(shape, rows, distilled=distilled),
                 block_bytes(shape, plan, rows, formats, recompute=setting.recompute, distilled=distilled) - gone))
            for plan in plans]
    activations, working = max(kept, key=sum)
    probe = max(probe_bytes(shape, plan, min(rows, PROBED_ROWS), formats, recompute=setting.recompute)
                for plan in plans) if probed and not sharded else 0
    return DeviceMemory(
        weights=own * FLOAT32_BYTES, gradients=own * FLOAT32_BYTES, moments=2 * own * FLOAT32_BYTES,
        buckets=parameters * FLOAT32_BYTES if setting.devices > 1 and not sharded else 0,
        gathered=_gathered_parameters(shape, parameters) * FLOAT32_BYTES if sharded else 0,
        weight_copies=copies, tokenizer=tokenizer_parameters * FLOAT32_BYTES, activations=activations,
        working=working, update=own * FLOAT32_BYTES, probe=probe)


def copied_bytes(shape: VARShape, formats: NumberFormats) -> int:
    """Bytes of the 16-bit copies of matrices that autocast makes."""
    return matrix_parameters(shape) * formats.compute_bytes if formats.autocast else 0


def matrix_parameters(shape: VARShape) -> int:
    """Weights of all linear layers, biases left out."""
    width = shape.spec.embed_dim
    hidden = round(width * shape.spec.mlp_ratio)
    projections = 1 if shape.spec.shared_aln else shape.spec.depth
    return (width * (shape.z_channels + shape.vocab_size + 2 * width + 6 * width * projections)
            + shape.spec.depth * (4 * width * width + 2 * width * hidden))


def _gathered_parameters(shape: VARShape, parameters: int) -> int:
    """Parameters that fsdp has gathered at once; its units are the children of blocks.  See `DeviceMemory`."""
    units = _unit_parameters(shape)
    outside = parameters - shape.spec.depth * sum(units)
    return outside + 3 * max(units)


def _unit_parameters(shape: VARShape) -> tuple[int, int, int]:
    """Parameters of the children of a block: attention, MLP and adaLN (which may be shared, outside the blocks)."""
    spec, width = shape.spec, shape.spec.embed_dim
    hidden = round(width * spec.mlp_ratio)
    attention = 4 * width * width + 3 * width + spec.num_heads * spec.attn_l2_norm
    mlp = 2 * width * hidden + hidden + width
    modulation = 0 if spec.shared_aln else 6 * width * (width + 1)
    return attention, mlp, modulation
