"""DDPM against diffusers' scheduler, and its bound against one written from the definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from models.objectives.ddpm import Config, Objective

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ALPHAS = 1 - BETAS
PRODUCTS = torch.cumprod(ALPHAS, dim=0)


def scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_start=1e-4, beta_end=0.02, variance_type="learned_range")


def draws(times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Images on the grid of 8-bit values, both ends included, noise, and a fair prediction."""
    stream = torch.Generator().manual_seed(0)
    shape = (len(times), 3, 4, 4)
    images = torch.randint(256, shape, generator=stream) / 127.5 - 1
    images[:, 0, 0, 0], images[:, 0, 0, 1] = -1.0, 1.0
    noise = torch.randn(shape, generator=stream)
    predicted_noise = noise + 0.3 * torch.randn(shape, generator=stream)
    fraction = torch.rand(shape, generator=stream) * 2 - 1
    return images, noise, torch.cat([predicted_noise, fraction], dim=1)


def posterior(clean: Tensor, noised: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of `q(x_{t-1} | x_t, x_0)` by Bayes' rule for Gaussians, t > 0."""
    prior_precision = 1 / (1 - PRODUCTS[time - 1])
    likelihood_precision = ALPHAS[time] / BETAS[time]
    variance = 1 / (prior_precision + likelihood_precision)
    weighted = prior_precision * PRODUCTS[time - 1].sqrt() * clean
    weighted = weighted + likelihood_precision * noised / ALPHAS[time].sqrt()
    return variance * weighted, variance


def bound_in_bits(prediction: Tensor, image: Tensor, noise: Tensor, time: int) -> Tensor:
    """One image's term of the variational bound at t > 0, from the definitions."""
    predicted_noise, fraction = prediction.double().chunk(2)
    noised = PRODUCTS[time].sqrt() * image + (1 - PRODUCTS[time]).sqrt() * noise
    clean = (noised - (1 - PRODUCTS[time]).sqrt() * predicted_noise) / PRODUCTS[time].sqrt()
    true_mean, true_variance = posterior(image.double(), noised, time)
    mean, _ = posterior(clean, noised, time)
    share = (fraction + 1) / 2
    variance = torch.exp(share * BETAS[time].log() + (1 - share) * true_variance.log())
    divergence = kl_divergence(
        Normal(true_mean, true_variance.sqrt()), Normal(mean, variance.sqrt())
    )
    return divergence.mean() / math.log(2)


def test_noised_images_are_those_of_diffusers() -> None:
    times = torch.tensor([0, 1, 10, 250, 999])
    images, noise, _ = draws(times)
    noised = Objective(Config()).add_noise(images, noise, times)
    expected = scheduler().add_noise(images, noise, times)
    torch.testing.assert_close(noised.images, expected, rtol=1e-5, atol=1e-5)
    assert noised.timesteps.tolist() == [0, 1, 10, 250, 999]


@pytest.mark.parametrize("time", [1, 2, 50, 500, 999])
def test_posterior_variance_written_here_is_that_of_diffusers(time: int) -> None:
    _, variance = posterior(torch.zeros(()), torch.zeros(()), time)
    expected = scheduler()._get_variance(time, variance_type="fixed_small").item()
    assert variance.item() == pytest.approx(expected, rel=2e-3)


def test_loss_is_the_squared_error_and_the_bound_from_the_definitions() -> None:
    times = torch.tensor([1, 2, 20, 100, 500, 998, 999])
    images, noise, prediction = draws(times)
    loss = Objective(Config()).loss(prediction, images, noise, times)
    for index, time in enumerate(times.tolist()):
        squared = (prediction[index, :3] - noise[index]).square().mean().double()
        bound = bound_in_bits(prediction[index], images[index], noise[index], time)
        assert loss[index].item() == pytest.approx((squared + bound).item(), rel=1e-4)
        assert bound > 1e-6


def test_gradient_of_the_bound_reaches_only_the_variance() -> None:
    times = torch.tensor([1, 100, 999])
    images, noise, prediction = draws(times)
    prediction.requires_grad_()
    loss = Objective(Config()).loss(prediction, images, noise, times).sum()
    (gradient,) = torch.autograd.grad(loss, prediction)
    reference = prediction.detach().requires_grad_()
    bound = sum(
        bound_in_bits(reference[index], images[index], noise[index], time)
        for index, time in enumerate(times.tolist())
    )
    (of_bound,) = torch.autograd.grad(bound, reference)
    of_squares = 2 * (prediction.detach()[:, :3] - noise) / noise[0].numel()
    torch.testing.assert_close(gradient[:, :3], of_squares, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient[:, 3:], of_bound[:, 3:], rtol=1e-3, atol=1e-6)


def test_first_step_is_the_likelihood_of_eight_bit_pixels() -> None:
    times = torch.tensor([0])
    images, noise, prediction = draws(times)
    loss = Objective(Config()).loss(prediction, images, noise, times)
    squared = (prediction[0, :3] - noise[0]).square().mean().item()
    predicted_noise, fraction = prediction[0].double().chunk(2)
    noised = PRODUCTS[0].sqrt() * images[0] + BETAS[0].sqrt() * noise[0]
    # At the first step the mean is the predicted image itself.
    mean = ((noised - BETAS[0].sqrt() * predicted_noise) / PRODUCTS[0].sqrt()).numpy()
    # The posterior has no variance there; it borrows the second step's.
    _, smallest = posterior(torch.zeros(()), torch.zeros(()), 1)
    share = (fraction + 1) / 2
    deviation = torch.exp(0.5 * (share * BETAS[0].log() + (1 - share) * smallest.log())).numpy()
    image = images[0].double().numpy()
    upper = np.where(image > 0.999, np.inf, image + 1 / 255)
    lower = np.where(image < -0.999, -np.inf, image - 1 / 255)
    normal = stats.norm(mean, deviation)
    exact = -np.log2(normal.cdf(upper) - normal.cdf(lower)).mean()
    # DiT's approximation of the normal distribution function is off by some per cent here.
    assert loss.item() == pytest.approx(squared + exact, rel=0.05)

    def approximate(values: np.ndarray) -> np.ndarray:
        z = (values - mean) / deviation
        return (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))) / 2

    upper_part = np.where(image > 0.999, 1.0, approximate(image + 1 / 255))
    lower_part = np.where(image < -0.999, 0.0, approximate(image - 1 / 255))
    bits = -np.log2(np.maximum(upper_part - lower_part, 1e-12)).mean()
    assert loss.item() == pytest.approx(squared + bits, rel=1e-4)


