"""Functions of tensors that the host launches as one: captured as a CUDA graph at the first call, then replayed.

A generation launches thousands of small kernels; at small batches a GPU waits for the host to do so.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]


class Replays:
    """Calls functions over buffers that keep their place, one CUDA graph for each key and each shape of the arguments.

    On a CPU there is no graph: the buffers are filled and the function is called.  All graphs share one pool of memory,
    which holds what the largest of them needs; so one must have ended before the next begins, as on one stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._calls: dict[Hashable, _Call] = {}
        self._pool: Any = None

    def __call__(self, key: Hashable, function: Function, *values: Tensor) -> tuple[Tensor, ...]:
        """What the function returns for the values, which are copied to the device.

        Args:
            key: what the function depends on besides the values; a later function of the same key is not looked at.
            function: called with tensors on the device.  It must not wait for the device or read one of its values, and
                the tensors that it refers to must keep their place.
        """
        key = key, tuple((value.shape, value.dtype) for value in values)
        if key not in self._calls:
            if self._pool is None and self._device.type == "cuda":
                self._pool = torch.cuda.graph_pool_handle()
            self._calls[key] = _Call(function, values, self._device, self._pool)
        return self._calls[key](values)

    def __len__(self) -> int:
        """Number of graphs, on a CPU of sets of buffers."""
        return len(self._calls)


class _Call:
    def __init__(self, function: Function, values: tuple[Tensor, ...], device: torch.device, pool: Any) -> None:
        self._function = function
        self._buffers = tuple(value.to(device, copy=True) for value in values)
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._capture(pool)

    def _capture(self, pool: Any) -> None:
        # Libraries set themselves up in first calls, which a capture does not allow.
        side, main = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            for _ in range(2):
                self._function(*self._buffers)
        main.wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool):
            self._outputs = self._function(*self._buffers)

    def __call__(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        for buffer, value in zip(self._buffers, values, strict=True):
            buffer.copy_(value)
        if self._graph is None:
            return self._function(*self._buffers)
        self._graph.replay()
        return tuple(output.clone() for output in self._outputs)  # the next replay overwrites them
