"""Tiny networks, as fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from models.attention.base import ValueConvolutionConfig
from models.attention.softmax import Config as SoftmaxConfig
from models.backbone import Backbone, BackboneConfig


@pytest.fixture(scope="session")
def backbone_config() -> Callable[..., BackboneConfig]:
    """`backbone_config(depth=3)`: a tiny DiT with these fields changed."""
    plain = BackboneConfig(
        image_shape=(4, 8, 8),
        num_classes=10,
        depth=2,
        width=32,
        heads=2,
        patch_size=2,
        feedforward="mlp",
        mlp_ratio=4.0,
        positions="sincos",
        qk_norm=False,
        value_convolution=ValueConvolutionConfig(size=0, initialization="zero"),
        attention=SoftmaxConfig(),
        variance_channels=2,
    )

    def build(**changes: object) -> BackboneConfig:
        return plain.model_copy(update=changes)

    return build


@pytest.fixture(scope="session")
def scrambled_backbone(
    backbone_config: Callable[..., BackboneConfig],
) -> Callable[..., Backbone]:
    """A backbone whose weights are all random, those that start at zero included."""

    def build(**changes: object) -> Backbone:
        backbone = Backbone(backbone_config(**changes), seed=0)
        stream = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=stream))
        return backbone.eval()

    return build
