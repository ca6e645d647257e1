"""Giving every variant of a comparison as many parameters, by a wider feed-forward part.

Attention blocks differ in size, so a variant may win by its parameters alone. Here the feed-forward
parts of the smaller variants get more channels inside, all of them the same number, until the whole
network has as many parameters as with the reference. FLOPs then differ the other way: a table
shows both.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from models.attention import load_variant
from models.backbone import Backbone, BackboneConfig
from models.errors import UserError

TOLERANCE = 0.01
"""Of the reference's parameters; what the matched network may be off."""


def match_parameters(config: BackboneConfig, reference: str) -> BackboneConfig:
    """Widen the feed-forward parts until the parameters are as many as with another attention.

    Args:
        config: of the network to widen.
        reference: an attention variant; its fields have their defaults.

    Returns:
        The configuration with another `mlp_ratio`, or an equal one where nothing is missing.

    Raises:
        UserError: the reference does not fit the network, the network has more parameters already,
            or whole channels do not come within `TOLERANCE` of it.
    """
    attention = load_variant(reference).config.model_validate({"name": reference})
    try:
        wanted = _parameters(replace(config, attention=attention))
    except UserError as error:
        raise UserError(f"model.match_parameters_of is {reference}: {error}") from error
    own = _parameters(config)
    hidden = round(config.width * config.mlp_ratio)
    per_channel = _parameters(_with_hidden(config, hidden + 1)) - own
    added = max(round((wanted - own) / per_channel), 0)
    reached = own + added * per_channel
    if abs(reached - wanted) <= TOLERANCE * wanted:
        return _with_hidden(config, hidden + added)
    if own > wanted:
        raise UserError(
            f"model.match_parameters_of is {reference}, with which the network has {wanted:,} "
            f"parameters, but with {config.attention.name} it has {own:,} already: name the "
            f"largest variant of the comparison"
        )
    raise UserError(
        f"model.match_parameters_of is {reference}, with which the network has {wanted:,} "
        f"parameters, but the nearest that a wider feed-forward part of {config.attention.name} "
        f"gives is {reached:,}, more than {TOLERANCE:.0%} off"
    )


def _with_hidden(config: BackboneConfig, hidden: int) -> BackboneConfig:
    return replace(config, mlp_ratio=hidden / config.width)


def _parameters(config: BackboneConfig) -> int:
    """Counted on a network without memory for its weights."""
    with torch.device("meta"):
        backbone = Backbone(config, seed=0)
    return sum(parameter.numel() for parameter in backbone.parameters())
