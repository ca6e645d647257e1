"""The contract of a feature extractor: a frozen classifier that images are measured with.

An extractor is one module in this package. It defines `load(weights)`, which gives a final subclass
of `FeatureExtractor`, and `check(weights)`, which sees that the weights are there; `weights` is the
file that the user names, or None. Two constants, read without importing the module, tell the
configuration what fits: `WEIGHTS` (`"required"`, `"optional"` or `"refused"`) and, where there are
spatial features, `SPATIAL = True`. A module for a family of extractors such as `torch:MODEL` says
`FAMILY = "torch"`, and both of its functions take `(model, weights)`. With `SIZED = True`, both
take a last argument: the pixels a side that images are resized to, or None for its own choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Extracted(NamedTuple):
    """What a classifier says about B images."""

    features: Tensor
    """(B, D) float32: what the last linear layer sees."""
    logits: Tensor
    """(B, K) float32."""
    spatial: Tensor | None = None
    """(B, S) float32: features that still know where in the image they are; None where the
    extractor has none."""


class FeatureExtractor(nn.Module, ABC):
    """Takes images as they are stored and does its own resizing and normalising.

    All that its figures depend on is named here, since figures of different extractors, weights or
    resizings must never be compared.
    """

    name: str
    """The key in metric names; another one for other weights that go by the same configuration."""
    display: str
    """The name in tables."""
    weights_sha256: str
    """Of the file that the weights come from, in hex."""
    weights_file: Path | None = None
    """The file of weights that a user named, for messages."""
    resize: str
    """How images become the classifier's input, in words."""
    feature_size: int
    """D."""
    classes: int
    """K; 0 for a network without a classifier, which has no Inception-style score."""
    spatial_size: int = 0
    """S; 0 where there are no spatial features."""
    images_on_cpu: int | None = None
    """Images at a time on a CPU; None takes a whole batch. An activation of more than 32 MiB, which
    glibc asks of the system and gives back at every layer, costs up to a third of the time."""

    def forward(self, images: Tensor) -> Extracted:
        """Extract from images (B, H, W, C) uint8 with 1 or 3 channels.

        Raises:
            ValueError: not in eval mode, or the images are of another type or shape.
        """
        if any(module.training for module in self.modules()):
            raise ValueError(f"{self.name} measures in eval mode: call eval() first")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"images must be uint8 (B, H, W, 1 or 3), not {images.dtype} {tuple(images.shape)}"
            )
        at_once = self.images_on_cpu if images.device.type == "cpu" else None
        parts = [self.extract(part) for part in images.split(at_once or len(images))]
        if len(parts) == 1:
            return parts[0]
        spatial = [part.spatial for part in parts if part.spatial is not None]
        return Extracted(
            torch.cat([part.features for part in parts]),
            torch.cat([part.logits for part in parts]),
            torch.cat(spatial) if spatial else None,
        )

    @abstractmethod
    def extract(self, images: Tensor) -> Extracted:
        """What `forward` does, once the images are known to be right."""


def resized(pixels: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Images (B, C, H, W) with half-pixel centres, antialiased only when shrinking."""
    shrinking = any(side > target for side, target in zip(pixels.shape[2:], size, strict=True))
    return F.interpolate(pixels, size, mode=mode, align_corners=False, antialias=shrinking)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm into the convolution right before it.

    The outputs in eval mode stay the same up to rounding. timm's batch norms hold the activation
    that follows as their child `act`, which is kept.
    """
    for parent in list(network.modules()):
        before: nn.Module | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                folded = fuse_conv_bn_eval(before.eval(), child.eval())
                before.weight, before.bias = folded.weight, folded.bias
                setattr(parent, name, dict(child.named_children()).get("act", nn.Identity()))
            before = child
