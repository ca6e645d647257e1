from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.sampling.sample import GuidedDenoiser
from models.errors import UserError

NULL = 3


class LabelEcho:
    """Predicts images + label in the first half of channels, timestep * label in the second."""

    null_label = NULL
    training = False

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        self.batches.append(len(images))
        value = labels.float().view(-1, 1, 1, 1)
        return torch.cat([images + value, images * 0 + timesteps.view(-1, 1, 1, 1) * value], dim=1)


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    return images, torch.tensor([10.0, 20.0, 30.0]), torch.tensor([0, 1, 2])


def test_scale_one_is_a_single_unguided_call(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    network = LabelEcho()
    guided = GuidedDenoiser(network, 1.0, None, 4)(*inputs)
    assert network.batches == [3]
    assert torch.equal(guided, LabelEcho()(*inputs))


def test_guidance_is_one_call_of_twice_the_batch(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    network = LabelEcho()
    guided = GuidedDenoiser(network, 1.5, None, 4)
    guided(*inputs)
    assert network.batches == [6]
    assert guided.passes == 2


@pytest.mark.parametrize("scale", [0.0, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("channels", [None, 3])
def test_predictions_move_away_from_the_unconditional_ones(
    inputs: tuple[Tensor, Tensor, Tensor], scale: float, channels: int | None
) -> None:
    images, _timesteps, labels = inputs
    guided = GuidedDenoiser(LabelEcho(), scale, channels, 4)(*inputs)
    label = labels.float().view(-1, 1, 1, 1)
    first = 4 if channels is None else channels
    torch.testing.assert_close(
        guided[:, :first], (images + NULL + scale * (label - NULL))[:, :first]
    )
    torch.testing.assert_close(guided[:, first:4], (images + label)[:, first:])


def test_variance_channels_stay_conditional(inputs: tuple[Tensor, Tensor, Tensor]) -> None:
    guided = GuidedDenoiser(LabelEcho(), 4.0, None, 4)(*inputs)
    assert torch.equal(guided[:, 4:], LabelEcho()(*inputs)[:, 4:])


def test_more_guided_channels_than_images_have_are_refused() -> None:
    with pytest.raises(UserError, match=r"sample.guidance_channels is 5"):
        GuidedDenoiser(LabelEcho(), 1.5, 5, 4)
