"""Sets of images with labels: what a network sees of them, and how they look.

A network sees pixels as numbers in [-1, 1], or latents of an autoencoder. Metrics and people see
the 256 levels of a pixel. Where both are the same images, a `PixelSet` is both.
"""

from __future__ import annotations

import hashlib
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
        """These images, in this order, to look at and to measure."""

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


def to_network(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) to float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, rounded to the nearest of the 256 levels and clipped.

    `127.5 x + 128` rounded down is `127.5 x + 127.5` rounded to the nearest; it is the exact
    inverse of `level / 127.5 - 1`.
    """
    return (127.5 * images + 128.0).clamp(0, 255).to(torch.uint8)


class PixelSet(ImageSet, Pictures):
    """A set that is its own pictures; whoever keeps them says how they are read."""

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.picture_shape

    @property
    def pictures(self) -> Pictures:
        return self

    def inputs(self, index: Tensor, flips: Tensor, noise_of: NoiseOf) -> Tensor:
        images = self.pixels(index)
        if flips.any():
            images[flips] = images[flips].flip(-1)
        return to_network(images)

    @abstractmethod
    def subset(self, index: Tensor) -> PixelSet: ...


@dataclass(frozen=True)
class LabelledImages(PixelSet):
    """Some of a data set's images; the network sees their pixels."""

    images: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64."""
    class_names: tuple[str, ...]

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        _, channels, rows, columns = self.images.shape
        return channels, rows, columns

    def pixels(self, index: Tensor) -> Tensor:
        return self.images[index]

    def subset(self, index: Tensor) -> LabelledImages:
        return LabelledImages(self.images[index], self.labels[index], self.class_names)

    def fingerprint(self) -> str:
        """SHA-256 of pixels, shape, labels and class names, in hex."""
        digest = hashlib.sha256()
        digest.update(repr((tuple(self.images.shape), self.class_names)).encode())
        digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()
