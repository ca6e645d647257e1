"""Rectified flow: a straight path from image to noise, and its velocity as target.

`x_t = (1 - t) x_0 + t eps`, the network predicts `eps - x_0`, and t is the logistic function of a
normal draw. Source: Liu et al. 2022; Esser et al. 2024 for the logit-normal times.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.objectives.base import Noised, ObjectiveConfig, TrainingObjective


class Config(ObjectiveConfig):
    """The logit-normal distribution of times; SD3 found mean 0 and standard deviation 1 best."""

    name: Literal["flow"] = "flow"
    logit_mean: float = 0.0
    logit_std: float = Field(default=1.0, gt=0)


class Objective(TrainingObjective):
    """Times are in (0, 1); the network is told 1000 t."""

    variance_channels = 1

    def __init__(self, config: Config) -> None:
        self.config = config

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(count, generator=generator)
        return torch.sigmoid(self.config.logit_mean + self.config.logit_std * normal)

    def stratified_times(self, count: int) -> Tensor:
        quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        normal = torch.special.ndtri(quantiles)
        return torch.sigmoid(self.config.logit_mean + self.config.logit_std * normal).float()

    def add_noise(self, images: Tensor, noise: Tensor, times: Tensor) -> Noised:
        weight = times.view(-1, 1, 1, 1)
        return Noised(torch.lerp(images, noise, weight), 1000.0 * times)

    def loss(self, prediction: Tensor, images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return (prediction - (noise - images)).square().flatten(1).mean(dim=1)
