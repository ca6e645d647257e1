"""DPM-Solver++ on the probability-flow ODE of a DDPM schedule (Lu et al. 2022).

Order 1 is DDIM without noise, order 2 is the usual multistep solver.
"""

from __future__ import annotations

from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler

from harness.sampling.diffusion_timesteps import trailing_timesteps
from models.objectives.ddpm import Config


def multistep_solver(steps: int, objective: Config, order: int) -> DPMSolverMultistepScheduler:
    """A scheduler that expects the predicted noise alone and ends at the clean image.

    The predicted image is not clipped on the way, as in DiT: latents have no fixed range.
    """
    scheduler: DPMSolverMultistepScheduler = DPMSolverMultistepScheduler(
        num_train_timesteps=objective.steps,
        beta_start=objective.beta_start,
        beta_end=objective.beta_end,
        beta_schedule="linear",
        prediction_type="epsilon",
        algorithm_type="dpmsolver++",
        solver_order=order,
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(timesteps=trailing_timesteps(steps, objective.steps))
    scheduler.set_begin_index(0)
    return scheduler
