"""Classifier-free guidance (Ho and Salimans 2022)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from models.errors import UserError


class Denoiser(Protocol):
    """What sampling needs of a network; `models.backbone.Backbone` has it."""

    null_label: int
    """The label that stands for no class."""
    training: bool

    def __call__(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict from images (B, C, H, W), timesteps (B,) in 0..1000 and labels (B,)."""


class GuidedDenoiser:
    """Predictions moved away from those without a class.

    `unconditional + scale * (conditional - unconditional)`, in one call on 2B images. A scale of 1
    changes nothing and makes one call on B images. The channels that tell the variance are never
    guided, and channels that are not guided keep the conditional prediction.

    Args:
        network: predicts C channels, or 2C where the variance is learned.
        scale: 1 is no guidance, 0 leaves only the unconditional prediction.
        channels: guide only the first ones; None guides all C. The original DiT code guides 3 of 4.
        image_channels: C.

    Raises:
        UserError: more channels to guide than images have.
    """

    def __init__(
        self, network: Denoiser, scale: float, channels: int | None, image_channels: int
    ) -> None:
        if channels is not None and channels > image_channels:
            raise UserError(
                f"sample.guidance_channels is {channels}, but the images have {image_channels}: "
                "lower it, or set it to null to guide all of them"
            )
        self.network = network
        self.scale = scale
        self.channels = image_channels if channels is None else channels

    @property
    def passes(self) -> int:
        """Forward passes of the network that one prediction of one image costs."""
        return 1 if self.scale == 1 else 2

    def __call__(self, images: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        """Predict, with the shapes of `Denoiser`."""
        if self.scale == 1:
            return self.network(images, timesteps, labels)
        nulls = torch.full_like(labels, self.network.null_label)
        both = self.network(
            torch.cat([images, images]),
            torch.cat([timesteps, timesteps]),
            torch.cat([labels, nulls]),
        )
        conditional, unconditional = both.chunk(2)
        guided = torch.lerp(
            unconditional[:, : self.channels], conditional[:, : self.channels], self.scale
        )
        return torch.cat([guided, conditional[:, self.channels :]], dim=1)
