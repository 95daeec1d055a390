"""Memory of this process: bytes of tensors, of the CUDA allocator, and resident memory."""

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
    """Bytes of the parameters and buffers of the given networks."""
    return sum(tensor.numel() * tensor.element_size() for tensor in _stored(networks))


def peak_rss_bytes() -> int | None:
    """Peak resident memory of this process so far, including interpreter and libraries; None if not on Linux.

    Read from /proc, because ``ru_maxrss`` of `getrusage` starts at the size of the parent process.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text("utf-8")) if status.exists() else None
    return int(found[1]) * 1024 if found else None


def cap_allocator(cap_bytes: int, device: torch.device) -> None:
    """Limit the CUDA allocator to ``cap_bytes``, to emulate a smaller GPU.

    The CUDA context (a few hundred MiB, outside the allocator) is not included.

    Raises:
        ValueError: the device is a CPU, or the cap is above the memory of the GPU.
    """
    if device.type != "cuda":
        raise ValueError("a memory cap emulates a smaller GPU and needs one; there is none here")
    total_bytes = torch.cuda.get_device_properties(device).total_memory
    if cap_bytes > total_bytes:
        raise ValueError(f"memory cap {cap_bytes / MIB:.0f} MiB is above the {total_bytes / MIB:.0f} MiB of "
                         f"{torch.cuda.get_device_name(device)}")
    torch.cuda.set_per_process_memory_fraction(cap_bytes / total_bytes, device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error is an out-of-memory error of the GPU or the host.

    PyTorch has an exception type only for the CUDA allocator; other cases are recognised by their messages.
    """
    told = ("DefaultCPUAllocator: can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return (isinstance(error, (torch.OutOfMemoryError, MemoryError))
            or (isinstance(error, RuntimeError) and any(text in str(error) for text in told)))


class MemoryWatch(TorchDispatchMode):
    """Context manager that tracks memory after each operation.  It is slow and must not be active during timing.

    On a CPU it counts the storages of all tensors that operations read or return, each from its first use until it is
    freed; workspace inside a kernel is not counted.  On a GPU it reads the allocator's peak, which includes workspace.

    Args:
        networks: networks whose parameters and buffers are excluded from all counts.

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
    """Counts the bytes of live storages seen so far, except those of the given networks."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        self._alive_bytes = 0
        # The networks' storages are registered with 0 bytes; the references keep their ids from being reused.
        self._kept = [tensor.untyped_storage() for tensor in _stored(networks)]
        self._known: dict[int, weakref.ref | None] = {id(storage): None for storage in self._kept}

    def alive_bytes(self, operands: object) -> int:
        """Live bytes after an operation, including its operands and results."""
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
    """Peak bytes allocated by the CUDA allocator during an operation, except those of the given networks."""

    def __init__(self, networks: Iterable[nn.Module], device: torch.device) -> None:
        self._device = device
        self._stored_bytes = stored_bytes(*networks)
        torch.cuda.reset_peak_memory_stats(device)

    def alive_bytes(self, operands: object) -> int:
        """Peak of the live bytes since the last call."""
        worst_bytes = torch.cuda.max_memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        return worst_bytes - self._stored_bytes


def _stored(networks: Iterable[nn.Module]) -> list[Tensor]:
    return [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
