"""Solvers of the flow ODE dx/ds = v(x, s), from noise at s = 1 to the image at s = 0.

`flow_euler`  Euler's method: n equal steps, one evaluation of the network each. Its noise levels
              are given as 1, (n - 1)/n, ..., 1/n, since diffusers' scheduler, left to itself,
              spends its last evaluation on a step of 1/1000.
`flow_heun`   Heun's second-order method: n - 1 Heun steps from 1 to 1/1000 and an Euler step for
              the rest, 2n - 1 evaluations. Here diffusers' own noise levels are kept, since an
              Euler step of 1/n at the end would cost more accuracy than the nearly empty one does.
              Two steps would be a single Heun step over the whole path, whose second slope is taken
              where the first one is worst: on images they are worse than one step of Euler's.
"""

from __future__ import annotations

import numpy as np
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_flow_match_heun_discrete import FlowMatchHeunDiscreteScheduler

from harness.sampling.samplers.base import DeterministicSampler, Sampler
from models.errors import UserError
from models.objectives.flow import Config

NAMES = ("flow_euler", "flow_heun")
OBJECTIVE = "flow"
FEWEST_STEPS = {"flow_heun": 3}


def build(name: str, steps: int, _objective: Config) -> Sampler:
    """The sampler of a name; raises a UserError for fewer steps than the method needs."""
    if steps < FEWEST_STEPS.get(name, 1):
        raise UserError(
            f"sample.sampler {name} needs {FEWEST_STEPS[name]} steps or more, not {steps}"
        )
    if name == "flow_heun":
        heun = FlowMatchHeunDiscreteScheduler()
        heun.set_timesteps(steps)
        return DeterministicSampler(heun)
    euler = FlowMatchEulerDiscreteScheduler()
    euler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps).tolist())
    return DeterministicSampler(euler)
