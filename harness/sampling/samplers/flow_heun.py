"""Heun's second-order method on the flow ODE dx/ds = v(x, s), from s = 1 to s = 0.

n steps are n - 1 Heun steps from 1 to 1/1000 and an Euler step for the rest, so 2n - 1 evaluations.
Here diffusers' own noise levels are kept: an Euler step of 1/n at the end would cost more accuracy
than the nearly empty one does.
"""

from __future__ import annotations

from typing import final

import torch
from diffusers.schedulers.scheduling_flow_match_heun_discrete import (
    FlowMatchHeunDiscreteScheduler,
)
from torch import Tensor
from typing_extensions import override

from harness.sampling.samplers import base
from models.objectives.flow import Config

QUESTION = "Heun's method on the flow, deterministic, two evaluations a step"
OBJECTIVE = Config


@final
class Sampler(base.Sampler):
    """Uses the predicted velocity."""

    def __init__(self, steps: int, _objective: Config) -> None:
        self._scheduler = FlowMatchHeunDiscreteScheduler()
        self._scheduler.set_timesteps(steps)
        self._scheduler.set_begin_index(0)
        self.timesteps = self._scheduler.timesteps

    @override
    def step(
        self, evaluation: int, prediction: Tensor, images: Tensor, streams: list[torch.Generator]
    ) -> Tensor:
        time = self._scheduler.timesteps[evaluation]
        moved: Tensor = self._scheduler.step(prediction, time, images, return_dict=False)[0]
        return moved
