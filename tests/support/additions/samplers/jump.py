"""A sampler that goes from noise to images in one evaluation."""

import torch

from harness.sampling.samplers.base import Sampler
from models.objectives.base import ObjectiveConfig

NAMES = ("jump",)
OBJECTIVE = "straight"


class Jump(Sampler):
    """Takes the predicted velocity for the whole way."""

    timesteps = torch.tensor([1000.0])

    def step(
        self,
        evaluation: int,
        prediction: torch.Tensor,
        images: torch.Tensor,
        streams: list[torch.Generator],
    ) -> torch.Tensor:
        return images - prediction


def build(name: str, steps: int, objective: ObjectiveConfig) -> Sampler:
    return Jump()
