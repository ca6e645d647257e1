"""Where an autoencoder is: a local folder, or one that the Hugging Face hub gives."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import UserError

CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model"
_DOWNLOADED = (
    CONFIG,
    f"{_WEIGHTS}.safetensors",
    f"{_WEIGHTS}-*.safetensors",
    f"{_WEIGHTS}.safetensors.index.json",
)
_HUB_NAME = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(?:/(?P<folder>[\w.-]+))?")
_EXPECTED = (
    "expected a folder in diffusers' layout (config.json and "
    "diffusion_pytorch_model.safetensors), or a name on the hub such as stabilityai/sd-vae-ft-ema"
)
_LONGEST_REASON = 300


def find_folder(name: str) -> Path:
    """The folder of an autoencoder, downloaded into the hub's cache where it has to be.

    Args:
        name: a folder; or `OWNER/NAME` on the hub, with `/FOLDER` behind it where the repository
            holds more than the autoencoder.

    Raises:
        UserError: there is none.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    hub = _HUB_NAME.fullmatch(name)
    if path.exists() or hub is None or name.startswith((".", "~")):
        raise UserError(f"there is no autoencoder {name}: {_EXPECTED}")
    return _downloaded(name, hub["repository"], hub["folder"])


def read_config(folder: Path) -> Mapping[str, Any]:
    """The configuration that an autoencoder was saved with.

    Raises:
        UserError: it is missing or is none.
    """
    path = folder / CONFIG
    if not path.is_file():
        inside = next((part.parent for part in sorted(folder.glob(f"*vae*/{CONFIG}"))), None)
        hint = f"name {inside}" if inside else _EXPECTED
        raise UserError(f"{folder} holds no autoencoder, as it lacks {CONFIG}: {hint}")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(described, dict):
        raise UserError(f"{path} is not the configuration of an autoencoder: {_EXPECTED}")
    return described


def check_weights(folder: Path) -> None:
    """See that there are weights that can be read without executing anything.

    Raises:
        UserError: there are not.
    """
    if any(folder.glob(f"{_WEIGHTS}*.safetensors")):
        return
    pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.ckpt")])
    if pickles:
        raise UserError(
            f"{pickles[0]} is a pickle, which could run any code, and is not read: save the "
            "weights with save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise UserError(f"{folder} lacks its weights: expected {_WEIGHTS}.safetensors")


def one_line(error: Exception) -> str:
    """On one line, as long as a line of a message may be."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def _downloaded(name: str, repository: str, folder: str | None) -> Path:
    """The folder in the hub's cache, which is filled where it has to be."""
    from huggingface_hub import snapshot_download

    below = f"{folder}/" if folder else ""
    patterns = [below + pattern for pattern in _DOWNLOADED]

    def fetch(*, local_files_only: bool) -> Path:
        root = snapshot_download(
            repository, allow_patterns=patterns, local_files_only=local_files_only
        )
        return Path(root) / below

    try:
        cached = fetch(local_files_only=True)
        if (cached / CONFIG).is_file() and any(cached.glob("*.safetensors")):
            return cached
    except OSError:
        pass  # Not in the cache yet.
    try:
        return fetch(local_files_only=False)
    # The hub's client raises its own errors, those of HTTP and those of the file system.
    except Exception as error:
        raise UserError(
            f"there is no folder {name}, and the hub did not give it ({one_line(error)}): name a "
            "local folder in diffusers' layout, or download it where there is a network"
        ) from error
