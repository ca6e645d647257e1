"""One network on several processes: sums and means over them, and weights shared out among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from models.backbone import Backbone


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
    """The mean of all processes' tensors, the same on each; itself where a process is alone.

    All processes must call it, with tensors of one shape. No gradient flows through it.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    return sum_over_processes(values) / dist.get_world_size()


def gathered(tensor: Tensor) -> Tensor:
    """A tensor that may be cut into parts, one a process, put together on each; or itself.

    Of a tensor in parts, all processes must ask at once.
    """
    if not isinstance(tensor, DTensor):
        return tensor
    joined = tensor.full_tensor()
    assert isinstance(joined, torch.Tensor)
    return joined


def shard(backbone: Backbone, mesh: DeviceMesh) -> None:
    """Give each process a part of every parameter; a block's are gathered while it is computed.

    Source: `torch.distributed.fsdp.fully_shard`. The network's forward and backward passes become
    ones that all processes of the mesh must take together. Does nothing a second time.
    """
    if isinstance(backbone, FSDPModule):
        return
    for block in backbone.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(backbone, mesh=mesh)


def reshard(backbone: Backbone) -> None:
    """Drop the whole parameters that a forward pass without gradients left behind.

    A pass with gradients would use them again, and none would reach the parts (seen in PyTorch
    2.14). Does nothing where nothing is shared out.
    """
    if isinstance(backbone, FSDPModule):
        backbone.reshard()
