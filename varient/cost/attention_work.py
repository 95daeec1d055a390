"""FLOPs and memory traffic of attention over the KV cache, with the copies and casts of the cache itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from math import ceil

from varient.config import CachePolicy, TransformerSpec
from varient.cost.kv_accounting import CacheStep, RowSteps, concatenates
from varient.cost.quantities import FLOAT32_BYTES, NumberFormats, Work
from varient.head_budgets import observer_stride
from varient.kv_scheme import KVScheme


def attention_work(spec: TransformerSpec, kv: KVScheme, groups: Sequence[RowSteps], index: int, policy: CachePolicy,
                   precision: NumberFormats) -> Work:
    """Work of the attention of all layers in a pass.

    Args:
        groups: of `row_steps`.
        index: position of the pass, from 0.
    """
    if kv.is_plain:
        (rows,) = groups
        works: Iterator[Work] = (_attention(spec, step, rows.count, policy, precision) for step in rows.steps
                                 if step.index == index)
    elif kv.budgets:
        works = (_budget_attention(spec, step, group, precision) for group in groups for step in group.steps
                 if step.index == index)
    else:
        works = _scheme_attentions(spec, kv, groups, index, precision)
    return sum(works, Work())


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
    """Work of the attention of each layer and each kind of rows, with a window, packed entries or other guidance."""
    for steps in zip_longest(*(group.steps for group in groups)):
        if steps[0].index != index:
            continue
        drops = any(step.kept < step.seen for step in steps if step)
        shared = kv.shared_map and steps[-1] is not None
        for step, group in zip(steps, groups, strict=True):
            if step:
                yield _scheme_attention(spec, kv, step, group, precision, shared=shared, drops=drops)


def _scheme_attention(spec: TransformerSpec, kv: KVScheme, step: CacheStep, group: RowSteps, precision: NumberFormats,
                      *, shared: bool, drops: bool) -> Work:
    """Work of one attention for rows of a kind: packing, joining, unpacking, and dropping dead entries.

    Args:
        shared: whether the values of both halves are put beside each other for one map.
        drops: whether entries of the layer die, so that those which do not are copied.
    """
    width, narrow, keys = spec.embed_dim, precision.compute_bytes, group.vectors - 1
    key_bytes = precision.key_bytes("reference", spec.attn_l2_norm)
    fresh = width * (keys * key_bytes + precision.value_bytes())  # as projected
    dense = width * group.vectors * narrow
    stored = kv.token_bytes(spec.num_heads, width // spec.num_heads, 2 * narrow) * group.vectors // 2
    before = step.seen - step.new
    read = step.seen * dense  # by the attention kernel
    written = 0
    if shared:
        read += step.new * width * precision.value_bytes()
        written += step.new * width * precision.value_bytes()
    if kv.bits is None:
        read += before * dense + step.new * fresh
        written += step.seen * dense
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
    rows = group.count  # each key is multiplied with the queries, each value with the map
    return Work(flops=rows * 2 * group.vectors * step.new * step.seen * width, kv_read_bytes=rows * read,
                kv_written_bytes=rows * written,
                activation_bytes=rows * group.vectors * step.new * width * narrow)  # queries, and what is returned


def _budget_attention(spec: TransformerSpec, step: CacheStep, group: RowSteps, precision: NumberFormats) -> Work:
    """Work of one attention for the heads of a kind: taking them from all heads, joining, and eviction.

    The selection of the kept entries from their scores is left out.
    """
    width, narrow = group.heads * spec.embed_dim // spec.num_heads, precision.compute_bytes
    wide = precision.key_bytes("reference", spec.attn_l2_norm)  # of queries and keys, as projected
    dense = 2 * width * narrow
    before, products = step.seen - step.new, 2 * step.new
    read = step.new * dense + step.seen * dense            # keys and values taken by head; the attention kernel
    written = step.new * dense
    if wide != narrow:                                     # keys are cast
        read += step.new * width * wide
        written += step.new * width * narrow
    if before:
        read += before * dense + step.new * dense
        written += step.seen * dense
    if 0 < step.kept < step.seen:
        observed = ceil(step.new / observer_stride(step.new))
        products += observed
        maps = observed * step.seen * group.heads * FLOAT32_BYTES
        read += step.seen * width * (narrow + FLOAT32_BYTES) + 2 * maps  # keys cast, and multiplied; softmax, sum
        written += step.seen * width * FLOAT32_BYTES + 2 * maps
        read += 2 * step.kept * dense                      # gathered, and put in order with what is kept in any case
        written += 2 * step.kept * dense
    rows, by_head = group.count, wide + narrow             # queries and outputs, read and written once more
    return Work(flops=rows * 2 * products * step.seen * width, kv_read_bytes=rows * read,
                kv_written_bytes=rows * written, activation_bytes=rows * step.new * width * 2 * (narrow + by_head))
