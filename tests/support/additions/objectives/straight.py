"""Rectified flow with times drawn evenly."""

from typing import Literal

import torch
from torch import Tensor

from models.objectives.base import Noised, ObjectiveConfig, TrainingObjective

QUESTION = "straight paths, even times"


class Config(ObjectiveConfig):
    """No fields of its own."""

    name: Literal["straight"] = "straight"


class Objective(TrainingObjective):
    """Velocity as target."""

    variance_channels = 1

    def __init__(self, config: Config) -> None:
        self.config = config

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, generator=generator)

    def stratified_times(self, count: int) -> Tensor:
        return (torch.arange(count) + 0.5) / count

    def add_noise(self, images: Tensor, noise: Tensor, times: Tensor) -> Noised:
        return Noised(torch.lerp(images, noise, times.view(-1, 1, 1, 1)), 1000.0 * times)

    def loss(self, prediction: Tensor, images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return (prediction - (noise - images)).square().flatten(1).mean(dim=1)
