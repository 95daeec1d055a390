import pytest
import torch
from allocator_fixtures import allocator_peak
from conftest import TINY_PYRAMID, tiny_tokenizer, tiny_transformer

from varient.models.kv_cache import LeanCache, ReferenceCache
from varient.plan import DepthPlan
from varient.pyramid import VAR_256
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms

MIB_PER_TOKEN_LAYER = 128 * 1920 * 2 * 2 / 2 ** 20
"""VAR-d30 at batch 64: 128 guided rows, width 1920, keys and values, 2 bytes each."""


def _token_layers_at_peak(plan, cache):
    """Drive a cache with one-byte entries, so that bytes are twice (key and value) the token-layers."""
    for k in VAR_256.scales:
        entry = torch.zeros(1, 1, VAR_256.tokens(k), 1, dtype=torch.uint8)
        for layer in plan.layers(k):
            key, _ = cache.extend(layer, k, entry, entry)
            seen = sum(VAR_256.tokens(s) for s in plan.scales_of(layer) if s <= k)
            assert key.shape[2] == seen
    return cache.peak_bytes / 2


@pytest.mark.parametrize(("subnet_depth", "lean_mib", "reference_mib"), [
    (30, 12165.0, 28687.5), (16, 6600.0, 17091.6), (8, 3420.0, 10465.3), (4, 1830.0, 7152.2), (2, 1614.4, 5495.6)])
def test_peaks_at_paper_scale(subnet_depth, lean_mib, reference_mib):
    plan = DepthPlan.bridge(30, subnet_depth, 6, 10)
    lean = _token_layers_at_peak(plan, LeanCache(plan, VAR_256))
    assert lean * MIB_PER_TOKEN_LAYER == pytest.approx(lean_mib, abs=0.05)
    reference = _token_layers_at_peak(plan, ReferenceCache(plan, VAR_256))
    # The released code keeps keys in float32 and values in float16: 6 bytes where lean needs 4.
    assert reference * MIB_PER_TOKEN_LAYER * 6 / 4 == pytest.approx(reference_mib, abs=0.05)


def test_lean_ends_empty_and_reference_keeps_everything():
    plan = DepthPlan.bridge(30, 8, 6, 10)
    lean, reference = LeanCache(plan, VAR_256), ReferenceCache(plan, VAR_256)
    _token_layers_at_peak(plan, lean)
    _token_layers_at_peak(plan, reference)
    assert lean.live_bytes == 0
    assert reference.live_bytes == reference.peak_bytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_both_policies_give_the_same_tokens(dtype):
    """Also where they store keys differently: the kernel casts float32 keys to the compute dtype at use."""
    model, quantizer = tiny_transformer().to(dtype), tiny_tokenizer().quantize
    readout = SampledReadout(quantizer, image_uniforms(1, range(16), TINY_PYRAMID.length))
    labels = torch.arange(16) % 5
    for plan in (DepthPlan.full(6, 5), DepthPlan.bridge(6, 3, 2, 5), DepthPlan.window(6, 3, 1, 2, 5)):
        lean, reference = (generate(model, quantizer, labels, plan, Guidance(), readout, cache_policy=policy)
                           for policy in ("lean", "reference"))
        assert torch.equal(lean.idx_BL, reference.idx_BL)
        assert torch.equal(lean.f_hat_BCHW, reference.f_hat_BCHW)
        entry = {torch.float32: 8, torch.bfloat16: 6, torch.float16: 6}[dtype]
        assert reference.cache.live_bytes == _token_layers(plan) * 32 * 16 * entry


def _token_layers(plan):
    return sum(TINY_PYRAMID.tokens(k) * len(plan.layers(k)) for k in TINY_PYRAMID.scales)


@pytest.mark.parametrize(("pyramid", "shape"), [(TINY_PYRAMID, (4, 2, 64)), (VAR_256, (8, 4, 64))])
@pytest.mark.parametrize(("depth", "subnet_depth", "bridge"), [(6, 6, 0), (6, 4, 3), (6, 2, 3), (30, 16, 3)])
def test_the_allocator_sees_what_the_cache_counts(pyramid, shape, depth, subnet_depth, bridge):
    """Where the last scale sets the peak: entries, and one layer joined for the kernel.  Nothing else."""
    plan = DepthPlan.bridge(depth, subnet_depth, bridge, pyramid.num_scales)
    cache = LeanCache(plan, pyramid)
    assert allocator_peak(cache, plan, pyramid, shape) == cache.peak_bytes + cache.scratch_bytes
    assert cache.scratch_bytes == 2 * 4 * shape[0] * shape[1] * shape[2] * pyramid.length  # one layer


def test_the_allocator_where_the_bridge_sets_the_peak():
    """d = 2 of 30: storage kept ready for the scale in flight comes on top, once."""
    plan, shape = DepthPlan.bridge(30, 2, 6, 10), (8, 4, 64)
    cache = LeanCache(plan, VAR_256)
    token_layer = 2 * 4 * shape[0] * shape[1] * shape[2]
    bridge_copy, ready = VAR_256.end(6) * token_layer, VAR_256.tokens(6) * token_layer
    assert allocator_peak(cache, plan, VAR_256, shape) == cache.peak_bytes + bridge_copy + ready
