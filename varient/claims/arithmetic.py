"""Exact values of quantities that follow from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from math import inf, isqrt, log2

from varient.claims.claims import FULL, LAST_SCALE, Claim, Evidence
from varient.claims.quantity import Interval, Quantity
from varient.cost.gpus import device
from varient.cost.paper_systems import BRIDGE, paper_system
from varient.cost.quantities import PRECISIONS
from varient.cost.roofline import (
    PAPER_BATCH_SIZE,
    PAPER_DEVICE,
    PAPER_POLICY,
    PAPER_PRECISION,
    SystemCost,
    system_cost,
)
from varient.cost.sizes import MIB
from varient.paper import DEPTH, PAPER_DEPTHS, paper_rows
from varient.plan import DepthPlan, equidistant_layers
from varient.pyramid import VAR_256, VAR_512
from varient.systems.ids import VarId
from varient.training.schedule import ProgressiveSchedule

ARITHMETIC = "arithmetic"
"""Source of what rests on shapes and nothing else."""


@cache
def paper_cost(system: str, batch: int = PAPER_BATCH_SIZE) -> SystemCost:
    """The cost of a system at the paper's setting: one L20, reference cache, float32 weights under autocast."""
    return system_cost(system, batch_size=batch, policy=PAPER_POLICY, precision=PAPER_PRECISION,
                       device_key=PAPER_DEVICE)


def kv_mb(system: str, batch: int = PAPER_BATCH_SIZE) -> float:
    """Keys and values: 2B rows, the tokens seen in each layer, C channels, 4 + 2 bytes; MiB, the paper's "MB"."""
    return paper_cost(system, batch).kv_cache_bytes / MIB


def params_mb(system: str) -> float:
    """Parameters of transformers and image tokenizer in float32, MiB."""
    return paper_system(system).parameter_bytes(PRECISIONS[PAPER_PRECISION]) / MIB


def weights_mb(system: str) -> float:
    """Parameters, and the attention mask of all tokens that the released code stores beside them in float32, MiB."""
    masks = 4 * VAR_256.length ** 2 * len(paper_system(system).stages)
    return params_mb(system) + masks / MIB


def kv_reduction(system: str) -> float:
    """By how much a system's KV cache is below VAR-d30's, %."""
    return 100 * (1 - kv_mb(system) / kv_mb(FULL))


def kv_growth(system: str, larger: str) -> float:
    """By how much the KV cache grows from one system to another, %."""
    return 100 * (kv_mb(larger) / kv_mb(system) - 1)


def kv_steps(axis: str) -> tuple[float, ...]:
    """Steps of the KV cache, MiB: for each layer from depth to depth with N = 6, or from N to N + 1 with d = 16.

    Args:
        axis: "d" or "N".
    """
    if axis == "N":
        sizes = [kv_mb(str(VarId("variant", PAPER_DEPTHS[0], bridge=n))) for n in range(BRIDGE, LAST_SCALE + 1)]
        return tuple(larger - smaller for smaller, larger in pairwise(sizes))
    subnets = {depth: kv_mb(str(VarId("variant", depth))) for depth in sorted(PAPER_DEPTHS)}
    return tuple((larger - smaller) / (deeper - shallower) for (shallower, smaller), (deeper, larger)
                 in pairwise([*subnets.items(), (DEPTH, kv_mb(FULL))]))


def kv_linearity(axis: str) -> float:
    """The largest of the steps of the KV cache over the smallest: 1 where it grows linearly."""
    return max(kv_steps(axis)) / min(kv_steps(axis))


def resolution_exponent() -> float:
    """Exponent with which the tokens of an image, and so its KV cache, grow with its side from 256 to 512 pixels."""
    return log2(VAR_512.length / VAR_256.length) / log2(VAR_512.patch_nums[-1] / VAR_256.patch_nums[-1])


def full_batches(depth: int) -> float:
    """Share of the batches of the three phases (Table 7) that train the full network, %."""
    row = next(row for row in paper_rows("table7") if row["depth"] == str(depth))
    first, second, third = (int(row[f"phase{phase}_epochs"]) for phase in (1, 2, 3))
    schedule = ProgressiveSchedule((first, second, third))
    subnet = sum(schedule.subnet_probability(epoch) for epoch in range(1, schedule.epochs + 1))
    return 100 * (1 - subnet / schedule.epochs)


def bridge_tokens(bridge: int = BRIDGE) -> float:
    """Share of the tokens in r_1..r_N, %."""
    return VAR_256.share((1, bridge))


