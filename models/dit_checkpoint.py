"""Weights in the layout of the published DiT checkpoints (facebookresearch/DiT), both ways.

A published file is a plain state dict. It does not say how many heads its attention has; the
paper's sizes in `backbone_sizes.py` do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.attention.softmax import Config as SoftmaxConfig
from models.backbone import Backbone, BackboneConfig
from models.embeddings import position_embedding
from models.errors import UserError

_OUTSIDE = {
    "x_embedder.proj.weight": "patch_embedding.projection.weight",
    "x_embedder.proj.bias": "patch_embedding.projection.bias",
    "t_embedder.mlp.0.weight": "timestep_embedding.hidden.weight",
    "t_embedder.mlp.0.bias": "timestep_embedding.hidden.bias",
    "t_embedder.mlp.2.weight": "timestep_embedding.output.weight",
    "t_embedder.mlp.2.bias": "timestep_embedding.output.bias",
    "y_embedder.embedding_table.weight": "label_embedding.table.weight",
    "final_layer.linear.weight": "final_layer.linear.weight",
    "final_layer.linear.bias": "final_layer.linear.bias",
    "final_layer.adaLN_modulation.1.weight": "final_layer.modulation.linear.weight",
    "final_layer.adaLN_modulation.1.bias": "final_layer.modulation.linear.bias",
}
_IN_BLOCK = {
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.output",
    "mlp.fc1": "feedforward.hidden",
    "mlp.fc2": "feedforward.output",
    "adaLN_modulation.1": "modulation.linear",
}
_POSITIONS = "pos_embed"


def load_dit_state(backbone: Backbone, published: Mapping[str, Tensor]) -> None:
    """Set a backbone's weights from a state dict in the published layout.

    Raises:
        UserError: the backbone is not a DiT, the state dict is not one of DiT, or they differ in
            size; the message names both values.
    """
    _check_is_dit(backbone.config)
    names = _names(backbone.config.depth)
    _check_depth(backbone.config, published)
    expected = {*names, _POSITIONS}
    for problem, keys in (
        ("lacks", expected - published.keys()),
        ("also has", published.keys() - expected),
    ):
        if keys:
            raise UserError(
                f"this is not a DiT checkpoint in the published layout: it {problem} "
                f"{', '.join(sorted(keys)[:5])}"
            )
    _check_sizes(backbone.config, published)
    own = backbone.state_dict()
    for theirs, ours in names.items():
        _check_shape(theirs, published[theirs], own[ours])
    positions = _positions(backbone.config)
    _check_shape(_POSITIONS, published[_POSITIONS], positions)
    if not torch.allclose(published[_POSITIONS].float(), positions, atol=1e-5):
        raise UserError(
            f"{_POSITIONS} of the checkpoint is not DiT's sine-cosine embedding of a grid of "
            f"{backbone.config.grid[0]}x{backbone.config.grid[1]} tokens"
        )
    backbone.load_state_dict({ours: published[theirs] for theirs, ours in names.items()})


def dit_state(backbone: Backbone) -> dict[str, Tensor]:
    """A backbone's weights as a state dict in the published layout; not copied.

    Raises:
        UserError: the backbone is not a DiT.
    """
    _check_is_dit(backbone.config)
    own = backbone.state_dict()
    published = {theirs: own[ours] for theirs, ours in _names(backbone.config.depth).items()}
    return {**published, _POSITIONS: _positions(backbone.config)}


def _names(depth: int) -> dict[str, str]:
    """Published names to ours."""
    return _OUTSIDE | {
        f"blocks.{block}.{theirs}.{kind}": f"blocks.{block}.{ours}.{kind}"
        for block in range(depth)
        for theirs, ours in _IN_BLOCK.items()
        for kind in ("weight", "bias")
    }


def _positions(config: BackboneConfig) -> Tensor:
    return position_embedding(config.width, config.grid)[None]


def _check_is_dit(config: BackboneConfig) -> None:
    facts = {
        "attention.name": (config.attention.name, SoftmaxConfig().name),
        "model.feedforward": (config.feedforward, "mlp"),
        "model.positions": (config.positions, "sincos"),
        "model.qk_norm": (config.qk_norm, False),
        "model.value_convolution.size": (config.value_convolution.size, 0),
    }
    _raise_for_differences("the published layout holds only DiT itself", "DiT", facts)


def _check_depth(config: BackboneConfig, published: Mapping[str, Tensor]) -> None:
    blocks = {key.split(".")[1] for key in published if key.startswith("blocks.")}
    facts = {"model.depth": (config.depth, len(blocks))}
    _raise_for_differences("the checkpoint does not fit this model", "the checkpoint", facts)


def _check_sizes(config: BackboneConfig, published: Mapping[str, Tensor]) -> None:
    width, channels, _, patch = published["x_embedder.proj.weight"].shape
    outputs = published["final_layer.linear.weight"].shape[0]
    facts = {
        "model.width": (config.width, width),
        "model.patch_size": (config.patch_size, patch),
        "image channels": (config.image_shape[0], channels),
        "tokens": (config.grid[0] * config.grid[1], published[_POSITIONS].shape[1]),
        "classes": (
            config.num_classes,
            published["y_embedder.embedding_table.weight"].shape[0] - 1,
        ),
        "predicted channels": (
            config.image_shape[0] * config.variance_channels,
            outputs // patch**2,
        ),
    }
    _raise_for_differences("the checkpoint does not fit this model", "the checkpoint", facts)


def _raise_for_differences(
    problem: str, other: str, facts: Mapping[str, tuple[object, object]]
) -> None:
    """Compare the model's value with the other's, for all facts at once."""
    differences = [
        f"{name} is {ours} here and {theirs} in {other}"
        for name, (ours, theirs) in facts.items()
        if ours != theirs
    ]
    if differences:
        raise UserError(f"{problem}: {'; '.join(differences)}")


def _check_shape(name: str, theirs: Tensor, ours: Tensor) -> None:
    if theirs.shape != ours.shape:
        raise UserError(
            f"the checkpoint does not fit this model: {name} is of shape {tuple(theirs.shape)} "
            f"in the checkpoint and {tuple(ours.shape)} here"
        )
