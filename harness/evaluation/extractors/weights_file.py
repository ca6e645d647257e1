"""Files of weights: their hashes, and their tensors without running anything that is in them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from harness.machine.files import file_digest, known_kind, refused_object
from models.errors import UserError, first_line

_WRAPPINGS = ("state_dict", "model", "model_state_dict")
"""Under which a checkpoint may hold its weights beside other things."""


def check_there(path: Path) -> None:
    """See that it is a file.

    Raises:
        UserError: it is none.
    """
    if not path.is_file():
        raise UserError(f"there is no file of weights {path}: name one that is there")


def file_sha256(path: Path) -> str:
    """64 hex digits.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        return file_digest(path)
    except OSError as error:
        raise UserError(
            f"the weights {path} cannot be read: {error.strerror}; name a file of weights that is "
            "there"
        ) from error


def _what_else(path: Path, error: Exception) -> str:
    """What a file is that PyTorch refuses to read as tensors alone, and what is expected."""
    refused = refused_object(error)
    if refused is not None:
        return f"no file of tensors alone: it holds {refused}; expected a state dictionary"
    return known_kind(path) or (
        f"no file of tensors ({first_line(error)}): expected .safetensors, or a checkpoint that "
        "torch.load(weights_only=True) reads"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a checkpoint of PyTorch's, by name.

    Raises:
        UserError: it is damaged, or holds other things than tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings():
            # Of a TorchScript file, beside the error that is told in one line.
            warnings.filterwarnings("ignore", message=".*TorchScript", category=UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        KeyError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        SafetensorError,
    ) as error:
        raise UserError(f"the weights {path} are {_what_else(path, error)}") from error
    for key in _WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(f"the weights {path} hold no tensors by name: expected a state dictionary")
    return dict(content)
