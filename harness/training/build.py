"""From a configuration to the modules it describes."""

from __future__ import annotations

from harness.config.schema import TrialConfig
from harness.training.parameter_match import match_parameters
from models.backbone import Backbone, BackboneConfig
from models.diffusion_module import DiffusionModule, Optimization
from models.objectives import build_objective


def backbone_config(
    config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int
) -> BackboneConfig:
    """The network for images (C, H, W) of `num_classes` classes.

    Raises:
        UserError: it cannot have as many parameters as `model.match_parameters_of` asks for.
    """
    model = config.model
    described = BackboneConfig(
        image_shape=image_shape,
        num_classes=num_classes,
        depth=model.depth,
        width=model.width,
        heads=model.heads,
        patch_size=model.patch_size,
        feedforward=model.feedforward,
        mlp_ratio=model.mlp_ratio,
        positions=model.positions,
        qk_norm=model.qk_norm,
        value_convolution=model.value_convolution,
        attention=config.attention,
        variance_channels=build_objective(config.objective).variance_channels,
    )
    if model.match_parameters_of is None:
        return described
    return match_parameters(described, model.match_parameters_of)


def build_backbone(
    config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int
) -> Backbone:
    """The freshly initialised network for images (C, H, W) of `num_classes` classes.

    Raises:
        UserError: as `backbone_config`.
    """
    return Backbone(backbone_config(config, image_shape, num_classes), config.seed)


def build_module(
    config: TrialConfig,
    image_shape: tuple[int, int, int],
    num_classes: int,
    sharded: bool = False,
) -> DiffusionModule:
    """The LightningModule that trains it; see there for `sharded`."""
    train = config.train
    backbone = build_backbone(config, image_shape, num_classes)
    backbone.checkpoints_activations = train.activation_checkpointing
    return DiffusionModule(
        backbone,
        build_objective(config.objective),
        Optimization(
            learning_rate=train.learning_rate,
            factor_learning_rate=train.factor_learning_rate,
            warmup_steps=train.warmup_steps,
            betas=train.betas,
            weight_decay=train.weight_decay,
            gradient_clip=train.gradient_clip,
            ema_decay=train.ema_decay,
            label_dropout=config.model.label_dropout,
            batch_size=train.batch_size,
            accumulate=train.accumulate,
        ),
        config.seed,
        sharded,
    )
