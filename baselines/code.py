"""CoDe, collaborative decoding: a large VAR drafts the first scales, a small one refines the rest.

Facts: czg1225/CoDe at bfb204d.  Training-free CoDe is VAR-d30 with VAR-d16 as released; the authors' checkpoints
(drafter_N.pth, refiner_N.pth) have the released VAR layouts and are read by `varient.models.official`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from varient.models.kv_cache import CachePolicy
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.sampling import Generated, Guidance, Readout, generate

GUIDANCE = Guidance(cfg=1.5, top_k=600, top_p=0.96, temperatures=(1.1,) * 7 + (1.0,) * 3)
"""sample_CoDe.py: its own top-k, and temperatures that divide the logits after filtering."""


@dataclass(frozen=True)
class Collaboration:
    """What the two networks leave behind.

    Attributes:
        drafted: tokens and latent of the scales 1..N, with the drafter's cache counts.
        refined: tokens and latent of all scales, with the refiner's.
    """

    drafted: Generated
    refined: Generated

    @property
    def kv_peak_bytes(self) -> int:
        """Most bytes of keys and values at once: the drafter's cache is freed before the refiner starts."""
        return max(self.drafted.cache.peak_bytes, self.refined.cache.peak_bytes)


def collaborate(drafter: VAR, refiner: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, drafted_scales: int,
                readout: Readout, *, guidance: Guidance = GUIDANCE, cache_policy: CachePolicy = "lean",
                on_logits: Callable[[int, Tensor], None] | None = None) -> Collaboration:
    """Generate a batch with N drafted scales; the refiner takes in the tokens of N + 1 scales at once.

    Unlike the authors' code, the refiner does not draw tokens for the drafted scales only to drop them: each token has
    its own uniform number here, so there is no stream to keep in step.

    Args:
        label_B: classes, int64, on the CPU.
        drafted_scales: N, 1..K-1.
        readout: draws the tokens of both networks.

    Raises:
        ValueError: N outside 1..K-1, or networks for different scales.
    """
    num_scales = drafter.pyramid.num_scales
    if refiner.pyramid != drafter.pyramid:
        raise ValueError("drafter and refiner are for different scales")
    if not 1 <= drafted_scales < num_scales:
        raise ValueError(f"the drafter takes 1..{num_scales - 1} scales, not {drafted_scales}")
    drafted = generate(drafter, quantizer, label_B, DepthPlan.full(drafter.spec.depth, drafted_scales), guidance,
                       readout, cache_policy=cache_policy, on_logits=on_logits)
    refined = generate(refiner, quantizer, label_B, DepthPlan.full(refiner.spec.depth, num_scales), guidance, readout,
                       cache_policy=cache_policy, drafted_BL=drafted.idx_BL, on_logits=on_logits)
    return Collaboration(drafted, refined)
