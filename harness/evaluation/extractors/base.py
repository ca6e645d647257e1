"""The contract of a feature extractor: a frozen classifier that images are measured with.

An extractor is one module in this package. It defines `Extractor`, a final subclass of
`FeatureExtractor` built without arguments, whose `name` is the module's name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Extracted(NamedTuple):
    """What a classifier says about B images."""

    features: Tensor
    """(B, D) float32: what the last linear layer sees."""
    logits: Tensor
    """(B, K) float32."""


class FeatureExtractor(nn.Module, ABC):
    """Takes images as they are stored and does its own resizing and normalising.

    All that its figures depend on is named here, since figures of different extractors, weights or
    resizings must never be compared.
    """

    name: ClassVar[str]
    """The key in configurations and metric names."""
    display: ClassVar[str]
    """The name in tables."""
    weights_sha256: ClassVar[str]
    """Of the file that the weights come from, in hex."""
    resize: ClassVar[str]
    """How images become the classifier's input, in words."""
    feature_size: ClassVar[int]
    """D."""
    classes: ClassVar[int]
    """K."""

    def forward(self, images: Tensor) -> Extracted:
        """Extract.

        Args:
            images: (B, H, W, C) uint8 with 1 or 3 channels.

        Raises:
            ValueError: not in eval mode, or the images are of another type or shape.
        """
        if self.training:
            raise ValueError(f"{self.name} measures in eval mode: call eval() first")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"images must be uint8 (B, H, W, 1 or 3), not {images.dtype} {tuple(images.shape)}"
            )
        return self.extract(images)

    @abstractmethod
    def extract(self, images: Tensor) -> Extracted:
        """What `forward` does, once the images are known to be right."""