def depth_share(depth: int) -> float:
    """Share of the layers that a subnet has, %."""
    return 100 * depth / DEPTH


def layer_reduction(depth: int) -> float:
    """Share of the layers that are skipped at a scale of the flexible zone, %; all layers have the same FLOPs there."""
    plan = DepthPlan.bridge(DEPTH, depth, BRIDGE, LAST_SCALE)
    return 100 * (1 - len(plan.layers(LAST_SCALE)) / DEPTH)


def token_layer_reduction(depth: int) -> float:
    """Share of all (token, layer) pairs that a subnet with the paper's bridge zone skips, %."""
    plan = DepthPlan.bridge(DEPTH, depth, BRIDGE, LAST_SCALE)
    run = sum(VAR_256.tokens(k) * len(plan.layers(k)) for k in VAR_256.scales)
    return 100 * (1 - run / (DEPTH * VAR_256.length))


def missing_layers(smaller: int, larger: int) -> tuple[int, ...]:
    """Layers of the smaller subnet of Eq. 2 that the larger one does not have; empty if they are nested."""
    return tuple(sorted(set(equidistant_layers(DEPTH, smaller)) - set(equidistant_layers(DEPTH, larger))))


def is_nested(smaller: int, larger: int) -> bool:
    """Whether Eq. 2's smaller subnet is a subset of the larger one."""
    return not missing_layers(smaller, larger)


def reached_layers(depth: int) -> tuple[int, int]:
    """Full-only layers that the gradient of the flexible zone's loss reaches in phase 3, and all full-only layers."""
    return _reached(equidistant_layers(DEPTH, depth), DEPTH)


def _reached(subnet: Sequence[int], depth: int) -> tuple[int, int]:
    """As `reached_layers`, for any layers of a subnet.

    In each layer of the subnet, tokens of the flexible zone attend to keys and values of bridge tokens, which went
    through all the layers before it.  So the gradient reaches every layer before the subnet's last one.
    """
    full_only = set(range(depth)) - set(subnet)
    return sum(layer < max(subnet) for layer in full_only), len(full_only)


def zone_of(bridge: int = BRIDGE) -> tuple[int, ...]:
    """N, first and last scale of the bridge zone, first and last scale of the flexible zone (Eq. 3)."""
    plan = DepthPlan.bridge(DEPTH, 2, bridge, LAST_SCALE)
    full = [k for k in VAR_256.scales if len(plan.layers(k)) == DEPTH]
    rest = [k for k in VAR_256.scales if k not in full]
    return len(full), full[0], full[-1], rest[0], rest[-1]


@dataclass(frozen=True)
class Exact:
    """Values of a quantity.

    Attributes:
        values: one for each number that the claim prints.
        sentence: the computation in words.
        command: shell command that prints them.
        bound: whether they are bounds of the quantity; agreement then needs all values within them to agree.
        shown: the result in words, where it is not a number.
        source: what they rest on.
    """

    values: tuple[Interval, ...]
    sentence: str
    command: str
    bound: bool = False
    shown: str = ""
    source: str = ARITHMETIC


def arithmetic(claim: Claim) -> Evidence | None:
    """Evidence about a claim by exact computation; None where the quantity does not follow from shapes.

    A bound (such as a sum of parts of a total) may leave the claim undecided.
    """
    compute = _EXACT.get(claim.quantity.name)
    if compute is None or (exact := compute(claim.quantity)) is None:
        return None
    agrees: bool | None = _meet(exact.values, claim.values)
    sentence = f"From shapes: {exact.sentence}"
    if agrees and not _meet(exact.values, claim.to_the_digit):
        sentence += f" It agrees {claim.quantity.kind.tolerance}, not to the last printed digit."
    if agrees and exact.bound and not all(
            ours.within(printed) for ours, printed in zip(exact.values, claim.values, strict=True)):
        agrees = None
    return Evidence(agrees, exact.shown or claim.quantity.kind.show(exact.values), sentence, exact.source,
                    exact.command)


def _meet(ours: Sequence[Interval], printed: Sequence[Interval]) -> bool:
    return len(ours) == len(printed) and all(a.meets(b) for a, b in zip(ours, printed, strict=True))


def cost_command(system: str, batch: int = PAPER_BATCH_SIZE) -> str:
    """The command that prints what `paper_cost` gives."""
    return f"varient cost --system {system} --batch {batch} --cache {PAPER_POLICY} --json"


