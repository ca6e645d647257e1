"""The contract of a sampler: how a prediction of the network moves a batch towards images.

A sampler is one module in this package. It defines three names:

`QUESTION`   one line that says what the sampler is,
`OBJECTIVE`  the configuration class of the objective whose predictions it understands,
`Sampler`    a final subclass of `Sampler` built from `(steps, OBJECTIVE)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Sampler(ABC):
    """The walk of one batch from noise to images.

    It holds the state of a diffusers scheduler, so every batch needs one of its own. Starting noise
    has unit variance in all of them.
    """

    timesteps: Tensor
    """What the network is told at each of its E evaluations, (E,) float32 in 0..1000, on the CPU.
    E can exceed the number of steps."""

    @abstractmethod
    def step(
        self,
        evaluation: int,
        prediction: Tensor,
        images: Tensor,
        streams: list[torch.Generator],
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
