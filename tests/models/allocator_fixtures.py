"""What torch's allocator sees of a KV cache."""

from itertools import accumulate

import torch

from varient.models.kv_cache import KVCache
from varient.plan import DepthPlan
from varient.pyramid import Pyramid


def allocator_peak(cache: KVCache, plan: DepthPlan, pyramid: Pyramid, shape: tuple[int, int, int]) -> int:
    """Largest number of bytes alive at once, by torch's own allocation events, while a cache goes through a plan."""
    rows, heads, channels = shape
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for k in pyramid.scales:
            for layer in plan.layers(k):
                key, value = (torch.empty(rows, heads, pyramid.tokens(k), channels) for _ in range(2))
                seen = cache.extend(layer, k, key, value)
                del key, value, seen
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(changes))