def python_command(function: Callable[..., object], *calls: Sequence[object]) -> str:
    """A command that prints a function's value, once for each list of arguments."""
    printed = ", ".join(f"{function.__name__}({', '.join(map(repr, call))})" for call in calls)
    return f'python -c "from {function.__module__} import {function.__name__}; print({printed})"'


def _points(*values: float) -> tuple[Interval, ...]:
    return tuple(Interval.point(value) for value in values)


def _kv(quantity: Quantity) -> Exact:
    system = quantity.systems[0]
    return Exact(_points(kv_mb(system, quantity.batch)),
                 f"The formula 2B x C x 6 bytes x (tokens seen, summed over the layers) gives "
                 f"{kv_mb(system, quantity.batch):.1f} MB.", cost_command(system, quantity.batch))


def _total(quantity: Quantity) -> Exact:
    system = quantity.systems[0]
    parts = kv_mb(system, quantity.batch) + params_mb(system)
    return Exact((Interval(parts, inf),),
                 f"KV cache and parameters alone take {parts:.0f} MB; the L20 has "
                 f"{device(PAPER_DEVICE).memory_mib}.", cost_command(system, quantity.batch), bound=True)


def _params(quantity: Quantity) -> Exact:
    system = quantity.systems[0]
    return Exact(_points(weights_mb(system)), f"Transformer and image tokenizer in float32 take "
                 f"{params_mb(system):.2f} MB, with the attention mask {weights_mb(system):.2f} MB.",
                 python_command(weights_mb, (system,)))


def _parameters(quantity: Quantity) -> Exact:
    counts = paper_system(quantity.systems[0]).transformer_parameters
    return Exact(_points(*counts), f"Counted by formula: {' and '.join(f'{count:,}' for count in counts)}.",
                 cost_command(quantity.systems[0]))


_NAMED_BY_README = "LlamaGen's README"
"""Where it says which of LlamaGen's models has the FID that Table 2 prints."""


def _steps(quantity: Quantity) -> Exact | None:
    system = paper_system(quantity.systems[0])
    if any(stage.pass_unit == "steps" for stage in system.stages):
        return None  # the number of diffusion steps is a setting
    counts = [int(count) for count in system.steps.split("+")]
    unit = system.stages[0].pass_unit
    steps = Exact(_points(*counts), f"{system.steps} {unit}, each a pass through the network.",
                  cost_command(system.name))
    if unit != "positions":
        return steps
    side = isqrt(counts[0])
    return replace(steps, source=f"arithmetic, for the model that {_NAMED_BY_README} names",
                   sentence=f"{steps.sentence} They are a grid of {side} x {side} tokens. Which model it is rests on "
                            f"{_NAMED_BY_README}, not on shapes.")


def _reduction(quantity: Quantity) -> Exact:
    values = [kv_reduction(system) for system in quantity.systems]
    shown = ", ".join(f"{kv_mb(system):.1f} MB of {system}" for system in quantity.systems)
    return Exact(_points(*values), f"{shown} against {kv_mb(FULL):.1f} MB of {FULL}: "
                 f"{' and '.join(f'{value:.1f} %' for value in values)} less.",
                 python_command(kv_reduction, *((system,) for system in quantity.systems)))


def _growth(quantity: Quantity) -> Exact:
    before, after = (kv_mb(system) for system in quantity.systems)
    sentence = (f"By the formula the KV cache goes from {before:.1f} to {after:.1f} MB: "
                f"{kv_growth(*quantity.systems):.1f} % more.")
    if VarId.parse(quantity.systems[1]) is None:  # another method: which subnets take more than it does?
        above = {depth: size for depth in PAPER_DEPTHS if (size := kv_mb(str(VarId("variant", depth)))) > after}
        sentence += "".join(f" d = {depth} takes more: {size:.1f} MB." for depth, size in above.items())
    return Exact(_points(kv_growth(*quantity.systems)), sentence, python_command(kv_growth, quantity.systems))


def _linearity(quantity: Quantity) -> Exact:
    axis = quantity.systems[0]
    steps = ", ".join(f"{step:.1f}" for step in kv_steps(axis))
    of = f"from N to N + 1, N = {BRIDGE}..{LAST_SCALE - 1}" if axis == "N" else "per layer, from depth to depth"
    return Exact(_points(kv_linearity(axis)), f"By the formula the KV cache grows by {steps} MB {of}: the largest step "
                 f"is {kv_linearity(axis):.1f} times the smallest.", python_command(kv_linearity, (axis,)))


