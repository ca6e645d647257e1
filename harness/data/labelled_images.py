"""Images with labels, in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from torch import Tensor

from harness.data.pixel_set import PixelSet


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
