"""Conversion between exported models and the layout of DiT's checkpoints (facebookresearch/DiT).

A published file is a plain state dict. It does not say how many heads its attention has; the
paper's sizes, `BACKBONE_SIZES` in `models/backbone.py`, do.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.machine.files import atomic_path, known_kind, refused_object
from harness.training.export import export_model, load_exported, shape_difference
from models.attention.base import ValueConvolutionConfig
from models.attention.softmax import Config as SoftmaxConfig
from models.backbone import BACKBONE_SIZES, Backbone, BackboneConfig
from models.embeddings import position_embedding
from models.errors import UserError, one_line

_OUTSIDE = {
    "x_embedder.proj": "patch_embedding.projection",
    "t_embedder.mlp.0": "timestep_embedding.hidden",
    "t_embedder.mlp.2": "timestep_embedding.output",
    "final_layer.linear": "final_layer.linear",
    "final_layer.adaLN_modulation.1": "final_layer.modulation.linear",
}

_IN_BLOCK = {
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.output",
    "mlp.fc1": "feedforward.hidden",
    "mlp.fc2": "feedforward.output",
    "adaLN_modulation.1": "modulation.linear",
}

_POSITIONS = "pos_embed"
_SAFETENSORS = ".safetensors"
SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", _SAFETENSORS)
"""Of files that are read and written; all but the last are pickles of `torch.save`."""
_WRAPPERS = ("ema", "state_dict", "model")
"""Keys under which training scripts keep weights; of several, the first is taken."""
_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What wrappers for parallel, compiled and Lightning's training put before every name."""
_NOT_DIT = "this is not a DiT checkpoint in the published layout"


def dit_network(published: Mapping[str, Tensor], heads: int | None) -> Backbone:
    """The network of a state dict in the published layout, in evaluation mode.

    Args:
        published: names to tensors; their shapes say what the network is.
        heads: of its attention; None looks its width and depth up among DiT's sizes.

    Raises:
        UserError: the state dict is not one of DiT, holds numbers that are not finite, or the heads
            are not known.
    """
    for name, tensor in published.items():
        dense = tensor.layout is torch.strided and tensor.device.type == "cpu"
        # A small file may claim a huge expanded tensor.
        whole = dense and tensor.untyped_storage().nbytes() >= tensor.nbytes
        if not (whole and tensor.is_floating_point()):
            raise UserError(f"{name} is no dense tensor of floating-point numbers")
        if broken := int((~_widened(name, tensor).isfinite()).sum()):
            raise UserError(
                f"{broken} of {tensor.numel()} numbers of {name} are not finite: its training had "
                "diverged, or the file is damaged; take another checkpoint"
            )
    config = _config(published, heads)
    names, positions = _names(config.depth), position_embedding(config.width, config.grid)[None]
    # Without memory, since sizes that do not fit together may be large.
    with torch.device("meta"):
        own = Backbone(config, seed=0).state_dict()
    shapes = {theirs: own[ours].shape for theirs, ours in names.items()}
    shapes[_POSITIONS] = positions.shape
    if wrong := shape_difference(published, shapes):
        raise UserError(f"{_NOT_DIT}: {wrong}")
    stored = published[_POSITIONS]
    # Rounded to the type that they are stored in.
    rounding = max(1e-5, torch.finfo(stored.dtype).eps)
    if not torch.allclose(stored.float(), positions, rtol=0.0, atol=rounding):
        raise UserError(
            f"{_POSITIONS} of the checkpoint is not DiT's sine-cosine embedding of a grid of "
            f"{config.grid[0]}x{config.grid[1]} tokens"
        )
    backbone = Backbone(config, seed=0)
    backbone.load_state_dict({ours: published[theirs] for theirs, ours in names.items()})
    return backbone.eval()


