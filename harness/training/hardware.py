"""Which device and precision `auto` stands for."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from filelock import FileLock

from harness.config.sections import TrainConfig
from harness.machine.files import write_text
from models.errors import UserError

Precision = Literal["32-true", "bf16-mixed"]

_ROUNDS = 5
_WORTHWHILE = 1.1
_LOSS_TOLERANCE = 0.05


@dataclass(frozen=True)
class Device:
    """Where a trial runs."""

    device: torch.device
    gpu: str | None
    """The GPU's name; None on a CPU."""


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


def choose_device(config: TrainConfig) -> Device:
    """Resolve `device: auto`: a CUDA device where there is one.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise UserError("train.device is cuda, but this machine has no usable CUDA device")
    if cuda and config.device != "cpu":
        return Device(torch.device("cuda"), torch.cuda.get_device_name())
    return Device(torch.device("cpu"), None)


def choose_precision(
    config: TrainConfig, device: torch.device, step: Callable[[], torch.Tensor], decision: Path
) -> Precision:
    """Resolve `precision: auto`: bf16-mixed on a GPU; on a CPU what is measured to be faster.

    A CPU without instructions for bf16 emulates it, many times slower, and is not measured.

    Args:
        config: of the training.
        device: where it runs.
        step: one forward and backward pass; returns the loss. It must leave no trace.
        decision: the file that a measurement is written to. What is there already is taken, so
            that all trials that share the file are trained in the same precision.
    """
    if config.precision != "auto":
        return config.precision
    if device.type == "cuda":
        return "bf16-mixed"
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return "32-true"
    decision.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(decision.with_suffix(".lock")):
        if not decision.exists():
            timing = measure_step(step)
            write_text(decision, json.dumps(asdict(timing), indent=2) + "\n")
        return Timing(**json.loads(decision.read_text(encoding="utf-8"))).precision


def measure_step(step: Callable[[], torch.Tensor]) -> Timing:
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
