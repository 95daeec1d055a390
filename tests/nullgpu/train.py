"""`varient` in one of several processes on null GPUs.

NCCL moves nothing there.  Gradients do not matter, but what the processes tell one another does: that goes through
gloo, on CPUs.  What DDP gathers of its own, to see that all have the same network, comes back as zeros and is not
looked at.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from varient.cli import app
from varient.training import distributed


def sum_over_gloo(values: Tensor) -> Tensor:
    """In place of `sum_over_processes`, which goes by way of the GPU."""
    torch.distributed.all_reduce(values)
    return values


if "LOCAL_RANK" in os.environ:
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl")
    distributed.sum_over_processes = sum_over_gloo
    torch.nn.parallel.distributed._verify_param_shape_across_processes = lambda *_: None
torch.backends.cuda.enable_cudnn_sdp(False)  # it compiles graphs for a real device
app()
