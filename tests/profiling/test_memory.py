import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from torch import nn

from varient.profiling.memory import MemoryWatch, cap_allocator, is_out_of_memory, peak_rss_bytes, stored_bytes

CPU = torch.device("cpu")


def _watch(*networks):
    return MemoryWatch(networks, CPU)


def test_tensors_are_counted_while_they_live():
    with _watch() as watch:
        a = torch.zeros(1000)             # 4000 bytes
        b = a + 1                         # 8000
        del a                             # 4000
        view = b.view(10, 100)[2:]        # the same storage
        del b                             # which the view still holds
        c = view.double()                 # 4000 + 8 * 100 * 8
        del view, c
        torch.zeros(1500)                 # 6000: a peak no more
    assert watch.peak_bytes == 4000 + 6400


def test_temporaries_between_operations_count():
    with _watch() as watch:
        x = torch.ones(1000)
        (x + 1) * (x + 2)                 # x, both sums, product
    assert watch.peak_bytes == 4 * 4000


def test_in_place_operations_take_nothing():
    with _watch() as watch:
        x = torch.ones(1000)
        x.add_(1).mul_(2)[:10].zero_()
    assert watch.peak_bytes == 4000


def test_parameters_are_left_out_and_inputs_are_not():
    layer, x = nn.Linear(100, 50).requires_grad_(False), torch.ones(3, 100)
    layer.register_buffer("extra", torch.ones(7))
    with _watch(layer) as watch:
        layer.weight.t() @ torch.ones(50, 2)
        y = layer(x)
        del y
    assert stored_bytes(layer) == 4 * (100 * 50 + 50 + 7)
    assert watch.peak_bytes == max(50 * 2 + 100 * 2, 3 * 100 + 3 * 50) * 4


def test_live_cache_entries_are_told_apart():
    with _watch() as watch:
        watch.cache = SimpleNamespace(held_bytes=0)
        entries = torch.zeros(1000)
        watch.cache.held_bytes = 4000
        torch.zeros(200)                  # the cache and 800 bytes
        watch.cache.held_bytes = 0
        del entries
        torch.zeros(300)
    assert (watch.peak_bytes, watch.peak_beside_cache_bytes) == (4800, 4000)


def test_resident_memory_is_this_process_own():
    ask = "from varient.profiling.memory import peak_rss_bytes; print(peak_rss_bytes())"
    fat = bytearray(b"x") * (3 * 2 ** 29)  # resident here while the other process starts
    result = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=ROOT)
    assert peak_rss_bytes() > len(fat)
    assert 50 * 2 ** 20 < int(result.stdout) < 2 ** 30


def test_what_counts_as_out_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2 ** 48)  # beyond the address space
    assert is_out_of_memory(error.value)
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("CUDA error: out of memory"))


def test_a_cap_needs_a_gpu():
    with pytest.raises(ValueError, match="a memory cap emulates a smaller GPU and needs one"):
        cap_allocator(2 ** 30, CPU)


@pytest.mark.gpu
def test_the_cap_and_the_allocators_account():
    device = torch.device("cuda", 0)
    with pytest.raises(ValueError, match="is above the"):
        cap_allocator(2 ** 50, device)
    with MemoryWatch((), device) as watch:
        before = torch.cuda.memory_allocated(device)
        x = torch.zeros(2 ** 18, device=device)
        x = x + 1
    assert watch.peak_bytes - before == 2 * 2 ** 20
    cap_allocator(2 ** 30, device)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(2 ** 29, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