def _widened(name: str, tensor: Tensor) -> Tensor:
    """A tensor of floating-point numbers in a type that PyTorch computes with, which those of eight
    bits are not."""
    try:
        return tensor if tensor.dtype.itemsize > 1 else tensor.float()
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{name} is {str(tensor.dtype).removeprefix('torch.')}, which PyTorch does not convert "
            "to float32: save it in float32, float16 or bfloat16"
        ) from error


def dit_state(backbone: Backbone) -> dict[str, Tensor]:
    """A backbone's weights as a state dict in the published layout; not copied.

    Raises:
        UserError: the backbone is not a DiT.
    """
    config, own = backbone.config, backbone.state_dict()
    facts = {
        "attention.name": (config.attention.name, SoftmaxConfig().name),
        "model.feedforward": (config.feedforward, "mlp"),
        "model.positions": (config.positions, "sincos"),
        "model.qk_norm": (config.qk_norm, False),
        "model.value_convolution.size": (config.value_convolution.size, 0),
    }
    differences = [
        f"{name} is {ours} here and {theirs} in DiT"
        for name, (ours, theirs) in facts.items()
        if ours != theirs
    ]
    if differences:
        raise UserError(f"the published layout holds only DiT itself: {'; '.join(differences)}")
    published = {theirs: own[ours] for theirs, ours in _names(config.depth).items()}
    return {**published, _POSITIONS: position_embedding(config.width, config.grid)[None]}


def _names(depth: int) -> dict[str, str]:
    """Published names to ours."""
    layers = _OUTSIDE | {
        f"blocks.{block}.{theirs}": f"blocks.{block}.{ours}"
        for block in range(depth)
        for theirs, ours in _IN_BLOCK.items()
    }
    names = {
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in layers.items()
        for kind in ("weight", "bias")
    }
    return {**names, "y_embedder.embedding_table.weight": "label_embedding.table.weight"}


def convert(source: Path, out: Path, heads: int | None) -> str:
    """Convert a published checkpoint to an exported model, or an exported model to such a file.

    Args:
        source: a file with one of `SUFFIXES`, or the folder of an exported model.
        out: the folder, or the file, to write.
        heads: of the published network, which its file does not say; None looks its width and depth
            up among DiT's sizes.

    Returns:
        What was read, in one line: classes, images, patches, blocks, width, heads and, of a
        checkpoint, which entry of the file holds these weights.

    Raises:
        UserError: the source is neither, is of another variant or size than DiT's, holds numbers
            that are not finite, or `out` exists.
    """
    if heads is not None and heads < 1:
        raise UserError(f"--heads is {heads}, but must be 1 or more")
    if source.is_dir():
        _check_suffix(out, "write")
        if out.exists():
            raise UserError(f"{out} exists already: name another file, or remove it")
        backbone, weights = load_exported(source), ""
        state = {name: value.contiguous() for name, value in dit_state(backbone).items()}
        with atomic_path(out) as temporary:
            if out.suffix == _SAFETENSORS:
                save_file(state, temporary)
            else:
                torch.save(state, temporary)
    elif source.is_file():
        backbone, entry = read_published(source, heads)
        weights = f"; weights: entry {entry} of the file" if entry else "; weights: the whole file"
        export_model(backbone, out, None)
    else:
        raise UserError(f"there is no checkpoint or exported model {source}")
    config = backbone.config
    shape = "x".join(map(str, config.image_shape))
    return (
        f"{config.num_classes} classes, images of {shape} in patches of {config.patch_size}, "
        f"{config.depth} blocks of width {config.width}, {config.heads} heads{weights}"
    )


def read_published(path: Path, heads: int | None) -> tuple[Backbone, str]:
    """The network of a published checkpoint, in evaluation mode. Its EMA weights where it has some.

    Returns:
        The network, and the entry of the file that holds these weights, such as `ema` or
        `model.state_dict`; empty where the file holds nothing else.

    Raises:
        UserError: the file cannot be read or is not a DiT checkpoint, or the heads are not known.
    """
    state, entry = _state(path)
    try:
        return dit_network(state, heads), entry
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _check_suffix(path: Path, verb: str) -> None:
    if path.suffix not in SUFFIXES:
        raise UserError(f"cannot {verb} {path}: expected a name that ends in {', '.join(SUFFIXES)}")


