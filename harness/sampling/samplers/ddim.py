"""DDIM without added noise (Song et al. 2021, equation 12 with eta = 0).

Computed as DPM-Solver++ of order 1, which is the same update (Lu et al. 2022): diffusers' own DDIM
scheduler takes the previous timestep to be `t - 1000 // steps`, which is wrong unless the number of
steps divides 1000.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from typing_extensions import override

from harness.sampling.multistep_solver import multistep_solver
from harness.sampling.samplers import base
from models.objectives.ddpm import Config

QUESTION = "DDIM, deterministic, one evaluation a step"
OBJECTIVE = Config


@final
class Sampler(base.Sampler):
    """Uses the predicted noise and leaves the predicted variance aside."""

    def __init__(self, steps: int, objective: Config) -> None:
        self._scheduler = multistep_solver(steps, objective, order=1)
        self.timesteps = self._scheduler.timesteps.float()

    @override
    def step(
        self, evaluation: int, prediction: Tensor, images: Tensor, streams: list[torch.Generator]
    ) -> Tensor:
        noise = prediction[:, : images.shape[1]]
        time = self._scheduler.timesteps[evaluation]
        moved: Tensor = self._scheduler.step(noise, time, images, return_dict=False)[0]
        return moved
