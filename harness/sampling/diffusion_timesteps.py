"""Which of a DDPM schedule's steps a sampler visits, for any number of them.

diffusers' own spacings do not serve every number: its DDIM assumes that the number divides 1000,
and its trailing spacing gives one timestep too many for some numbers (61 and 103 among them).
"""

from __future__ import annotations

import numpy as np

from models.errors import UserError


def trailing_timesteps(steps: int, schedule: int) -> list[int]:
    """Evenly spaced and ending one interval before the image: 999, 979, ..., 19 for 50 of 1000.

    The first is the noisiest, as pure noise demands. Source: Lin et al. 2023, "Common diffusion
    noise schedules and sample steps are flawed", table 2.

    Raises:
        UserError: more steps than the schedule has.
    """
    _check(steps, schedule)
    # Rounded in whole numbers, halves up, so that no step is lost or doubled.
    return [(2 * schedule * (steps - index) + steps) // (2 * steps) - 1 for index in range(steps)]


def respaced_timesteps(steps: int, schedule: int) -> list[int]:
    """Evenly spaced from the noisiest step to step 0, both included: 999, 995, ..., 4, 0.

    How ADM and DiT respace a schedule for ancestral sampling. Source: Nichol and Dhariwal 2021,
    section 4.

    Raises:
        UserError: more steps than the schedule has.
    """
    _check(steps, schedule)
    return [int(time) for time in np.linspace(schedule - 1, 0, steps).round()]


def _check(steps: int, schedule: int) -> None:
    if steps > schedule:
        raise UserError(
            f"sample.steps is {steps}, but objective.steps is {schedule}: "
            "a sampler cannot visit more steps than the noise schedule has"
        )
