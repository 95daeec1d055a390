"""Processes, devices and precision of a training, based on `accelerate`.

The global batch of a step is divided into (processes x gradient accumulation steps) equal parts.  Losses and gradients
are averaged over the parts, so that the batch size and the expected update do not depend on the hardware.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType, GradientAccumulationPlugin, broadcast_object_list
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from varient.config import Precision
from varient.models.float32 import keep_float32
from varient.training.hardware import Device, Hardware, accumulation_steps

T = TypeVar("T")
_AUTOCAST = {"fp32": "no", "fp16": "fp16", "bf16": "bf16"}


@dataclass(frozen=True)
class Part:
    """One of ``count`` equal slices of a step's global batch, in the order of the batch."""

    index: int = 0
    count: int = 1
    seed: int = 0
    device: torch.device | str = "cpu"

    def rows(self, *whole: Tensor) -> tuple[Tensor, ...]:
        """This part's rows of tensors (B, ...) of the whole batch, on the device of the network.

        Call it once in a loss function, after all random numbers for the whole batch (dropped labels, choice of the
        subnet) are drawn, which must be the same in all parts.  It reseeds torch's generator for this part, so that
        later random numbers (stochastic depth) differ between the parts.

        Raises:
            ValueError: the parts would not be equal.
        """
        for tensor in whole:
            if len(tensor) % self.count:
                raise ValueError(f"a batch of {len(tensor)} rows cannot be cut into {self.count} equal parts")
        if self.count > 1:
            # torch's CPU generator uses only 32 bits of a seed, so all inputs are mixed first.
            stream = np.random.SeedSequence([self.seed, self.index]).generate_state(1)
            torch.manual_seed(int(stream[0]))
        slices = (slice(self.index * len(t) // self.count, (self.index + 1) * len(t) // self.count) for t in whole)
        return tuple(tensor[chosen].to(self.device) for tensor, chosen in zip(whole, slices, strict=True))


def is_main_process() -> bool:
    """Whether this process writes the files; always true without a launcher."""
    if PartialState._shared_state:
        return PartialState().is_main_process
    return int(os.environ.get("RANK", "0")) == 0


def started_processes() -> int:
    """Number of processes that a launcher started, 1 without one; known before the process group is initialised."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def from_main_process(function: Callable[[], T]) -> T:
    """Call a function in the main process only and return its result in all processes; exceptions are raised in all.

    A collective operation: all processes must call it.

    Args:
        function: its result must be picklable.
    """
    told: list[Any] = [None, None]
    if is_main_process():
        try:
            told[0] = function()
        except (OSError, ValueError) as error:
            told[1] = error
    broadcast_object_list(told)
    result, raised = told
    if raised is not None:
        raise raised
    return result


def check_start(batch_size: int, precision: Precision, title: str) -> None:
    """Check the environment before weights are loaded or images listed.

    Raises:
        ValueError: invalid VARIENT_ variables, missing or unsuitable hardware, or the number of processes does not
            divide the batch.
    """
    hardware = Hardware.from_environment()
    _check(hardware, precision)
    accumulation_steps(batch_size, started_processes(), hardware.micro_batch, title)


@contextmanager
def processes(hardware: Hardware, precision: Precision, model: nn.Module) -> Iterator[Accelerator]:
    """The processes that a launcher started (torchrun, accelerate launch), or this one alone.

    Raises:
        ValueError: hardware that is not there or cannot do what is asked.
    """
    _check(hardware, precision)
    plugin = _sharding(model) if hardware.strategy == "fsdp" else None
    accelerator = Accelerator(
        cpu=hardware.device == "cpu", mixed_precision=_AUTOCAST[precision], fsdp_plugin=plugin,
        # Passed as a plugin, because accelerate's environment variables override a plain number.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # A view of DDP's buckets: gradients are not held a second time.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True)])
    ended_well = False
    try:
        if accelerator.device.type != hardware.device:
            raise ValueError(f"device = {hardware.device}, but accelerate's configuration chose {accelerator.device}")
        if plugin and accelerator.distributed_type == DistributedType.MULTI_CPU:
            # accelerate enables FSDP only on GPUs, although FSDP2 also works with gloo.
            accelerator.state.fsdp_plugin = plugin
            accelerator.state.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # as accelerate does on GPUs
        yield accelerator
        ended_well = True
    finally:
        # accelerate's state is global; the next training in this process may have another precision.
        if plugin:
            os.environ.pop("ACCELERATE_USE_FSDP", None)
        alone = accelerator.num_processes == 1
        if plugin and not alone:
            PartialState._shared_state["distributed_type"] = (
                DistributedType.MULTI_CPU if hardware.device == "cpu" else DistributedType.MULTI_GPU)
        AcceleratorState._reset_state(reset_partial_state=alone)
        GradientState._reset_state()
        atexit.unregister(_leave)
        if ended_well and not alone:  # after an error in this process only, the others would not join the barrier
            atexit.register(_leave)


def check_device(device: Device) -> None:
    """See that a device is there for each of this machine's processes, and have it compute float32 as such.

    Raises:
        ValueError: torch sees no GPU, or fewer than there are processes.
    """
    if device == "cpu":
        return
    if not torch.cuda.is_available():
        raise ValueError("device = cuda: torch sees no GPU here")
    here, there_are = int(os.environ.get("LOCAL_WORLD_SIZE") or 1), torch.cuda.device_count()
    if here > there_are:
        raise ValueError(f"device = cuda: {here} processes were started here, and torch sees {there_are} GPUs")
    keep_float32()  # of the tokenizer


def _check(hardware: Hardware, precision: Precision) -> None:
    check_device(hardware.device)
    if hardware.strategy == "fsdp" and started_processes() == 1:
        raise ValueError("strategy = fsdp needs at least 2 processes (torchrun --nproc-per-node 2 ...)")
    if hardware.device == "cpu" and precision == "fp16":
        raise ValueError("precision = fp16 needs a GPU (VARIENT_DEVICE=cuda); on a CPU train in fp32 or bf16")
    for name, strategy in (("FSDP", "fsdp"), ("DEEPSPEED", None), ("MEGATRON_LM", None)):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() == "true" and hardware.strategy != strategy:
            hint = "; for FSDP set VARIENT_STRATEGY=fsdp instead" if strategy else ""
            raise ValueError(f"accelerate's configuration asks for {name}, which is not supported here"
                             f"{hint}")


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _sharding(model: nn.Module) -> FullyShardedDataParallelPlugin:
    """FSDP2 plugin with one unit for each child of a block, because children may be called outside the block."""
    children = {type(child).__name__ for block in blocks(model) for child in block.children()
                if any(parameter.ndim > 1 for parameter in child.parameters())}
    return FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=sorted(children),
        # Weights, gradients and reductions stay float32, with autocast for the computation, as under DDP.
        mixed_precision_policy=MixedPrecisionPolicy(), cpu_ram_efficient_loading=False, reshard_after_forward=True)


def blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The repeated blocks of a network: its ``blocks``.

    Raises:
        ValueError: the network has no such list.
    """
    if not isinstance(getattr(model, "blocks", None), nn.ModuleList):
        raise ValueError(f"{type(model).__name__} has no list of 'blocks' to shard or to recompute")
    return list(model.blocks)


@contextmanager
def recomputed(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Enable activation checkpointing of modules: they store only their inputs and are recomputed in the backward pass.
    """
    for module in modules:
        module.forward = partial(checkpoint, module.forward, use_reentrant=False)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # restores the method of the class


class Objective(nn.Module):
    """Module that wraps a network and runs a function of it, so that DDP, FSDP and autocast see a single forward pass.

    The functions refer to the unwrapped network.
    """

    def __init__(self, model: nn.Module, accelerator: Accelerator) -> None:
        super().__init__()
        self.model, self.autocast = model, accelerator.autocast

    def forward(self, function: Callable[..., Tensor], *args: object) -> Tensor:
        with self.autocast():  # accelerate adds autocast under DDP, but not under FSDP
            return function(*args).float()


def whole(value: Any) -> Any:
    """Gather all sharded tensors of a nested state on the CPU of the main process; other processes get None for each.

    A collective operation: all processes must call it.
    """
    if isinstance(value, DTensor):
        piece = value.full_tensor()  # one at a time, so that the device holds at most one full tensor
        return piece.cpu() if is_main_process() else None
    if isinstance(value, dict):
        return type(value)((key, whole(item)) for key, item in value.items())
    return [whole(item) for item in value] if isinstance(value, list) else value


def sharded_like(optimizer: torch.optim.Optimizer, state: dict) -> dict:
    """Shard an optimizer's state dict of full tensors in the same way as its parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    cut = {}
    for index, entries in state["state"].items():
        like = parameters[index]
        cut[index] = {name: distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
                      if isinstance(like, DTensor) and value.shape == like.shape else value
                      for name, value in entries.items()}
    return {**state, "state": cut}


def return_to_cpu(model: nn.Module) -> None:
    """Move a network to the CPU and gather its shards.  After FSDP it can be saved, but no longer run."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        model.to("cpu")
        return
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if isinstance(parameter, DTensor):
                module._parameters[name] = nn.Parameter(parameter.detach().full_tensor().cpu(),
                                                        requires_grad=parameter.requires_grad)
        for name, buffer in list(module._buffers.items()):
            module._buffers[name] = buffer if buffer is None else buffer.cpu()


def sum_over_processes(values: Tensor) -> Tensor:
    """Elementwise sum (float64, on the CPU) of a tensor that every process has."""
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        values = values.to(PartialState().device)
        torch.distributed.all_reduce(values)
    return values.cpu()
