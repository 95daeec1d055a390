"""Size of the KV cache under a plan, computed without running it; equal to what the caches themselves count
(`varient.models.kv_cache`; for a plan with a window, packed entries or other guidance `varient.models.scheme_cache`,
for one with budgets by head `varient.models.budget_cache`).

The unit is the token-layer: one token in one layer, with one key and one value of ``width`` channels in each row.
All counts are exact integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest

from varient.config import CachePolicy
from varient.head_budgets import FIRST_SCALES, HEAD_KINDS, HeadBudgets, HeadKind
from varient.kv_scheme import PLAIN, KVScheme
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

POLICIES: tuple[CachePolicy, ...] = ("lean", "reference")


@dataclass(frozen=True)
class Pass:
    """One forward pass of new tokens through some layers: the tokens of one scale, or of several leading scales.

    Attributes:
        first, last: the scales that enter; the tokens of scale ``last`` are drawn at the end.  In networks without
            scales, the numbers of the first and last of ``times`` equal passes.
        tokens: new tokens of an image.
        layers: the layers that run.
        times: how often the pass is repeated.
        guided: whether the unconditional half of guidance enters too, if there is guidance.
    """

    first: int
    last: int
    tokens: int
    layers: tuple[int, ...]
    times: int = 1
    guided: bool = True

    def rows(self, rows: int) -> int:
        """Rows that enter, of all rows, the two halves of guidance."""
        return rows if self.guided else rows // 2


@dataclass(frozen=True)
class KVBytes:
    """Bytes of the KV cache; of a static cache, its storage.

    Attributes:
        live: after each pass.
        peak: largest within each pass.
        scratch: largest temporary copy of one layer's entries.
    """

    live: tuple[int, ...]
    peak: tuple[int, ...]
    scratch: int


def passes(plan: DepthPlan, pyramid: Pyramid, prefilled: int = 1) -> tuple[Pass, ...]:
    """The passes of a plan, one a scale.

    Args:
        prefilled: number of leading scales that enter together in the first pass, as in CoDe's refiner.

    Raises:
        ValueError: a plan for other scales, or prefilled scales that do not exist, run different layers, or are told
            apart by the plan's cache or guidance.
    """
    plan.check_fits(plan.depth, pyramid.num_scales)
    if prefilled > 1 and (why := plan.kv.one_scale_at_a_time):
        raise ValueError(f"{prefilled} scales cannot enter in one pass: the plan has {why}")
    if not 1 <= prefilled <= plan.num_scales or len(set(plan.layers_per_scale[:prefilled])) > 1:
        raise ValueError(f"{prefilled} scales cannot enter in one pass: they must exist and run the same layers")
    begin = Pass(1, prefilled, pyramid.end(prefilled), plan.layers(1))
    later = range(prefilled + 1, plan.num_scales + 1)
    return (begin, *(Pass(k, k, pyramid.tokens(k), plan.layers(k), guided=plan.kv.guided(k)) for k in later))


@dataclass(frozen=True)
class CacheStep:
    """The cache around one attention, in tokens of one row; or of one head, where heads have budgets.

    Attributes:
        index: position of the pass, from 0.
        layer: the layer whose attention runs.
        new: tokens that enter.
        seen: tokens that the attention reads in this layer, the new ones included.
        kept: tokens that the layer stores after it.
        in_flight: token-layers in the whole cache while the attention runs.
        live: token-layers in the whole cache after it.
        scratch: tokens of this layer in temporary copies: under `reference` the old storage during concatenation;
            under `lean` the concatenated entries of the layer's last pass, or the old storage where it grows at the
            start of a zone (consecutive passes through the same layers).  In a plan that is not plain, all that the
            attention reads, unless that is the new tokens as computed.
    """

    index: int
    layer: int
    new: int
    seen: int
    kept: int
    in_flight: int
    live: int
    scratch: int


def cache_steps(passes: Sequence[Pass], policy: CachePolicy, kv: KVScheme = PLAIN) -> tuple[CacheStep, ...]:
    """State of the cache around each attention, in order of execution, for a row that enters in all passes.

    `reference` keeps every entry; `lean` drops an entry after the last attention that reads it.

    Args:
        kv: of the plan.

    Raises:
        ValueError: unknown policy, `reference` with a plan that is not plain, or budgets by head.
    """
    policy = policy_named(policy)
    if kv.budgets:
        raise ValueError("heads with budgets keep different tokens, so their entries are counted by kind of heads")
    if policy == "reference" and not kv.is_plain:
        raise ValueError("the reference cache has no window, packed entries or other guidance; they need the lean one")
    scales: dict[int, list[int]] = {}  # layer -> last scale of each of its passes
    for trip in passes:
        for layer in trip.layers:
            scales.setdefault(layer, []).append(trip.last)
    schemes = {layer: kv.of_layer(layer) for layer in scales}
    stored: dict[int, dict[int, int]] = {layer: {} for layer in scales}  # layer -> last scale of a pass -> its tokens
    capacity: dict[int, int] = {}  # layer -> tokens that its storage under `lean` has room for
    steps, live = [], 0
    for index, trip in enumerate(passes):
        for layer in trip.layers:
            entries = stored[layer]
            before = sum(entries.values())
            entries[trip.last] = trip.tokens
            seen, in_flight = before + trip.tokens, live + trip.tokens
            if policy == "lean":
                entries = stored[layer] = {scale: tokens for scale, tokens in entries.items()
                                           if schemes[layer].last_reader(scale, scales[layer]) > trip.last}
            kept = sum(entries.values())
            live = in_flight - seen + kept
            if policy == "reference":
                scratch = before
            elif not kv.is_plain:
                scratch = seen if before or kv.bits else 0
            elif not kept:
                scratch = seen if before else 0
            else:
                room = _room(passes, index, layer, scales[layer][-1])
                scratch = capacity.get(layer, 0) if room > capacity.get(layer, 0) else 0
                capacity[layer] = max(room, capacity.get(layer, 0))
            steps.append(CacheStep(index, layer, trip.tokens, seen, kept, in_flight, live, scratch))
    return tuple(steps)


@dataclass(frozen=True)
class RowSteps:
    """Rows of the transformer, or some of their heads, that are in the cache for equally long.

    Attributes:
        count: number of the rows.
        heads: number of the heads in each row.
        steps: the cache around each attention, for one of the rows; of the leading passes that it enters.
        vectors: what it keeps of a token: 2, key and value, or 1, the value alone.
    """

    count: int
    heads: int
    steps: tuple[CacheStep, ...]
    vectors: int = 2


def row_steps(passes: Sequence[Pass], policy: CachePolicy, kv: KVScheme, rows: int, heads: int) -> tuple[RowSteps, ...]:
    """All rows; where the two halves of guidance differ, first the conditional and then the unconditional ones; where
    heads have budgets, one group for each kind of heads.

    Args:
        rows: images, doubled under guidance.
        heads: of each layer.

    Raises:
        ValueError: unknown policy, or `reference` with a plan that is not plain.
    """
    if kv.budgets:
        if policy_named(policy) == "reference":
            raise ValueError("the reference cache keeps all entries of all heads; budgets need the lean one")
        counts = {kind: len(found) for kind, found in kv.budgets.heads(0, heads).items()}  # the same in all layers
        return tuple(RowSteps(rows, counts[kind], _budget_steps(passes, kv.budgets, kind)) for kind in HEAD_KINDS)
    steps = cache_steps(passes, policy, kv)
    if not kv.changes_guidance:
        return (RowSteps(rows, heads, steps),)
    # For the unconditional half the network ends with the last guided scale.
    guided = cache_steps([trip for trip in passes if trip.guided], policy, kv)
    return RowSteps(rows // 2, heads, steps), RowSteps(rows // 2, heads, guided, 1 if kv.shared_map else 2)


def _budget_steps(passes: Sequence[Pass], budgets: HeadBudgets, kind: HeadKind) -> tuple[CacheStep, ...]:
    """As `cache_steps`, for the heads of a kind."""
    length = sum(trip.tokens for trip in passes)
    last = {layer: trip.last for trip in passes for layer in trip.layers}
    first: dict[int, int] = {}   # layer -> its tokens of the coarsest scales
    stored: dict[int, int] = {}  # layer -> its entries
    steps, live = [], 0
    for index, trip in enumerate(passes):
        coarse = trip.last <= FIRST_SCALES
        for layer in trip.layers:
            before = stored.get(layer, 0)
            first[layer] = first.get(layer, 0) + trip.tokens * coarse
            seen, kept = before + trip.tokens, 0
            if trip.last < last[layer]:
                kept = sum(budgets.kept(kind, length=length, seen=seen, first=first[layer],
                                        newest=0 if coarse else trip.tokens))
            stored[layer], in_flight = kept, live + trip.tokens
            live = in_flight - seen + kept
            steps.append(CacheStep(index, layer, trip.tokens, seen, kept, in_flight, live, seen if before else 0))
    return tuple(steps)


def _room(passes: Sequence[Pass], index: int, layer: int, last_scale: int) -> int:
    """Tokens that a layer stores up to the end of the zone of pass ``index``; its last pass stores nothing."""
    end = index
    while end + 1 < len(passes) and passes[end + 1].layers == passes[index].layers:
        end += 1
    return sum(trip.tokens for trip in passes[:end + 1] if layer in trip.layers and trip.last < last_scale)


def policy_named(policy: str) -> CachePolicy:
    """The cache policy of that name.

    Raises:
        ValueError: there is none.
    """
    if policy not in POLICIES:
        raise ValueError(f"cache policy {policy!r} is unknown; known: {', '.join(POLICIES)}")
    return policy


def kv_peak_bytes(plan: DepthPlan, pyramid: Pyramid, rows: int, width: int, policy: CachePolicy, key_bytes: int,
                  value_bytes: int) -> int:
    """Peak size of the KV cache in bytes, new entries of the running layer included.

    Args:
        rows: images, doubled under guidance.
        width: channels of a key (embed_dim).
        key_bytes, value_bytes: bytes of one channel.

    Raises:
        ValueError: unknown policy, or a plan for other scales.

    Under `reference` with 4-byte keys, 2-byte values and 2 x 64 rows of width 1920 this is the paper's "KV Cache"
    (Tables 2 and 3): 28687.5 MiB for VAR-d30.
    """
    peak = max(step.in_flight for step in cache_steps(passes(plan, pyramid), policy))
    return peak * rows * width * (key_bytes + value_bytes)


def kv_bytes(rows: Sequence[RowSteps], kv: KVScheme, *, head_dim: int, channel_bytes: int) -> KVBytes:
    """Bytes of the cache over its steps, as the caches count them.

    Args:
        rows: all rows; the first ones enter in all passes.
        channel_bytes: of one channel of key and value together: as computed, or as the reference cache stores them.
    """
    token_bytes = kv.token_bytes(1, head_dim, channel_bytes)
    live, peak, scratch = [], [], 0
    for _, of_pass in groupby(zip_longest(*(group.steps for group in rows)), key=lambda steps: steps[0].index):
        in_flight = after = 0
        for steps in of_pass:
            vectors = [(step, group.count * group.heads * group.vectors)
                       for step, group in zip(steps, rows, strict=True) if step]
            in_flight = max(in_flight, sum(step.in_flight * count * token_bytes // 2 for step, count in vectors))
            after = sum(step.live * count * token_bytes // 2 for step, count in vectors)
            scratch = max(scratch, sum(step.scratch * count * head_dim * channel_bytes // 2
                                       for step, count in vectors))
        live.append(after)
        peak.append(in_flight)
    return KVBytes(tuple(live), tuple(peak), scratch)


def concatenates(step: CacheStep, policy: CachePolicy) -> bool:
    """Whether the cache concatenates stored and new entries into a new tensor for this attention."""
    return step.seen > step.new and (policy == "reference" or not step.kept)


def token_layers(passes: Sequence[Pass]) -> int:
    """Number of (token, layer) pairs over all passes, for one row."""
    return sum(trip.times * trip.tokens * len(trip.layers) for trip in passes)
