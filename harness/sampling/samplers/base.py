"""What a sampler is: how predictions of the network move a batch from noise to images.

A module in this package holds one family of samplers. It defines three names:

`NAMES`      the names that `sample.sampler` may have, a tuple of literals,
`OBJECTIVE`  the name of the objective whose predictions these samplers understand, a literal,
`build`      `(name, steps, objective)` to a `Sampler`, with the objective's configuration.

The first two are read without importing the module, so that a configuration can be checked quickly.
So is `FEWEST_STEPS`, where there is one: names to the least `sample.steps` that they can take.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol, final

import torch
from torch import Tensor
from typing_extensions import override


class Sampler(ABC):
    """The walk of one batch from noise of unit variance to images.

    It keeps the state of the walk, so every batch needs a sampler of its own.
    """

    timesteps: Tensor
    """What the network is told at each of its E evaluations, (E,) float32 in 0..1000, on the CPU.
    E can exceed the number of steps."""

    @abstractmethod
    def step(
        self, evaluation: int, prediction: Tensor, images: Tensor, streams: list[torch.Generator]
    ) -> Tensor:
        """Move the batch on by one evaluation of the network.

        Args:
            evaluation: 0, 1, ..., E - 1, each once and in this order.
            prediction: of the network for `images` at `timesteps[evaluation]`,
                (B, C, H, W), or (B, 2C, H, W) where the variance is learned.
            images: (B, C, H, W), the starting noise or what the previous step returned.
            streams: the B sources of fresh noise, one a sample, for samplers that add any.

        Returns:
            (B, C, H, W); after the last evaluation these are the images.
        """


class Scheduler(Protocol):
    """What `DeterministicSampler` needs of a scheduler of diffusers."""

    @property
    def timesteps(self) -> Tensor: ...

    def set_begin_index(self, begin_index: int) -> None:
        """Say which evaluation is the first, instead of looking its timestep up."""

    def step(self, prediction: Any, timestep: Any, images: Any, *, return_dict: bool) -> Any: ...


@final
class DeterministicSampler(Sampler):
    """Follows a scheduler of diffusers that adds no noise and has its timesteps set; a predicted
    variance is left aside."""

    def __init__(self, scheduler: Scheduler) -> None:
        scheduler.set_begin_index(0)
        self._scheduler = scheduler
        self.timesteps = scheduler.timesteps.float()

    @override
    def step(
        self, evaluation: int, prediction: Tensor, images: Tensor, streams: list[torch.Generator]
    ) -> Tensor:
        time = self._scheduler.timesteps[evaluation]
        predicted = prediction[:, : images.shape[1]]
        moved: Tensor = self._scheduler.step(predicted, time, images, return_dict=False)[0]
        return moved
