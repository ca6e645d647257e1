"""Denoising diffusion with a learned variance, as DiT trains.

1000 steps with a linear beta; the network predicts the noise and, in a second half of its channels,
where between the two extreme variances the reverse step lies. The loss is the mean squared error of
the noise plus the variational bound with the mean detached, in bits a dimension and without the
factor 1/1000. Source: Nichol and Dhariwal 2021, equations 14 to 16; DiT's public code.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from models.objectives.base import Noised, ObjectiveConfig, TrainingObjective


class Config(ObjectiveConfig):
    """The noise schedule."""

    name: Literal["ddpm"] = "ddpm"
    steps: int = Field(default=1000, ge=2, le=1000)
    beta_start: float = Field(default=1e-4, gt=0, lt=1)
    beta_end: float = Field(default=0.02, gt=0, lt=1)

    def most_sampler_steps(self) -> int:
        return self.steps


class Objective(TrainingObjective):
    """Times are whole steps 0..steps-1 and are what the network is told."""

    variance_channels = 2

    def __init__(self, config: Config) -> None:
        self.steps = config.steps
        betas = torch.linspace(
            config.beta_start, config.beta_end, config.steps, dtype=torch.float64
        )
        alphas = 1.0 - betas
        products = alphas.cumprod(dim=0)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), products[:-1]])
        posterior = betas * (1.0 - previous) / (1.0 - products)
        # The posterior variance is 0 at the first step; its logarithm borrows the second's.
        posterior[0] = posterior[1]
        # Rooted in double precision: in single, 1 - product has four digits left at the first step.
        self._signal = products.sqrt()
        self._noise = (1.0 - products).sqrt()
        self._clean_weight = betas * previous.sqrt() / (1.0 - products)
        self._noisy_weight = (1.0 - previous) * alphas.sqrt() / (1.0 - products)
        self._smallest_log_variance = posterior.log()
        self._largest_log_variance = betas.log()

    def draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.steps, (count,), generator=generator)

    def stratified_times(self, count: int) -> Tensor:
        quantiles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return (quantiles * self.steps).long()

    def add_noise(self, images: Tensor, noise: Tensor, times: Tensor) -> Noised:
        signal = _at(self._signal, times, images)
        noised = signal * images + _at(self._noise, times, images) * noise
        return Noised(noised, times.to(images.dtype))

    def loss(self, prediction: Tensor, images: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        predicted_noise, fraction = prediction.float().chunk(2, dim=1)
        squared = (predicted_noise - noise).square().flatten(1).mean(dim=1)
        bound = self._variational_bound(predicted_noise.detach(), fraction, images, noise, times)
        return squared + bound

    def _variational_bound(
        self, predicted: Tensor, fraction: Tensor, images: Tensor, noise: Tensor, times: Tensor
    ) -> Tensor:
        """One term of the bound, (B,), in bits a dimension."""
        at = partial(_at, times=times, like=images)
        noised = self.add_noise(images, noise, times).images
        clean = (noised - at(self._noise) * predicted) / at(self._signal)
        clean_weight, noisy_weight = at(self._clean_weight), at(self._noisy_weight)
        true_mean = clean_weight * images + noisy_weight * noised
        mean = clean_weight * clean + noisy_weight * noised
        smallest, largest = at(self._smallest_log_variance), at(self._largest_log_variance)
        share = (fraction + 1.0) / 2.0
        log_variance = share * largest + (1.0 - share) * smallest
        divergence = _gaussian_divergence(true_mean, smallest, mean, log_variance)
        likelihood = -_discretized_log_likelihood(images, mean, log_variance)
        nats = torch.where(times == 0, likelihood, divergence)
        return nats / math.log(2.0)


def _at(table: Tensor, times: Tensor, like: Tensor) -> Tensor:
    """Entries of a (steps,) table at (B,) times, as (B, 1, 1, 1)."""
    return table.to(like.device)[times].to(like.dtype).view(-1, 1, 1, 1)


def _gaussian_divergence(
    mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor
) -> Tensor:
    """KL divergence of two diagonal Gaussians, (B,), averaged over dimensions, in nats."""
    difference = other_log_variance - log_variance
    divergence = 0.5 * (
        difference
        - 1.0
        + torch.exp(-difference)
        + (mean - other_mean).square() * torch.exp(-other_log_variance)
    )
    return divergence.flatten(1).mean(dim=1)


def _discretized_log_likelihood(images: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of the 8-bit bin of each pixel, (B,), averaged over dimensions, in nats.

    The normal distribution function is approximated by a tanh, as in DiT: it is off by at most
    4e-4, and the term of a bin by some per cent.
    """
    scale = torch.exp(-0.5 * log_variance)
    half_bin = 1.0 / 255.0
    upper = _approximate_ndtr((images - mean + half_bin) * scale)
    lower = _approximate_ndtr((images - mean - half_bin) * scale)
    # The outermost bins reach to infinity.
    upper = torch.where(images > 0.999, torch.ones_like(upper), upper)
    lower = torch.where(images < -0.999, torch.zeros_like(lower), lower)
    return (upper - lower).clamp_min(1e-12).log().flatten(1).mean(dim=1)


def _approximate_ndtr(values: Tensor) -> Tensor:
    """The standard normal distribution function by a tanh (Page 1977), as ADM and DiT do."""
    return 0.5 * (1 + torch.tanh((2 / math.pi) ** 0.5 * (values + 0.044715 * values**3)))
