"""Between the 256 levels of an image and the numbers of a network."""

from __future__ import annotations

import torch
from torch import Tensor


def to_network(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) to float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, rounded to the nearest of the 256 levels and clipped.

    `127.5 x + 128` rounded down is `127.5 x + 127.5` rounded to the nearest; it is the exact
    inverse of `level / 127.5 - 1`.
    """
    return (127.5 * images + 128.0).clamp(0, 255).to(torch.uint8)
