"""Images that make the loss of the steps that draw them NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.images import ImageSet, NoiseOf, Pictures


class Poisoned(ImageSet):
    """Another set, with NaN for the pixels of some images."""

    def __init__(self, images: ImageSet, bad: list[int]) -> None:
        self.images = images
        self.bad = torch.tensor(bad, dtype=torch.int64)
        self.labels = images.labels
        self.class_names = images.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.images.shape

    @property
    def pictures(self) -> Pictures:
        return self.images.pictures

    def inputs(self, index: Tensor, flips: Tensor, noise_of: NoiseOf) -> Tensor:
        inputs = self.images.inputs(index, flips, noise_of)
        inputs[torch.isin(index, self.bad)] = float("nan")
        return inputs

    def subset(self, index: Tensor) -> ImageSet:
        raise NotImplementedError
