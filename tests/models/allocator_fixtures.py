"""What torch's allocator sees of a KV cache."""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from varient.models.kv_cache import KVCache
from varient.plan import DepthPlan
from varient.pyramid import Pyramid


def _of_all_rows(k: int, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.empty(shape), torch.empty(shape)


def allocator_peak(cache: KVCache, plan: DepthPlan, pyramid: Pyramid, shape: tuple[int, int, int],
                   new_entries: Callable[[int, tuple[int, ...]], tuple[Tensor, Tensor]] = _of_all_rows) -> int:
    """Largest number of bytes alive at once, by torch's own allocation events, while a cache goes through a plan.

    Args:
        shape: rows, heads and channels.
        new_entries: keys and values of a scale, from its number and the shape of those of all rows.
    """
    rows, heads, channels = shape
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        for k in pyramid.scales:
            for layer in plan.layers(k):
                key, value = new_entries(k, (rows, heads, pyramid.tokens(k), channels))
                seen = cache.extend(layer, k, key, value)
                del key, value, seen
    changes = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(changes))
