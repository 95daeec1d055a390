"""Memory of this process: tensors counted one by one, the CUDA allocator, and what the operating system sees."""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from varient.cost.sizes import MIB
from varient.systems.protocol import CountedCache

_ATTENTION = "aten::_scaled_dot_product_"


def stored_bytes(*networks: nn.Module) -> int:
    """Bytes of the parameters and buffers of some networks."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _stored(networks))


def peak_rss_bytes() -> int | None:
    """Largest resident memory of this process so far, interpreter and libraries included; None outside Linux.

    From /proc, not from `getrusage`: the latter's ``ru_maxrss`` begins with the size of the process that started this
    one.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text("utf-8")) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def cap_allocator(cap_bytes: int, device: torch.device) -> None:
    """Let the CUDA allocator take no more than ``cap_bytes``, as if the card were smaller.

    The CUDA context (some hundred MiB, outside the allocator) comes on top.

    Raises:
        ValueError: a CPU, or a cap above the card's memory.
    """
    if device.type != "cuda":
        raise ValueError("a memory cap emulates a smaller GPU and needs one; there is none here")
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    if cap_bytes > total_bytes:
        raise ValueError(f"memory cap {cap_bytes / MIB:.0f} MiB is above the {total_bytes / MIB:.0f} MiB of "
                         f"{torch.cuda.get_device_name(device)}")
    torch.cuda.set_per_process_memory_fraction(cap_bytes / total_bytes, device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: the GPU's, or the host's.

    PyTorch has a type of its own for the CUDA allocator alone; other parts tell it in their messages.
    """
    told = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return (isinstance(error, (torch.OutOfMemoryError, MemoryError))
            or (isinstance(error, RuntimeError) and any(text in str(error) for text in told)))


class MemoryWatch(TorchDispatchMode):
    """Follows memory operation by operation while it is entered; slow, so never while something is timed.

    On a CPU it counts the storages of the tensors that operations read and return, each from its first sight until it
    is freed; what a kernel takes and returns within one operation it does not see.  On a GPU it asks the allocator,
    which knows that too.

    Args:
        networks: whose parameters and buffers are left out of all counts.

    Attributes:
        attention: fused kernels of attention that ran, as torch names them; torch chooses by device, dtype and shape.
        cache: the KV cache whose storage the second count leaves out, once there is one.
        peak_bytes: most bytes alive at once.
        peak_beside_cache_bytes: most bytes alive at once that are no storage of ``cache``.
    """

    def __init__(self, networks: Iterable[nn.Module], device: torch.device) -> None:
        super().__init__()
        networks = tuple(networks)
        self._account = AllocatorAccount(networks, device) if device.type == "cuda" else StorageAccount(networks)
        self.attention: set[str] = set()
        self.cache: CountedCache | None = None
        self.peak_bytes = 0
        self.peak_beside_cache_bytes = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = operation(*args, **(kwargs or {}))
        if (name := operation._schema.name).startswith(_ATTENTION):
            self.attention.add(name.removeprefix(_ATTENTION))
        alive_bytes = self._account.alive_bytes((args, kwargs, results))
        self.peak_bytes = max(self.peak_bytes, alive_bytes)
        cached_bytes = self.cache.held_bytes if self.cache else 0
        self.peak_beside_cache_bytes = max(self.peak_beside_cache_bytes, alive_bytes - cached_bytes)
        return results


class StorageAccount:
    """Bytes of the storages seen so far and still alive, those of some networks left out."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self._alive_bytes = 0
        # The networks' own storages are known from the start and cost nothing; the references keep their ids unique.
        self._kept = [tensor.untyped_storage() for tensor in _stored(networks)]
        self._known: dict[int, weakref.ref | None] = {id(storage): None for storage in self._kept}

    def alive_bytes(self, operands: object) -> int:
        """Bytes alive after an operation on, and with, these operands."""
        for tensor in tree_iter(operands):
            if isinstance(tensor, Tensor):
                self._meet(tensor.untyped_storage())
        return self._alive_bytes

    def _meet(self, storage: torch.UntypedStorage) -> None:
        key, size_bytes = id(storage), storage.nbytes()
        if key in self._known:
            return

        def forget(_: weakref.ref) -> None:
            del self._known[key]
            self._alive_bytes -= size_bytes

        self._known[key] = weakref.ref(storage, forget)
        self._alive_bytes += size_bytes


class AllocatorAccount:
    """Bytes that the CUDA allocator hands out at the worst moment of an operation, those of some networks left out."""

    def __init__(self, networks: Iterable[nn.Module], device: torch.device) -> None:
        self._device = device
        self._stored_bytes = stored_bytes(*networks)
        torch.cuda.reset_peak_memory_stats(device)

    def alive_bytes(self, operands: object) -> int:
        """Most bytes alive since the last call."""
        worst_bytes = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return worst_bytes - self._stored_bytes


def _stored(networks: Iterable[nn.Module]) -> list[Tensor]:
    return [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
