"""What training, validation and evaluation need of a set of images, wherever it is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NoiseOf = Callable[[int], torch.Generator]
"""The random stream of a row of a batch; only sets whose inputs are random draw from it."""


class Pictures(ABC):
    """Images as one looks at them."""

    labels: Tensor
    """(N,) int64."""
    class_names: tuple[str, ...]

    @property
    @abstractmethod
    def picture_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of an image."""

    @abstractmethod
    def pixels(self, index: Tensor) -> Tensor:
        """Some of the images.

        Args:
            index: (B,) int64.

        Returns:
            (B, C, H, W) uint8, a copy that the caller may change.

        Raises:
            UserError: an image is missing or is not the one it should be.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digits; equal only for equal images in equal order."""

    @abstractmethod
    def subset(self, index: Tensor) -> Pictures:
        """Some of the images, in the order of `index` (M,)."""


class ImageSet(ABC):
    """Images as a network sees them: pixels, or latents of an autoencoder."""

    labels: Tensor
    """(N,) int64."""
    class_names: tuple[str, ...]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of what the network sees of an image."""

    @property
    @abstractmethod
    def pictures(self) -> Pictures:
        """The same images, in the same order, to look at and to measure."""

    @abstractmethod
    def inputs(self, index: Tensor, flips: Tensor, noise_of: NoiseOf) -> Tensor:
        """What the network sees of some of the images.

        Args:
            index: (B,) int64.
            flips: (B,) bool, which of them are mirrored left to right.
            noise_of: the stream that a row's latent is sampled with.

        Returns:
            (B, C, H, W) float32, about unit scale.

        Raises:
            UserError: an image or latent is missing or damaged.
        """

    @abstractmethod
    def subset(self, index: Tensor) -> ImageSet:
        """Some of the images, in the order of `index` (M,)."""


@dataclass(frozen=True)
class DataSet:
    """The two parts of a data set; the split does not depend on a trial's seed."""

    train: ImageSet
    held_out: ImageSet
    title: str
    """What tables call it, with its version where it has one, such as `sub-in-100/v1`."""


def unflipped(index: Tensor) -> Tensor:
    """The flips that mirror none of the images of `index` (B,)."""
    return torch.zeros(len(index), dtype=torch.bool)
