"""Means over the processes that train one network together."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of all processes' tensors, the same on each; itself where a process is alone.

    All processes must call it, with tensors of one shape. No gradient flows through it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def mean_over_processes(values: Tensor) -> Tensor:
    """As `sum_over_processes`, divided by the number of processes."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    return sum_over_processes(values) / dist.get_world_size()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be cut into parts, one a process, put together on each; or itself.

    Of a tensor in parts, all processes must ask at once.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    joined = tensor.full_tensor()
    assert isinstance(joined, torch.Tensor)
    return joined
