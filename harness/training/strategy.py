"""How Lightning spreads a training over the processes of a group."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import (
    DDPStrategy,
    ModelParallelStrategy,
    Strategy,
)

from harness.config.sections import TrainConfig
from harness.processes.group import TIMEOUT, ProcessGroup


class ConnectedGroup(ClusterEnvironment):
    """Tells Lightning about processes that are connected already, each with one device.

    To Lightning, each process is a node of its own. So it takes the one device that it is told,
    whatever numbers the devices of the others have, and it neither starts processes nor looks for a
    scheduler: those are not its business.
    """

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise RuntimeError("the processes are connected already")

    @property
    def main_port(self) -> int:
        raise RuntimeError("the processes are connected already")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.group.size

    def set_world_size(self, size: int) -> None:
        assert size == self.group.size

    def global_rank(self) -> int:
        return self.group.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self.group.rank

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.group.rank


def build_strategy(
    settings: TrainConfig,
    group: ProcessGroup,
    timeout: timedelta = TIMEOUT,
) -> Strategy | Literal["auto"]:
    """For `train.strategy`, which a process that trains alone has no use for."""
    if group.size == 1:
        return "auto"
    environment = ConnectedGroup(group)
    if settings.strategy == "fsdp":
        strategy = ModelParallelStrategy(
            data_parallel_size=group.size,
            tensor_parallel_size=1,
            # One file of whole tensors, which any number of processes can resume from.
            save_distributed_checkpoint=False,
            timeout=timeout,
        )
        strategy.cluster_environment = environment
        return strategy
    # No buffer changes in training.
    return DDPStrategy(cluster_environment=environment, broadcast_buffers=False, timeout=timeout)


def shards(settings: TrainConfig, group: ProcessGroup) -> bool:
    """Whether the weights are shared out among the processes."""
    return settings.strategy == "fsdp" and group.size > 1
