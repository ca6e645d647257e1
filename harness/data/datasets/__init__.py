"""Data sets, found by the names of the modules in this package; `base` holds what they share.

A data set is one module with three functions:

- `check(config: DataConfig) -> None` sees without reading an image that the data set is there and
  fits the configuration;
- `content(config: DataConfig) -> str | None` is a hash of all that the network will see, which
  becomes part of the hashes of trials, or None if a library carries the images;
- `load(config: DataConfig) -> DataSet` makes the checks and opens the images.

Its `FIELDS` name those of the fields `manifest` and `latents` that it uses.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from harness.config.load import Ablation
from harness.config.sections import DataConfig
from harness.data.images import DataSet, to_uint8
from harness.machine.files import given_path
from harness.vocabulary.names import short_hash
from models.errors import UserError

Decoder = Callable[[Tensor], Tensor]
"""(B, C, h, w) of the network to (B, 3, H, W) or (B, 1, H, W) uint8."""


def data_content(config: DataConfig) -> str | None:
    """The hash of a data set, once it is seen to be there; asked before any process is started.

    Raises a UserError if it is missing, does not fit the configuration, or is not the one that
    `data.content` asks for.
    """
    module = _module(config)
    module.check(config)
    return _met_content(module, config)


def load_data_set(config: DataConfig) -> DataSet:
    """Read the data set that a configuration names. Raises a UserError if it is missing, does not
    fit the configuration, or is not the one that `data.content` asks for."""
    module = _module(config)
    if config.content is not None:
        _met_content(module, config)
    data_set: DataSet = module.load(config)
    return data_set


def _module(config: DataConfig) -> ModuleType:
    return importlib.import_module(f"{__name__}.{config.name}")


def _met_content(module: ModuleType, config: DataConfig) -> str | None:
    """The hash, which is the one asked for if one is."""
    content: str | None = module.content(config)
    if config.content is not None and content != config.content:
        raise UserError(
            f"data.content is {config.content}, but the data at {config.latents or config.path} "
            f"have {content}: they are not the ones asked for; name those, or set "
            "data.content=null to run anew with these"
        )
    return content


def bind_content(ablation: Ablation) -> Ablation:
    """Fill in `data.content` of every trial from what its paths name. Raises a UserError if data
    are missing, or are not those of a content that was written down."""
    return ablation.with_content(cache(data_content))


def load_decoder(config: DataConfig, device: torch.device) -> Decoder:
    """The decoder of a data set: rounding, if the network sees pixels. Raises a UserError if the
    autoencoder is missing, or is not the one that the latents come from."""
    if config.latents is None:
        return to_uint8
    from harness.data.latents.autoencoder import load_autoencoder
    from harness.data.latents.cache import open_cache

    if config.autoencoder is None:
        raise UserError("data.autoencoder is null, but samples of latents must be decoded")
    made_by = open_cache(given_path(config.latents, "data.latents")).space.identity
    autoencoder = load_autoencoder(config.autoencoder, device)
    if autoencoder.identity != made_by:
        raise UserError(
            f"data.autoencoder {config.autoencoder} has the identity "
            f"{short_hash(autoencoder.identity)}, but the latents in {config.latents} come from "
            f"{short_hash(made_by)}: name the autoencoder that they were encoded with"
        )
    return autoencoder.decode
