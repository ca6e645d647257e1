"""Rectified flow against diffusers' scheduler."""

from __future__ import annotations

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from scipy import stats
from torch import Tensor

from models.objectives.flow import Config, Objective


def images_and_noise(batch: int = 5) -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    pair = torch.randn(2, batch, 3, 4, 4, generator=stream)
    return pair[0], pair[1]


def scheduler() -> FlowMatchEulerDiscreteScheduler:
    made = FlowMatchEulerDiscreteScheduler()
    made.set_timesteps(5)
    return made


def test_noised_images_and_timesteps_are_those_of_diffusers() -> None:
    images, noise = images_and_noise()
    theirs = scheduler()
    noised = Objective(Config()).add_noise(images, noise, theirs.timesteps / 1000)
    torch.testing.assert_close(noised.timesteps, theirs.timesteps)
    torch.testing.assert_close(noised.images, theirs.scale_noise(images, theirs.timesteps, noise))


def test_following_the_target_velocity_stays_on_the_path_down_to_the_image() -> None:
    images, noise = images_and_noise()
    theirs = scheduler()
    objective = Objective(Config())
    velocity = noise - images
    assert not objective.loss(velocity, images, noise, torch.rand(5)).any()
    sample = noise
    for step, timestep in enumerate(theirs.timesteps):
        times = (timestep / 1000).expand(5)
        torch.testing.assert_close(sample, objective.add_noise(images, noise, times).images)
        sample = theirs.step(velocity, timestep, sample).prev_sample
        assert step < 5
    torch.testing.assert_close(sample, images, rtol=1e-5, atol=1e-5)


def test_loss_is_the_mean_squared_error_of_each_image() -> None:
    images, noise = images_and_noise()
    prediction = noise - images
    prediction[1] += 2.0
    prediction[3, 0] += 3.0
    loss = Objective(Config()).loss(prediction, images, noise, torch.rand(5))
    torch.testing.assert_close(loss, torch.tensor([0.0, 4.0, 0.0, 3.0, 0.0]))


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (-0.5, 1.4)])
def test_drawn_and_stratified_times_are_logit_normal(mean: float, std: float) -> None:
    objective = Objective(Config(logit_mean=mean, logit_std=std))
    stream = torch.Generator().manual_seed(0)
    drawn = objective.draw_times(4000, stream)
    assert stats.kstest(drawn.logit().numpy(), stats.norm(mean, std).cdf).pvalue > 0.01
    quantiles = stats.norm(mean, std).cdf(objective.stratified_times(100).double().logit().numpy())
    assert quantiles == pytest.approx([(i + 0.5) / 100 for i in range(100)], abs=1e-4)


def test_times_depend_on_the_generator_alone() -> None:
    objective = Objective(Config())
    first = objective.draw_times(8, torch.Generator().manual_seed(3))
    assert torch.equal(first, objective.draw_times(8, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, objective.draw_times(8, torch.Generator().manual_seed(4)))
