"""From what a network draws to images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from harness.config.sections import DataConfig
from harness.data.pixels import to_uint8
from models.errors import UserError

Decoder = Callable[[Tensor], Tensor]
"""(B, C, h, w) of the network to (B, 3, H, W) or (B, 1, H, W) uint8."""


def load_decoder(config: DataConfig, device: torch.device) -> Decoder:
    """The decoder of a data set: rounding, where the network sees pixels.

    Raises:
        UserError: the autoencoder is missing, or is not the one that the latents come from.
    """
    if config.latents is None:
        return to_uint8
    from harness.data.latents.autoencoder import load_autoencoder
    from harness.data.latents.cache import open_cache

    if config.autoencoder is None:
        raise UserError("data.autoencoder is null, but samples of latents must be decoded")
    cache = open_cache(Path(config.latents).expanduser())
    autoencoder = load_autoencoder(config.autoencoder, device)
    if autoencoder.identity != cache.autoencoder_identity:
        raise UserError(
            f"data.autoencoder {config.autoencoder} has the identity "
            f"{autoencoder.identity[:12]}, but the latents in {config.latents} come from "
            f"{cache.autoencoder_identity[:12]}: name the autoencoder that they were encoded with"
        )
    return autoencoder.decode
