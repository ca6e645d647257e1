"""Samplers for networks that predict the noise of a DDPM schedule.

`ddpm`        ancestral sampling with the learned variance, as ADM and DiT do it (Ho et al. 2020,
              algorithm 2; Nichol and Dhariwal 2021, equation 15); stochastic.
`ddim`        DDIM without added noise (Song et al. 2021, equation 12 with eta = 0).
`dpm_solver`  DPM-Solver++(2M), the second-order multistep solver (Lu et al. 2022, algorithm 2),
              good from about 20 evaluations on.

`ddim` is computed as DPM-Solver++ of order 1, which is the same update (Lu et al. 2022): diffusers'
own DDIM scheduler takes the previous timestep to be `t - 1000 // steps`, which is wrong unless the
number of steps divides 1000. Its trailing spacing likewise gives one timestep too many for some
numbers (61 and 103 among them), so the timesteps are worked out here.

The predicted image is never clipped on the way, as in DiT: latents have no fixed range.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, final

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from torch import Tensor
from typing_extensions import override

from harness.sampling.samplers.base import DeterministicSampler, Sampler
from models.errors import UserError
from models.objectives.ddpm import Config

NAMES = ("ddpm", "ddim", "dpm_solver")
OBJECTIVE = "ddpm"


def build(name: str, steps: int, objective: Config) -> Sampler:
    """The sampler of a name; raises a UserError where the schedule has fewer steps."""
    if steps > objective.steps:
        raise UserError(
            f"sample.steps is {steps}, but objective.steps is {objective.steps}: "
            "a sampler cannot visit more steps than the noise schedule has"
        )
    if name == "ddpm":
        return AncestralSampler(steps, objective)
    return DeterministicSampler(_solver(steps, objective, order=1 if name == "ddim" else 2))


@final
class AncestralSampler(Sampler):
    """Draws each step from a Gaussian whose log variance lies between the two extremes of the
    reverse step at the point that the network's second half of channels tells."""

    def __init__(self, steps: int, objective: Config) -> None:
        self._scheduler = DDPMScheduler(
            **_schedule(objective), variance_type="learned_range", clip_sample=False
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


def _schedule(objective: Config) -> dict[str, Any]:
    return {
        "num_train_timesteps": objective.steps,
        "beta_start": objective.beta_start,
        "beta_end": objective.beta_end,
        "beta_schedule": "linear",
        "prediction_type": "epsilon",
    }


def _solver(steps: int, objective: Config, order: int) -> DPMSolverMultistepScheduler:
    """DPM-Solver++ on the probability-flow ODE, which ends at the clean image."""
    scheduler: DPMSolverMultistepScheduler = DPMSolverMultistepScheduler(
        **_schedule(objective),
        algorithm_type="dpmsolver++",
        solver_order=order,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=trailing_timesteps(steps, objective.steps))
    return scheduler


def trailing_timesteps(steps: int, schedule: int) -> list[int]:
    """As many timesteps, spaced evenly and ending one interval before the image: 999, 979, ..., 19
    for 50 of a schedule of 1000. The first is the noisiest, as pure noise demands.

    Source: Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed",
    table 2.
    """
    # Rounded in whole numbers, halves up, so that no step is lost or doubled.
    return [(2 * schedule * (steps - index) + steps) // (2 * steps) - 1 for index in range(steps)]


def respaced_timesteps(steps: int, schedule: int) -> list[int]:
    """As many timesteps, spaced evenly from the noisiest to 0, both included: 999, 995, ..., 4, 0.

    They are those of ADM and DiT, whose strides add up in floating point and are rounded half to
    even. Only where there is a single one do these take 0, from which nothing can be drawn, and we
    the noisiest. Source: Nichol and Dhariwal 2021, section 4; DiT's public code.
    """
    if steps == 1:
        return [schedule - 1]
    stride = (schedule - 1) / (steps - 1)
    # One sum after the other: a product would round otherwise for some numbers of steps.
    return [round(place) for place in accumulate([0.0] + [stride] * (steps - 1))][::-1]
