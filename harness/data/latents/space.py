"""The latents of an autoencoder: their shape, their scale, and how one is sampled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.errors import UserError

_LEAST_LOG_VARIANCE, _GREATEST_LOG_VARIANCE = -30.0, 20.0
"""As in diffusers' `DiagonalGaussianDistribution`."""


@dataclass(frozen=True)
class LatentSpace:
    """What an autoencoder says of its latents."""

    identity: str
    """SHA-256 of configuration and weights, in hex."""
    class_name: str
    """Of the autoencoder, in diffusers."""
    latent_channels: int
    """C."""
    downsampling: int
    """Pixels a side of one latent."""
    scaling_factor: float
    """A network sees (latent - shift_factor) * scaling_factor."""
    shift_factor: float
    """In the autoencoder's own units."""
    stochastic: bool
    """Whether it gives mean and log-variance of a latent, or the latent itself."""

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """C, h and w of the latent of a square image.

        Raises:
            UserError: the side is not a multiple of the downsampling.
        """
        if resolution < 1 or resolution % self.downsampling:
            raise UserError(
                f"the resolution is {resolution}, but this {self.class_name} needs a multiple of "
                f"{self.downsampling}"
            )
        side = resolution // self.downsampling
        return self.latent_channels, side, side

    def moments_shape(self, resolution: int) -> tuple[int, int, int]:
        """C', h and w of what is encoded: C' is 2C where the autoencoder is stochastic, or C.

        Raises:
            UserError: as `latent_shape`.
        """
        channels, rows, columns = self.latent_shape(resolution)
        return channels * (2 if self.stochastic else 1), rows, columns

    def sample(self, moments: Tensor, generator: torch.Generator) -> Tensor:
        """A latent as a network sees it.

        Args:
            moments: (..., C', h, w), mean and log-variance, or the latent itself, unscaled.
            generator: of the moments' device; draws nothing where there is nothing to draw.

        Returns:
            (..., C, h, w).
        """
        if not self.stochastic:
            return self._scaled(moments)
        mean, log_variance = moments.chunk(2, dim=-3)
        log_variance = log_variance.clamp(_LEAST_LOG_VARIANCE, _GREATEST_LOG_VARIANCE)
        noise = torch.randn(
            mean.shape, generator=generator, dtype=mean.dtype, device=generator.device
        )
        return self._scaled(mean + torch.exp(0.5 * log_variance) * noise)

    def unscaled(self, latents: Tensor) -> Tensor:
        """What a network sees, as the autoencoder's decoder takes it."""
        return latents / self.scaling_factor + self.shift_factor

    def _scaled(self, latents: Tensor) -> Tensor:
        return (latents - self.shift_factor) * self.scaling_factor
