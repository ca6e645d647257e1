"""Images whose pixels are what a network sees."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from harness.data.images import ImageSet, NoiseOf, Pictures
from harness.data.pixels import to_network


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
