"""Packing: how far a channel moves, what it depends on, and how many bytes it takes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from varient.kv_scheme import BITS, KVScheme
from varient.models.kv_packing import as_stored, pack, unpack

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def _channels(seed, magnitude=1.0, channels=8):
    """Channels (rows, heads, tokens, c) whose magnitudes differ from token to token."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 5, channels, generator=generator)
    return x * magnitude * torch.logspace(-3, 3, 5)[:, None]


@pytest.mark.parametrize("bits", BITS)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10 ** 6), magnitude=st.floats(1e-20, 1e20))
def test_a_channel_moves_by_half_a_step_at_most(bits, seed, magnitude):
    x = _channels(seed, magnitude)
    packed = pack(x, bits)
    found, step = unpack(packed, bits, torch.float32), packed.factors.float()
    # The largest channel may be cut where bfloat16 rounds the factor down, by 2^-8 at most.
    cut = x.abs().amax(-1, keepdim=True) * 2 ** -8
    assert ((found - x).abs() <= torch.maximum(step / 2, cut) * 1.0001).all()
    assert (step <= x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1) * (1 + 2 ** -8)).all()


@pytest.mark.parametrize("bits", BITS)
def test_every_integer_comes_back(bits):
    """Integers -m..m of a token with m among them have the factor 1."""
    largest = 2 ** (bits - 1) - 1
    x = torch.arange(-largest, largest + 1).repeat(4)[:, None].expand(-1, 8).clone()
    x[:, :4] = x[:, 4:].flip(0)
    x[:, 0] = largest
    for dtype in DTYPES:
        assert torch.equal(as_stored(x.to(dtype), bits), x.to(dtype))


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_bytes_are_those_of_the_cost_model(bits, dtype):
    rows, heads, tokens, channels = 2, 3, 5, 16
    packed = pack(torch.zeros(2, rows, heads, tokens, channels, dtype=dtype), bits)  # key and value
    token_bytes = KVScheme(bits=bits).token_bytes(heads, channels, 2 * dtype.itemsize)
    assert sum(tensor.nbytes for tensor in packed) == rows * tokens * token_bytes


@pytest.mark.parametrize("bits", BITS)
def test_a_token_depends_on_no_other(bits):
    x = _channels(0)
    alone = torch.stack([as_stored(row, bits) for row in x])
    assert torch.equal(as_stored(x, bits), alone)
    x[1, 2, 3] *= 100
    assert torch.equal(as_stored(x, bits)[0], alone[0])
    assert torch.equal(as_stored(x, bits)[1, 2, :3], alone[1, 2, :3])


@pytest.mark.parametrize("bits", BITS)
def test_zeros_stay_zeros_and_what_is_not_finite_stays_so(bits):
    assert torch.equal(as_stored(torch.zeros(2, 8), bits), torch.zeros(2, 8))
    for value in (torch.nan, torch.inf, -torch.inf):
        x = torch.ones(2, 8)
        x[0, 3] = value
        found = as_stored(x, bits)
        assert not found[0].isfinite().all()
        assert found[1].isfinite().all()
