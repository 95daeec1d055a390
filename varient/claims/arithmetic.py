"""Exact values of quantities that follow from shapes alone, and predictions of the cost model for others.

A prediction is shown beside a claim and never decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, isinf, isqrt

from varient.claims.claims import FULL, LAST_SCALE, Claim, Evidence
from varient.claims.quantity import Interval, Quantity
from varient.cost.gpus import device
from varient.cost.paper_systems import BRIDGE, paper_system
from varient.cost.roofline import (
    ANCHOR,
    PAPER_BATCH_SIZE,
    PAPER_DEVICE,
    PAPER_POLICY,
    PAPER_PRECISION,
    SystemCost,
    system_cost,
)
from varient.cost.sizes import MIB
from varient.cost.work import PRECISIONS
from varient.paper import DEPTH
from varient.plan import DepthPlan, equidistant_layers
from varient.pyramid import VAR_256
from varient.systems.ids import VarId


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


def bridge_tokens(bridge: int = BRIDGE) -> float:
    """Share of the tokens in r_1..r_N, %."""
    return VAR_256.share((1, bridge))


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


def speedup(system: str) -> float:
    """Predicted latency of VAR-d30 over a system's, on an L20 at batch 64."""
    return paper_cost(FULL).latency_s / paper_cost(system).latency_s


def late_latency_share(system: str, bridge: int = BRIDGE) -> float:
    """Share of the scales after the bridge zone in the predicted latency, %."""
    by_pass = paper_cost(system).stages[0].latency_s
    return 100 * sum(by_pass[bridge:]) / sum(by_pass)


@dataclass(frozen=True)
class Exact:
    """Values of a quantity.

    Attributes:
        values: one for each number that the claim prints.
        sentence: the computation in words.
        command: shell command that prints them.
        bound: whether they are bounds of the quantity; agreement then needs all values within them to agree.
        shown: the result in words, where it is not a number.
    """

    values: tuple[Interval, ...]
    sentence: str
    command: str
    bound: bool = False
    shown: str = ""


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
    return Evidence(agrees, exact.shown or claim.quantity.kind.show(exact.values), sentence, "arithmetic",
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


def _steps(quantity: Quantity) -> Exact | None:
    system = paper_system(quantity.systems[0])
    if any(stage.pass_unit == "steps" for stage in system.stages):
        return None  # the number of diffusion steps is a setting
    counts = [int(count) for count in system.steps.split("+")]
    unit = system.stages[0].pass_unit
    grid = f" of a grid of {isqrt(counts[0])} x {isqrt(counts[0])} tokens" if unit == "positions" else ""
    return Exact(_points(*counts), f"{system.steps} {unit}{grid}, each a pass through the network.",
                 cost_command(system.name))


def _reduction(quantity: Quantity) -> Exact:
    values = [kv_reduction(system) for system in quantity.systems]
    shown = ", ".join(f"{kv_mb(system):.1f} MB of {system}" for system in quantity.systems)
    return Exact(_points(*values), f"{shown} against {kv_mb(FULL):.1f} MB of {FULL}: "
                 f"{' and '.join(f'{value:.1f} %' for value in values)} less.",
                 python_command(kv_reduction, *((system,) for system in quantity.systems)))


def _growth(quantity: Quantity) -> Exact:
    before, after = (kv_mb(system) for system in quantity.systems)
    return Exact(_points(kv_growth(*quantity.systems)), f"By the formula the KV cache goes from {before:.1f} to "
                 f"{after:.1f} MB: {kv_growth(*quantity.systems):.1f} % more.",
                 python_command(kv_growth, quantity.systems))


def _bridge_tokens(quantity: Quantity) -> Exact:
    return Exact(_points(bridge_tokens()), f"r1-r{BRIDGE} hold {VAR_256.end(BRIDGE)} of {VAR_256.length} tokens.",
                 python_command(bridge_tokens, ()))


def _layer_reduction(quantity: Quantity) -> Exact:
    depth = _depth(quantity.systems[0])
    return Exact(_points(layer_reduction(depth)),
                 f"{DEPTH - depth} of {DEPTH} layers are left out at r{BRIDGE + 1}-r{LAST_SCALE}; of the token-layers "
                 f"of all scales {token_layer_reduction(depth):.1f} %.", python_command(layer_reduction, (depth,)))


def _nested(quantity: Quantity) -> Exact:
    depths = [_depth(system) for system in quantity.systems]
    lacking = missing_layers(*depths)
    halves = (DEPTH // 4, DEPTH // 4 + 1)
    literal = "; ".join(f"I_{d} {'has none' if not (m := missing_layers(d, DEPTH // 2)) else f'has {_list(m)}'}"
                        for d in halves)
    sentence = f"I_{depths[0]} has {_list(lacking)}, which I_{depths[1]} lacks." if lacking else (
        f"Every layer of I_{depths[0]} is in I_{depths[1]}.")
    return Exact(_points(is_nested(*depths)), f"{sentence} Taken literally, 0.5 D = {DEPTH // 2} and 0.25 D = "
                 f"{DEPTH / 4:g}, which is not a whole number; of the layers that I_{DEPTH // 2} lacks, {literal}.",
                 python_command(is_nested, depths), shown=str(not lacking).lower())


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
    "kv_reduction": _reduction, "kv_growth": _growth, "bridge_tokens": _bridge_tokens,
    "layer_reduction": _layer_reduction, "nested": _nested, "bridge_zone": _zone,
    "gradient_support": _gradient_support}
"""Computation for each kind of quantity that follows from shapes."""


# --- predictions ------------------------------------------------------------------------------------------------------


def predicted(claim: Claim) -> Evidence | None:
    """The prediction for a claim's quantity; None where there is none."""
    predict = _PREDICTIONS.get(claim.quantity.name)
    if predict is None or (prediction := predict(claim.quantity)) is None:
        return None
    value, remark, command = prediction
    shown = claim.quantity.kind.show((Interval.point(value),))
    error = "" if isinf(claim.values[0].high) else f" ({value / claim.values[0].middle - 1:+.1%})"
    return Evidence(None, shown, f"The cost model predicts {shown}{error}{remark}.", "predicted", command)


Prediction = tuple[float, str, str]
"""Value, remark and command."""


def _latency(quantity: Quantity) -> Prediction:
    system = quantity.systems[0]
    remark = ", but it is fitted to this very cell" if system == ANCHOR else ""
    return paper_cost(system).latency_s, remark, cost_command(system)


def _speedup(quantity: Quantity) -> Prediction:
    return speedup(quantity.systems[0]), "", python_command(speedup, quantity.systems)


def _memory(quantity: Quantity) -> Prediction | None:
    cost = paper_cost(quantity.systems[0], quantity.batch)
    if cost.peak_memory is None:
        return None
    return (cost.peak_memory.mib, ", with constants fitted to totals of Table 3 and the whole batch decoded at once",
            cost_command(quantity.systems[0], quantity.batch))


def _late_share(quantity: Quantity) -> Prediction:
    system = quantity.systems[0]
    return (late_latency_share(system), f"; of the tokens these scales hold {100 - bridge_tokens():.1f} %",
            python_command(late_latency_share, (system,)))


_PREDICTIONS: dict[str, Callable[[Quantity], Prediction | None]] = {
    "latency_s": _latency, "speedup": _speedup, "memory_mb": _memory, "late_latency_share": _late_share}
