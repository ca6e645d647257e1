"""What a training runs on: device, precision, compiled blocks, and several processes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor

from harness.config.schema import TrialConfig
from harness.config.sections import TrainConfig
from harness.data.batches import BatchOrder, DrawnImages, DrawOrder
from harness.data.images import DataSet
from harness.machine.files import read_json, write_json
from harness.processes.group import TIMEOUT, ProcessGroup
from harness.processes.lock import held
from harness.processes.signals import StopRequest
from harness.training.build import build_module
from models.backbone import Backbone
from models.errors import UserError, first_line

Precision = Literal["32-true", "bf16-mixed"]

_ROUNDS = 5
_WORTHWHILE = 1.1
_LOSS_TOLERANCE = 0.05


@dataclass(frozen=True)
class Timing:
    """One training step in both precisions, medians of interleaved rounds."""

    float32_seconds: float
    bf16_seconds: float
    float32_loss: float
    bf16_loss: float

    @property
    def precision(self) -> Precision:
        """bf16-mixed where it is at least 10 % faster and its loss agrees within 5 %."""
        faster = self.float32_seconds > _WORTHWHILE * self.bf16_seconds
        # A loss that is not finite compares false.
        off = abs(self.bf16_loss - self.float32_loss)
        safe = off <= _LOSS_TOLERANCE * abs(self.float32_loss)
        return "bf16-mixed" if faster and safe else "32-true"


def resolve_precision(
    config: TrialConfig, data: DataSet, device: torch.device, decision: Path, stop: StopRequest
) -> Precision:
    """What `train.precision: auto` stands for: bf16-mixed on a GPU; on a CPU the faster one.

    A CPU without instructions for bf16 emulates it, many times slower, and is not measured.

    Args:
        config: of the trial.
        data: that it trains on.
        device: where it runs.
        decision: the file that a measurement is written to. What is there already is taken, so
            that all trials that share the file are trained in the same precision.
        stop: looked at while another process measures.
    """
    if config.train.precision != "auto":
        return config.train.precision
    if device.type == "cuda":
        return "bf16-mixed"
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return "32-true"
    decision.parent.mkdir(parents=True, exist_ok=True)
    with held(decision.with_suffix(".lock"), lambda: stop.check("before its precision was known")):
        if not decision.exists():
            write_json(decision, measure_step(_training_step(config, data)), indent=2)
        return read_json(decision, Timing).precision


def _training_step(config: TrialConfig, data: DataSet) -> Callable[[], Tensor]:
    """The first step's forward and backward pass on a fresh network; returns the loss."""
    module = build_module(config, data.train.shape, len(data.train.class_names))
    order = DrawOrder(len(data.train.labels), config.train.batch_size, config.seed, False)
    (draws,) = BatchOrder(order, 0, 1)
    batch = DrawnImages(data.train, config.seed).__getitems__(draws)

    def step() -> Tensor:
        module.zero_grad(set_to_none=True)
        loss = module.batch_losses(batch).mean()
        loss.backward()
        return loss.detach()

    return step


def measure_step(step: Callable[[], Tensor]) -> Timing:
    """Time a step on the CPU with and without bf16 autocast, in turns, after a warm-up of each."""
    seconds: dict[bool, list[float]] = {False: [], True: []}
    losses: dict[bool, float] = {}
    for _ in range(_ROUNDS + 1):
        for bf16 in (False, True):
            began = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                losses[bf16] = float(step())
            seconds[bf16].append(time.perf_counter() - began)
    float32, half = (statistics.median(seconds[bf16][1:]) for bf16 in (False, True))
    return Timing(float32, half, losses[False], losses[True])


def compile_blocks(backbone: Backbone, device: torch.device) -> None:
    """Compile each block, in place, so that names of parameters stay as they are.

    All blocks have the same code, so the compiler runs once and not once a block. The compiler's
    choice of memory layouts (channels last) is switched off: with it, the convolution of V and two
    heads or more, PyTorch 2.14 writes outside of a buffer on CPUs, and the process is aborted.

    Raises:
        UserError: nothing can be compiled on this machine.
    """
    try:
        # Something tiny: a failure in the middle of a network has pages of text.
        torch.compile(lambda values: (values + values).relu())(torch.ones(8, device=device))
    except Exception as error:
        cause: Exception = error
        if isinstance(error, torch._dynamo.exc.BackendCompilerFailed):
            cause = error.inner_exception
        needed = "Triton" if device.type == "cuda" else "a C++ compiler such as g++"
        raise UserError(
            f"train.compile is true, but torch.compile does not work here (it needs {needed}): "
            f"{first_line(cause)}; install what is missing, or set train.compile=false"
        ) from error
    for block in backbone.blocks:
        block.compile(dynamic=False, options={"layout_optimization": False})


class ConnectedGroup(ClusterEnvironment):
    """Tells Lightning about processes that are connected already, each with one device.

    To Lightning, each process is a node of its own. So it takes the one device that it is told,
    whatever numbers the devices of the others have, and it neither starts processes nor looks for a
    scheduler.
    """

    creates_processes_externally = True
    # Whoever connects the processes asks for these, and they are connected.
    main_address = ""
    main_port = 0

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group

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


def build_strategy(settings: TrainConfig, group: ProcessGroup) -> Strategy | Literal["auto"]:
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
            timeout=TIMEOUT,
        )
        strategy.cluster_environment = environment
        return strategy
    # No buffer changes in training.
    return DDPStrategy(cluster_environment=environment, broadcast_buffers=False, timeout=TIMEOUT)


def is_sharded(settings: TrainConfig, group: ProcessGroup) -> bool:
    """Whether the weights are shared out among the processes."""
    return settings.strategy == "fsdp" and group.size > 1
