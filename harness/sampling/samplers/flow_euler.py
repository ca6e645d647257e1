"""Euler's method on the flow ODE dx/ds = v(x, s), from s = 1 to s = 0 in equal steps.

The noise levels are given as 1, (n - 1)/n, ..., 1/n: left to itself, diffusers' scheduler spends
its last evaluation on a step of 1/1000.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor
from typing_extensions import override

from harness.sampling.samplers import base
from models.objectives.flow import Config

QUESTION = "Euler's method on the flow, deterministic, one evaluation a step"
OBJECTIVE = Config


@final
class Sampler(base.Sampler):
    """Uses the predicted velocity."""

    def __init__(self, steps: int, _objective: Config) -> None:
        self._scheduler = FlowMatchEulerDiscreteScheduler()
        self._scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps).tolist())
        self._scheduler.set_begin_index(0)
        self.timesteps = self._scheduler.timesteps

    @override
    def step(
        self, evaluation: int, prediction: Tensor, images: Tensor, streams: list[torch.Generator]
    ) -> Tensor:
        time = self._scheduler.timesteps[evaluation]
        moved: Tensor = self._scheduler.step(prediction, time, images, return_dict=False)[0]
        return moved
