"""Conversion between exported models and the layout of DiT's checkpoints (facebookresearch/DiT).

A published file is a plain state dict. It does not say how many heads its attention has; the
paper's sizes, `BACKBONE_SIZES` in `models/backbone.py`, do.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.machine.files import atomic_path
from harness.training.export import export_model, load_exported
from models.attention.base import ValueConvolutionConfig
from models.attention.softmax import Config as SoftmaxConfig
from models.backbone import BACKBONE_SIZES, Backbone, BackboneConfig
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


_SAFETENSORS = ".safetensors"

_PICKLED = (".pt", ".pth")

_PREFIXES = ("module.", "_orig_mod.")
"""What wrappers for parallel and compiled training put before every name."""


def convert(source: Path, out: Path, heads: int | None) -> None:
    """Convert a published checkpoint to an exported model, or an exported model to such a file.

    Args:
        source: a file (`.pt`, `.pth` or `.safetensors`), or the folder of an exported model.
        out: the folder, or the file, to write.
        heads: of the published network, which its file does not say; None looks its width and depth
            up among DiT's sizes.

    Raises:
        UserError: the source is neither, is of another variant or size than DiT's, or `out` exists.
    """
    if heads is not None and heads < 1:
        raise UserError(f"--heads is {heads}, but must be 1 or more")
    if source.is_dir():
        _check_suffix(out, "write")
        if out.exists():
            raise UserError(f"{out} exists already: name another file, or remove it")
        write_published(load_exported(source), out)
    elif source.is_file():
        export_model(read_published(source, heads), out, None)
    else:
        raise UserError(f"there is no checkpoint or exported model {source}")


def read_published(path: Path, heads: int | None) -> Backbone:
    """The network of a published checkpoint, in evaluation mode. Its EMA weights where it has some.

    Raises:
        UserError: the file cannot be read or is not a DiT checkpoint, or the heads are not known.
    """
    state = _state(path)
    try:
        backbone = Backbone(_config(state, heads), seed=0)
        load_dit_state(backbone, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return backbone.eval()


def write_published(backbone: Backbone, path: Path) -> None:
    """Write a DiT as a plain state dict in the published layout.

    Raises:
        UserError: the backbone is not a DiT.
    """
    _check_suffix(path, "write")
    state = {name: value.contiguous() for name, value in dit_state(backbone).items()}
    with atomic_path(path) as temporary:
        if path.suffix == _SAFETENSORS:
            save_file(state, temporary)
        else:
            torch.save(state, temporary)


def _check_suffix(path: Path, verb: str) -> None:
    suffixes = (*_PICKLED, _SAFETENSORS)
    if path.suffix not in suffixes:
        raise UserError(f"cannot {verb} {path}: expected a name that ends in {', '.join(suffixes)}")


def _state(path: Path) -> dict[str, Tensor]:
    _check_suffix(path, "read")
    loaded: Any
    try:
        if path.suffix == _SAFETENSORS:
            loaded = load_file(path)
        else:
            # DiT's training script keeps its arguments beside the weights; they hold no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file makes the readers raise almost anything.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} cannot be read as weights alone: {reason}") from error
    for wrapped in ("ema", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapped), dict):
            loaded = loaded[wrapped]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise UserError(f"{path} is not a state dict: names and tensors, or those under ema, model")
    for prefix in _PREFIXES:
        if loaded and all(str(name).startswith(prefix) for name in loaded):
            loaded = {name.removeprefix(prefix): value for name, value in loaded.items()}
    return loaded


def _config(state: Mapping[str, Tensor], heads: int | None) -> BackboneConfig:
    """What the shapes say about the network."""
    width, channels, patch, _ = _shape(state, "x_embedder.proj.weight", 4)
    _, tokens, _ = _shape(state, "pos_embed", 3)
    rows, _ = _shape(state, "y_embedder.embedding_table.weight", 2)
    outputs, _ = _shape(state, "final_layer.linear.weight", 2)
    hidden, _ = _shape(state, "blocks.0.mlp.fc1.weight", 2)
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise UserError(f"expected a square grid of tokens, but pos_embed has {tokens}")
    predicted = outputs // patch**2
    if predicted not in (channels, 2 * channels):
        raise UserError(
            f"expected {channels} predicted channels, or {2 * channels} with a learned variance, "
            f"but final_layer.linear.weight makes {predicted}"
        )
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    return BackboneConfig(
        image_shape=(channels, side * patch, side * patch),
        num_classes=rows - 1,
        depth=depth,
        width=width,
        heads=_heads(width, depth) if heads is None else heads,
        patch_size=patch,
        feedforward="mlp",
        mlp_ratio=hidden / width,
        positions="sincos",
        qk_norm=False,
        value_convolution=ValueConvolutionConfig(size=0, initialization="zero"),
        attention=SoftmaxConfig(),
        variance_channels=predicted // channels,
    )


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    tensor = state.get(name)
    if tensor is None or tensor.dim() != dimensions:
        found = "is missing" if tensor is None else f"has {tensor.dim()}"
        raise UserError(
            f"this is not a DiT checkpoint in the published layout: expected {name} with "
            f"{dimensions} dimensions, but it {found}"
        )
    return tuple(tensor.shape)


def _heads(width: int, depth: int) -> int:
    for size in BACKBONE_SIZES.values():
        if (size.width, size.depth) == (width, depth):
            return size.heads
    raise UserError(
        f"a checkpoint does not say how many heads its attention has, and a width of {width} with "
        f"{depth} blocks is none of DiT's sizes: name them with --heads"
    )
