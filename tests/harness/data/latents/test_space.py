from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from harness.data.latents.cache import LatentSpace

KL = LatentSpace("0" * 64, "AutoencoderKL", 4, 8, 0.3611, 0.1159, stochastic=True)
DC = replace(KL, class_name="AutoencoderDC", stochastic=False)


def stream() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def moments(*, scale: float = 1.0) -> Tensor:
    """Log-variances of a large scale lie outside of what is allowed."""
    return scale * torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_a_sample_is_that_of_diffusers_distribution_scaled(scale: float) -> None:
    drawn = DiagonalGaussianDistribution(moments(scale=scale)).sample(stream())
    ours = KL.sample(moments(scale=scale), stream())
    torch.testing.assert_close(ours, (drawn - 0.1159) * 0.3611, rtol=0, atol=0)


def test_one_image_is_sampled_as_a_batch_of_one() -> None:
    one = moments()[:1]
    assert torch.equal(KL.sample(one[0], stream()), KL.sample(one, stream())[0])


def test_a_latent_without_a_distribution_is_scaled_and_draws_nothing() -> None:
    untouched = stream()
    latent = torch.randn(4, 5, 5)
    assert torch.equal(DC.sample(latent, untouched), (latent - 0.1159) * 0.3611)
    assert torch.equal(untouched.get_state(), stream().get_state())


def test_the_decoder_takes_what_was_scaled_back_in_its_units() -> None:
    latent = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(DC.unscaled(DC.sample(latent, stream())), latent)
