"""Which device and precision `auto` stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from harness.config.schema import TrainConfig
from models.errors import UserError

Precision = Literal["32-true", "bf16-mixed"]


@dataclass(frozen=True)
class Hardware:
    """What a trial runs on."""

    device: torch.device
    device_name: str | None
    """The GPU's name; None on a CPU."""
    precision: Precision


def choose_hardware(config: TrainConfig) -> Hardware:
    """Resolve `device: auto` and `precision: auto`.

    `auto` precision is bf16-mixed on a GPU and float32 on a CPU. There it is the faster one as
    well at the sizes a CPU can train: `python -m harness benchmark precision` measures both side
    by side, and docs/benchmarks.md has figures.

    Raises:
        UserError: CUDA is asked for and not there.
    """
    cuda = torch.cuda.is_available()
    if config.device == "cuda" and not cuda:
        raise UserError("train.device is cuda, but this machine has no usable CUDA device")
    on_gpu = cuda and config.device != "cpu"
    precision = config.precision
    if precision == "auto":
        precision = "bf16-mixed" if on_gpu else "32-true"
    if on_gpu:
        return Hardware(torch.device("cuda"), torch.cuda.get_device_name(), precision)
    return Hardware(torch.device("cpu"), None, precision)
