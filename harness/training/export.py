"""A network as two files that others can read: `model.safetensors` and `model.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model
from torch import Tensor

from harness.config.schema import TrialConfig
from harness.config.sections import Weights
from harness.config.serialisation import to_plain
from harness.machine.files import atomic_path, read_json, write_json
from models.backbone import Backbone, BackboneConfig
from models.errors import UserError, one_line

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"
_SHOWN = 3

Shape = tuple[int, ...]


class Description(BaseModel):
    """What `model.json` says; the weights are named as in `models.backbone`."""

    format: Literal[1] = 1
    backbone: BackboneConfig
    """Builds the network."""
    trial: dict[str, Any] | None = None
    """The whole configuration of the trial that trained it, whose objective says what the network
    predicts; None where it came from elsewhere."""
    weights: Weights | None = None
    """Which ones of the trial's."""


def export_model(
    backbone: Backbone, folder: Path, trial: TrialConfig | None, weights: Weights | None = None
) -> None:
    """Write a network to a folder, which is made if it is missing; `trial` and `weights` are those
    of `Description`.

    Raises:
        UserError: the folder holds a model already, or is a file.
    """
    if (folder / DESCRIPTION).exists():
        raise UserError(f"{folder} holds a model already: name another folder, or remove it")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name the folder to write")
    plain = None if trial is None else to_plain(trial)
    described = Description(backbone=backbone.config, trial=plain, weights=weights)
    with atomic_path(folder / WEIGHTS) as temporary:
        save_model(backbone, str(temporary))
    # Last, so that a folder with a description has its weights.
    write_json(folder / DESCRIPTION, described.model_dump(mode="json"), indent=2)


def load_exported(folder: str | Path) -> Backbone:
    """The network that `export_model` wrote, on the CPU and in evaluation mode.

    Raises:
        UserError: the folder holds no model, its description is wrong, or the weights are those of
            another variant or size; the message names both values.
    """
    folder = Path(folder)
    config = read_description(folder).backbone
    path = folder / WEIGHTS
    found = weight_shapes(path)
    blocks = {name.split(".")[1] for name in found if name.startswith("blocks.")}
    if config.depth != len(blocks):
        raise UserError(
            f"{folder}: depth is {config.depth} in {DESCRIPTION} and {len(blocks)} in {WEIGHTS}"
        )
    # Without memory, since a description that does not fit may claim any size.
    with torch.device("meta"):
        expected = Backbone(config, seed=0).state_dict()
    _check_shapes(folder, found, {name: tuple(value.shape) for name, value in expected.items()})
    backbone = Backbone(config, seed=0)
    try:
        load_model(backbone, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{path} does not fit {DESCRIPTION}: {one_line(error)}") from error
    return backbone.eval()


def weight_shapes(path: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors in a safetensors file, which are not read.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no safetensors file, or is damaged: {error}") from error


def read_description(folder: Path) -> Description:
    """What `export_model` wrote beside the weights.

    Raises:
        UserError: the folder holds no model, or its description is wrong.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"{folder} holds no exported model: it lacks {DESCRIPTION}; "
            "`python -m harness export RUN OUT` writes one"
        )
    return read_json(path, Description, remedy="export the network again to another folder")


def shape_difference(found: Mapping[str, Tensor], expected: Mapping[str, Shape]) -> str | None:
    """The first name or shape of tensors that is not the expected one, in words."""
    for name in sorted(found.keys() ^ expected.keys()):
        return f"it {'also has' if name in found else 'lacks'} {name}"
    for name, tensor in found.items():
        if tensor.shape != expected[name]:
            return f"{name} is {_shown(tensor.shape)}, not {_shown(expected[name])}"
    return None


def _check_shapes(folder: Path, found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> None:
    """Tensors that share their memory are written once, so a missing name may be right."""
    problems = [
        f"{name} is {_shown(expected[name])} by {DESCRIPTION} and {_shown(shape)} in {WEIGHTS}"
        if name in expected
        else f"{name} is in {WEIGHTS}, but not in a network of {DESCRIPTION}"
        for name, shape in found.items()
        if shape != expected.get(name)
    ]
    if problems:
        more = len(problems) - _SHOWN
        listed = "; ".join(problems[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise UserError(f"{folder}: the weights are of another variant or size: {listed}")


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
