"""The contract of a training objective: noise an image, score a prediction.

An objective is one module in this package. It defines two names:

`Config`     a frozen `ObjectiveConfig` whose `name` is the module's name,
`Objective`  a `TrainingObjective` built from that `Config`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor


class ObjectiveConfig(BaseModel):
    """Fields that only one objective has; `name` is the module's name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str

    def most_sampler_steps(self) -> int | None:
        """The most steps that a sampler can take; None where there is no limit."""
        return None


@dataclass(frozen=True)
class Noised:
    """A noised batch, ready for the network."""

    images: Tensor
    """x_t, (B, C, H, W)."""
    timesteps: Tensor
    """What the network is told, (B,), in 0..1000."""


class TrainingObjective(ABC):
    """Noising and loss; holds no parameters of the network.

    `variance_channels` is how many times C channels the network predicts: 1, or 2 where the
    variance is learned.
    """

    variance_channels: int

    @abstractmethod
    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Random training times, (count,), in the objective's own unit."""

    @abstractmethod
    def stratified_times(self, count: int) -> Tensor:
        """Fixed times, (count,), spread evenly over the distribution that training draws from."""

    @abstractmethod
    def add_noise(self, images: Tensor, noise: Tensor, times: Tensor) -> Noised:
        """x_t of images and noise, both (B, C, H, W), at times (B,)."""

    @abstractmethod
    def loss(self, prediction: Tensor, images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The loss of each image, (B,); `prediction` is (B, variance_channels * C, H, W)."""
