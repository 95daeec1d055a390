"""What plans keep and cost: the KV cache of the network that is shown, and the cost model at the paper's size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from varient.config import CachePolicy, ExperimentConfig, SamplingConfig
from varient.cost.gpus import known_devices
from varient.cost.kv_accounting import POLICIES, KVBytes, passes, token_layers
from varient.cost.planner import PLANNED_PRECISIONS
from varient.cost.quantities import PRECISIONS
from varient.cost.roofline import ROWS_PER_IMAGE, peak_mib, system_cost
from varient.cost.work import VARPasses, VARShape
from varient.plan import DepthPlan

BATCHES = (1, 4, 16, 64, 256)
"""Batch sizes of the calculator."""


def network_kv(config: ExperimentConfig, plan: DepthPlan, images: int, policy: CachePolicy, *,
               guided: bool = True) -> KVBytes:
    """Bytes of the KV cache of an experiment's network under a plan, equal to what the cache counts while it runs.

    Raises:
        ValueError: a policy that cannot keep what the plan wants.
    """
    shape = VARShape(config.transformer, config.pyramid)
    rows = ROWS_PER_IMAGE * images if guided else images
    return VARPasses(shape, plan).kv(rows, policy, PRECISIONS[config.sampling.precision])


def share_of_work(config: ExperimentConfig, plan: DepthPlan) -> float:
    """Token-layers of a plan over those of the full network."""
    full = DepthPlan.full(plan.depth, plan.num_scales)
    return token_layers(passes(plan, config.pyramid)) / token_layers(passes(full, config.pyramid))


@dataclass(frozen=True)
class PaperCost:
    """Cost of one system at the paper's size with one cache and one precision.

    Attributes:
        kv_bytes: largest size of the KV cache within each scale, for one image (it is proportional to the images).
        memory_mib: predicted peak memory for each of `BATCHES`, the decoder taking a few images at a time.
        latency_s: predicted seconds of each GPU (by its id) for each of `BATCHES`.
    """

    kv_bytes: tuple[int, ...]
    memory_mib: tuple[float, ...]
    latency_s: dict[str, tuple[float, ...]]


def paper_costs(system: str, gpus: Sequence[str] | None = None) -> dict[CachePolicy, dict[str, PaperCost]]:
    """The cost of a system at the paper's size by cache policy and precision, as `varient cost` and `plan` give it.

    Args:
        gpus: their ids; None: all that the cost model knows.

    Raises:
        ValueError: a system that does not exist at that size.
    """
    return {policy: {precision: _paper_cost(system, policy, precision, gpus or tuple(known_devices()))
                     for precision in PLANNED_PRECISIONS} for policy in POLICIES}


def _paper_cost(system: str, policy: CachePolicy, precision: str, gpus: Sequence[str]) -> PaperCost:
    costs = {gpu: [system_cost(system, batch_size=batch, policy=policy, precision=precision, device_key=gpu)
                   for batch in BATCHES] for gpu in gpus}
    any_gpu = costs[gpus[0]]
    (stage,) = any_gpu[0].stages
    at_once = SamplingConfig.model_fields["decoded_at_once"].default
    return PaperCost(tuple(size // BATCHES[0] for size in stage.kv_peak_bytes),
                     tuple(peak_mib(cost, at_once) for cost in any_gpu),
                     {gpu: tuple(cost.latency_s for cost in found) for gpu, found in costs.items()})
