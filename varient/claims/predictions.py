"""Predictions of the cost model, shown beside claims that arithmetic does not decide; they never decide one."""

from __future__ import annotations

from collections.abc import Callable

from varient.claims.arithmetic import bridge_tokens, cost_command, paper_cost, python_command
from varient.claims.claims import FULL, Claim, Evidence
from varient.claims.quantity import Interval, Quantity
from varient.config import SamplingConfig
from varient.cost.gpus import device
from varient.cost.paper_systems import BRIDGE
from varient.cost.roofline import ANCHOR, PAPER_DEVICE, peak_mib


def speedup(system: str) -> float:
    """Predicted latency of VAR-d30 over a system's, on an L20 at batch 64."""
    return paper_cost(FULL).latency_s / paper_cost(system).latency_s


def late_latency_share(system: str, bridge: int = BRIDGE) -> float:
    """Share of the scales after the bridge zone in the predicted latency, %."""
    by_pass = paper_cost(system).stages[0].latency_s
    return 100 * sum(by_pass[bridge:]) / sum(by_pass)


def predicted(claim: Claim) -> Evidence | None:
    """The prediction for a claim's quantity; None where there is none."""
    predict = _PREDICTIONS.get(claim.quantity.name)
    if predict is None or (prediction := predict(claim.quantity)) is None:
        return None
    value, remark, command = prediction
    shown = claim.quantity.kind.show((Interval.point(value),))
    error = "" if claim.is_bound else f" ({value / claim.values[0].middle - 1:+.1%})"
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
    remark = ", with constants fitted to totals of Table 3 and the whole batch decoded at once"
    if cost.peak_memory.mib > device(PAPER_DEVICE).memory_mib:
        at_once = SamplingConfig.model_fields["decoded_at_once"].default
        remark += f"; with {at_once} images decoded at once {peak_mib(cost, at_once):.0f} MB"
    return cost.peak_memory.mib, remark, cost_command(quantity.systems[0], quantity.batch)


def _late_share(quantity: Quantity) -> Prediction:
    system = quantity.systems[0]
    return (late_latency_share(system), f"; of the tokens these scales hold {100 - bridge_tokens():.1f} %",
            python_command(late_latency_share, (system,)))


_PREDICTIONS: dict[str, Callable[[Quantity], Prediction | None]] = {
    "latency_s": _latency, "speedup": _speedup, "memory_mb": _memory, "late_latency_share": _late_share}
