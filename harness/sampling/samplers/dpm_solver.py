"""DPM-Solver++(2M): the second-order multistep solver (Lu et al. 2022, algorithm 2)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from harness.sampling.multistep_solver import multistep_solver
from harness.sampling.samplers import base
from models.objectives.ddpm import Config

QUESTION = "DPM-Solver++(2M), deterministic, good from about 20 evaluations on"
OBJECTIVE = Config


@final
class Sampler(base.Sampler):
    """Uses the predicted noise and leaves the predicted variance aside."""

    def __init__(self, steps: int, objective: Config) -> None:
        self._scheduler = multistep_solver(steps, objective, order=2)
        self.timesteps = self._scheduler.timesteps.float()

    @override
    def step(
        self, evaluation: int, prediction: Tensor, images: Tensor, streams: list[torch.Generator]
    ) -> Tensor:
        noise = prediction[:, : images.shape[1]]
        time = self._scheduler.timesteps[evaluation]
        moved: Tensor = self._scheduler.step(noise, time, images, return_dict=False)[0]
        return moved