def _state(path: Path) -> tuple[dict[str, Tensor], str]:
    """The weights of a file by their names without prefixes, and the entry that holds them."""
    _check_suffix(path, "read")
    loaded: Any
    try:
        if path.suffix == _SAFETENSORS:
            loaded = load_file(path)
        else:
            # DiT's training script keeps its arguments beside the weights; they hold no code.
            arguments = torch.serialization.safe_globals([argparse.Namespace])
            with arguments, warnings.catch_warnings():
                # Sparse tensors are refused below, in words that say which.
                warnings.filterwarnings("ignore", "Validating sparse tensor", UserWarning)
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file makes the readers raise almost anything.
    except Exception as error:
        raise UserError(f"{path} cannot be read as weights alone: {_why(path, error)}") from error
    entry = []
    while isinstance(loaded, dict) and (
        keys := [key for key in _WRAPPERS if isinstance(loaded.get(key), dict)]
    ):
        entry.append(keys[0])
        loaded = loaded[keys[0]]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in loaded.items()
    ):
        raise UserError(
            f"{path} is not a state dict: names and tensors, or those under {', '.join(_WRAPPERS)}"
        )
    state: dict[str, Tensor] = loaded
    while state and (prefixes := [p for p in _PREFIXES if all(n.startswith(p) for n in state)]):
        state = {name.removeprefix(prefixes[0]): value for name, value in state.items()}
    return state, ".".join(entry)


def _why(path: Path, error: Exception) -> str:
    """Why a file cannot be read, without PyTorch's advice to run what is in it."""
    if (refused := refused_object(error)) is not None:
        return f"it holds {refused}; expected a state dictionary"
    if (kind := known_kind(path)) is not None:
        return f"it is {kind}"
    if path.suffix != _SAFETENSORS and not isinstance(error, OSError | RuntimeError):
        return "it is no file of torch.save, or is damaged; write or fetch it again"
    return one_line(error, most=300)


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
    if not width or not patch:
        raise UserError(f"{_NOT_DIT}: its width is {width} and its patches are of {patch}")
    predicted = outputs // patch**2
    if predicted not in (channels, 2 * channels):
        raise UserError(
            f"expected {channels} predicted channels, or {2 * channels} with a learned variance, "
            f"but final_layer.linear.weight makes {predicted}"
        )
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    sizes = {(size.width, size.depth): size.heads for size in BACKBONE_SIZES.values()}
    heads = sizes.get((width, depth)) if heads is None else heads
    if heads is None:
        raise UserError(
            f"a checkpoint does not say how many heads its attention has, and a width of {width} "
            f"with {depth} blocks is none of DiT's sizes: name them with --heads"
        )
    try:
        return BackboneConfig(
            image_shape=(channels, side * patch, side * patch),
            num_classes=rows - 1,
            depth=depth,
            width=width,
            heads=heads,
            patch_size=patch,
            feedforward="mlp",
            mlp_ratio=hidden / width,
            positions="sincos",
            qk_norm=False,
            value_convolution=ValueConvolutionConfig(size=0, initialization="zero"),
            attention=SoftmaxConfig(),
            variance_channels=predicted // channels,
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{_NOT_DIT}: {where} is {first['input']}: {first['msg']}") from error


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    tensor = state.get(name)
    if tensor is None or tensor.dim() != dimensions:
        found = "is missing" if tensor is None else f"has {tensor.dim()}"
        raise UserError(f"{_NOT_DIT}: expected {name} with {dimensions} dimensions, but it {found}")
    return tuple(tensor.shape)
