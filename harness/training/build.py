"""From a trial's configuration to the network and the LightningModule that it describes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

import torch

from harness.config.schema import TrialConfig
from harness.config.sections import Section, TrainConfig
from models.attention import load_variant
from models.backbone import Backbone, BackboneConfig
from models.diffusion_module import DiffusionModule, Optimization
from models.errors import UserError
from models.objectives import build_objective

TOLERANCE = 0.01
"""How far off a matched network may be, as a part of the reference's parameters."""


def match_parameters(config: BackboneConfig, reference: str) -> BackboneConfig:
    """Widen the feed-forward parts until the parameters are as many as with another attention.

    Attention blocks differ in size, so a variant may win by its parameters alone. All feed-forward
    parts get the same number of further channels inside. FLOPs then differ the other way: a table
    shows both.

    Returns:
        The configuration with another `mlp_ratio`, or an equal one where nothing is missing. The
        reference is an attention variant, whose fields have their defaults.

    Raises:
        UserError: the reference does not fit the network, the network has more parameters already,
            or whole channels do not come within `TOLERANCE` of it.
    """
    told = f"model.match_parameters_of is {reference}"
    attention = load_variant(reference).config.model_validate({"name": reference})
    try:
        wanted = _parameters(config.model_copy(update={"attention": attention}))
    except UserError as error:
        raise UserError(f"{told}: {error}") from error
    own = _parameters(config)
    hidden = round(config.width * config.mlp_ratio)
    per_channel = _parameters(_with_hidden(config, hidden + 1)) - own
    added = max(round((wanted - own) / per_channel), 0)
    reached = own + added * per_channel
    if abs(reached - wanted) <= TOLERANCE * wanted:
        return _with_hidden(config, hidden + added)
    told += f", with which the network has {wanted:,} parameters, but"
    if own > wanted:
        raise UserError(
            f"{told} with {config.attention.name} it has {own:,} already: name the largest variant "
            "of the comparison"
        )
    raise UserError(
        f"{told} the nearest that a wider feed-forward part of {config.attention.name} gives is "
        f"{reached:,}, more than {TOLERANCE:.0%} off"
    )


def _with_hidden(config: BackboneConfig, hidden: int) -> BackboneConfig:
    return config.model_copy(update={"mlp_ratio": hidden / config.width})


def _parameters(config: BackboneConfig) -> int:
    """Counted on a network without memory for its weights."""
    with torch.device("meta"):
        backbone = Backbone(config, seed=0)
    return sum(parameter.numel() for parameter in backbone.parameters())


def backbone_config(
    config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int
) -> BackboneConfig:
    """The network for images (C, H, W) of `num_classes` classes.

    Raises:
        UserError: it cannot have as many parameters as `model.match_parameters_of` asks for.
    """
    model = config.model
    described = BackboneConfig(
        **_shared(model, BackboneConfig.model_fields),
        image_shape=image_shape,
        num_classes=num_classes,
        attention=config.attention,
        variance_channels=build_objective(config.objective).variance_channels,
    )
    if model.match_parameters_of is None:
        return described
    return match_parameters(described, model.match_parameters_of)


def build_backbone(
    config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int
) -> Backbone:
    """The freshly initialised network that `backbone_config` describes."""
    return Backbone(backbone_config(config, image_shape, num_classes), config.seed)


def build_module(
    config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int, sharded: bool = False
) -> DiffusionModule:
    """The LightningModule that trains the network; `sharded` as `DiffusionModule` takes it."""
    backbone = build_backbone(config, image_shape, num_classes)
    backbone.checkpoints_activations = config.train.activation_checkpointing
    shared = _shared(config.train, [field.name for field in fields(Optimization)])
    optimization = Optimization(**shared, label_dropout=config.model.label_dropout)
    objective = build_objective(config.objective)
    return DiffusionModule(backbone, objective, optimization, config.seed, sharded)


def _shared(section: Section, names: Collection[str]) -> dict[str, Any]:
    """The values of a section's fields that are among these names."""
    return {name: value for name, value in section if name in names}


def check_batch(settings: TrainConfig, processes: int) -> None:
    """Raises a UserError where processes and micro-batches cannot share a batch evenly."""
    parts = processes * settings.accumulate
    if settings.batch_size % parts:
        raise UserError(
            f"train.batch_size is {settings.batch_size} images over all processes, which "
            f"{processes} process(es) a trial x {settings.accumulate} micro-batch(es) "
            f"(train.accumulate) cannot share evenly: take a multiple of {parts}, or change one of "
            "the two"
        )