def test_probabilities_of_all_eight_bit_values_sum_to_one() -> None:
    values = torch.linspace(-1, 1, 256)
    images = values.view(-1, 1, 1, 1)
    times = torch.zeros(256, dtype=torch.long)
    # All noised to the same point, from which one and the same mean is predicted.
    root, noise_root = PRODUCTS[0].sqrt().float(), BETAS[0].sqrt().float()
    noise = (0.3 - root * images) / noise_root
    predicted_noise = torch.full_like(images, ((0.3 - root * 0.31) / noise_root).item())
    prediction = torch.cat([predicted_noise, torch.ones_like(images)], dim=1)
    loss = Objective(Config()).loss(prediction, images, noise, times)
    bits = loss.double() - (predicted_noise - noise).square().flatten().double()
    assert (0.5 ** bits.clamp(0, 60)).sum().item() == pytest.approx(1.0, abs=0.02)


def test_perfect_prediction_with_the_smallest_variance_costs_nothing() -> None:
    times = torch.tensor([1, 500, 999])
    images, noise, _ = draws(times)
    prediction = torch.cat([noise, -torch.ones_like(noise)], dim=1)
    loss = Objective(Config()).loss(prediction, images, noise, times)
    assert loss.abs().max().item() < 1e-5


def test_stratified_times_cover_all_steps_evenly() -> None:
    objective = Objective(Config())
    assert objective.stratified_times(1000).tolist() == list(range(1000))
    assert objective.stratified_times(2000).bincount().tolist() == [2] * 1000
    assert objective.stratified_times(4).tolist() == [125, 375, 625, 875]


def test_drawn_times_are_uniform_over_the_steps() -> None:
    times = Objective(Config(steps=10)).draw_times(100_000, torch.Generator().manual_seed(0))
    counts = times.bincount(minlength=10)
    assert len(counts) == 10
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