def _resolution(quantity: Quantity) -> Exact:
    return Exact(_points(resolution_exponent()), f"An image has {VAR_256.length} tokens at 256 x 256 and "
                 f"{VAR_512.length} at 512 x 512, so the cache grows with the side to the power of "
                 f"{resolution_exponent():.2f}.", python_command(resolution_exponent, ()))


def _depth_share(quantity: Quantity) -> Exact:
    depth = _depth(quantity.systems[0])
    return Exact(_points(depth_share(depth)), f"{depth} of {DEPTH} layers are {depth_share(depth):.1f} %.",
                 python_command(depth_share, (depth,)))


def _starved(quantity: Quantity) -> Exact:
    depth = _depth(quantity.systems[0])
    return Exact(_points(full_batches(depth)), f"By Table 7 and Eq. 5 {full_batches(depth):.1f} % of the batches train "
                 "the full network, and their gradient reaches every layer.", python_command(full_batches, (depth,)))


def _bridge_tokens(quantity: Quantity) -> Exact:
    return Exact(_points(bridge_tokens()), f"r1-r{BRIDGE} hold {VAR_256.end(BRIDGE)} of {VAR_256.length} tokens.",
                 python_command(bridge_tokens, ()))


def _layer_reduction(quantity: Quantity) -> Exact:
    depth = _depth(quantity.systems[0])
    return Exact(_points(layer_reduction(depth)),
                 f"{DEPTH - depth} of {DEPTH} layers are left out at r{BRIDGE + 1}-r{LAST_SCALE}; of the token-layers "
                 f"of all scales {token_layer_reduction(depth):.1f} %.", python_command(layer_reduction, (depth,)))


def _nested(quantity: Quantity) -> Exact:
    smaller, larger = (_depth(system) for system in quantity.systems)
    half, (down, up) = DEPTH // 2, (DEPTH // 4, -(-DEPTH // 4))
    return Exact(_points(is_nested(smaller, larger)), f"{_containment(smaller, larger)}. By the formula instead, "
                 f"0.5 D = {half} and 0.25 D = {DEPTH / 4:g}, no whole number: rounded up, {_containment(up, half)}; "
                 f"rounded down, {_containment(down, half)}.", python_command(is_nested, (smaller, larger)),
                 shown=str(is_nested(smaller, larger)).lower())


def _containment(smaller: int, larger: int) -> str:
    if lacking := missing_layers(smaller, larger):
        return f"I_{smaller} has {_list(lacking)}, which I_{larger} lacks"
    return f"every layer of I_{smaller} is in I_{larger}"


def _gradient_support(quantity: Quantity) -> Exact:
    depth = _depth(quantity.systems[0])
    reached, full_only = reached_layers(depth)
    return Exact(_points(reached),
                 f"In each layer of I_{depth}, tokens of the flexible zone attend to keys and values of bridge tokens, "
                 f"which went through all the layers before. By this alone its gradient reaches {reached} of the "
                 f"{full_only} full-only layers; how much of it is another question.",
                 python_command(reached_layers, (depth,)),
                 shown=f"reaches {reached} of {full_only} full-only layers")


def _zone(quantity: Quantity) -> Exact:
    bridge, *ends = zone_of()
    return Exact(_points(bridge, *ends), f"Eq. 3 with N = {BRIDGE} and K = {LAST_SCALE} scales.",
                 python_command(zone_of, ()), shown="N = {}, r{}-r{} full, r{}-r{} subnet".format(bridge, *ends))


def _depth(system: str) -> int:
    found = VarId.parse(system)
    assert found is not None  # rows about anything else than subnets of VAR are refused when they are read
    return found.depth


def _list(layers: Sequence[int]) -> str:
    return f"layer{'s' * (len(layers) > 1)} {', '.join(map(str, layers))}"


_EXACT: dict[str, Callable[[Quantity], Exact | None]] = {
    "kv_mb": _kv, "memory_mb": _total, "params_mb": _params, "parameters": _parameters, "steps": _steps,
    "kv_reduction": _reduction, "kv_growth": _growth, "kv_linearity": _linearity, "resolution_exponent": _resolution,
    "bridge_tokens": _bridge_tokens, "depth_share": _depth_share, "layer_reduction": _layer_reduction,
    "nested": _nested, "bridge_zone": _zone, "gradient_support": _gradient_support, "starved_batches": _starved}
"""Computation for each kind of quantity that follows from shapes."""
