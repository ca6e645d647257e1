"""Sharing the weights of a network out among processes (FSDP2)."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from models.backbone import Backbone


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


def let_go(backbone: Backbone) -> None:
    """Drop the whole parameters that a forward pass without gradients left behind.

    A pass with gradients would use them again, and none would reach the parts (seen in PyTorch
    2.14). Does nothing where nothing is shared out.
    """
    if isinstance(backbone, FSDPModule):
        backbone.reshard()
