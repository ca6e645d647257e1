"""Ancestral sampling with the learned variance, as ADM and DiT do it.

The reverse step's log variance lies between its two extremes where the network's second half of
channels says. Sources: Ho et al. 2020, algorithm 2; Nichol and Dhariwal 2021, equation 15.
"""

from __future__ import annotations

from typing import final

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from typing_extensions import override

from harness.sampling.diffusion_timesteps import respaced_timesteps
from harness.sampling.samplers import base
from models.objectives.ddpm import Config

QUESTION = "DDPM ancestral sampling with learned variance, stochastic"
OBJECTIVE = Config


@final
class Sampler(base.Sampler):
    """The predicted image is not clipped on the way, as in DiT: latents have no fixed range."""

    def __init__(self, steps: int, objective: Config) -> None:
        self._scheduler = DDPMScheduler(
            num_train_timesteps=objective.steps,
            beta_start=objective.beta_start,
            beta_end=objective.beta_end,
            beta_schedule="linear",
            prediction_type="epsilon",
            variance_type="learned_range",
            clip_sample=False,
        )
        self._scheduler.set_timesteps(timesteps=respaced_timesteps(steps, objective.steps))
        self.timesteps = self._scheduler.timesteps.float()

    @override
    def step(
        self, evaluation: int, prediction: Tensor, images: Tensor, streams: list[torch.Generator]
    ) -> Tensor:
        time = self._scheduler.timesteps[evaluation]
        result = self._scheduler.step(prediction, time, images, generator=streams)
        # The last mean is the predicted image itself; the scheduler would add noise to it in a
        # walk that does not end at step 0.
        last = evaluation == len(self.timesteps) - 1
        moved: Tensor = result.pred_original_sample if last else result.prev_sample
        return moved
