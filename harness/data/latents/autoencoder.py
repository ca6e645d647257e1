"""Pretrained autoencoders of diffusers, from a local folder or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.images import to_network, to_uint8
from harness.data.latents.cache import LatentSpace
from harness.machine.files import given_path, read_json
from models.errors import UserError, one_line

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


_IRRELEVANT = frozenset({"_diffusers_version", "_name_or_path", "force_upcast", "sample_size"})
"""Keys of a configuration that change no latent in float32 without tiling."""


@dataclass(frozen=True)
class _Kind:
    """One of diffusers' classes."""

    stochastic: bool
    blocks: str
    """Its list with one entry a resolution: all but one halve the side."""
    moments: Callable[[Any], Tensor]
    """From what its `encode` returns."""


_KINDS = {
    "AutoencoderKL": _Kind(True, "block_out_channels", lambda out: out.latent_dist.parameters),
    "AutoencoderDC": _Kind(False, "encoder_block_out_channels", lambda out: out.latent),
}


@dataclass(frozen=True, eq=False)
class Autoencoder(LatentSpace):
    """Between images and latents, always in float32."""

    network: Any
    """Of one of diffusers' classes."""
    device: torch.device

    def encode(self, images: Tensor) -> Tensor:
        """Of images (B, 3, H, W) uint8, on any device, the mean and log-variance, or the latent if
        it is not stochastic, (B, C', h, w) float32, unscaled."""
        with _exact_arithmetic():
            encoded = self.network.encode(to_network(images.to(self.device)))
        return _KINDS[self.class_name].moments(encoded)

    def decode(self, latents: Tensor, batch_size: int = 16) -> Tensor:
        """Images, (B, 3, H, W) uint8, of latents (B, C, h, w) as a network sees them.

        Only `batch_size` of them are decoded at once, so that memory is bounded. Raises a UserError
        if a pixel is not finite.
        """
        return torch.cat([self._decode(part) for part in latents.split(batch_size)])

    def _decode(self, latents: Tensor) -> Tensor:
        with _exact_arithmetic():
            images = self.network.decode(self.unscaled(latents.to(self.device).float())).sample
        if not images.isfinite().all():
            raise UserError(
                f"{self.class_name} decodes a latent to pixels that are not finite: the latent is "
                "far from those of images"
            )
        return to_uint8(images)


@contextmanager
def _exact_arithmetic() -> Iterator[None]:
    """Full float32 in convolutions, and the same kernels for the same shapes."""
    cudnn = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.no_grad(), cudnn:
        yield


def load_autoencoder(name: str, device: torch.device | str) -> Autoencoder:
    """A pretrained autoencoder in evaluation mode. Nothing in its files is executed.

    `name` is a folder in diffusers' layout; or `OWNER/NAME` on the hub, with `/FOLDER` behind it
    if the repository holds more than the autoencoder.

    Raises:
        UserError: it is not there, is of a class that is not known, or its weights are damaged,
            incomplete or not in a safetensors file.
    """
    folder = _find_folder(name)
    described = _read_config(folder)
    class_name = str(described.get("_class_name"))
    kind = _KINDS.get(class_name)
    if kind is None:
        raise UserError(
            f"{folder / CONFIG} is of the class {class_name}, but only {' and '.join(_KINDS)} are "
            "known here"
        )
    _check_weights(folder)
    # It takes seconds, and a wrong name is told before.
    import diffusers

    try:
        network, loading = getattr(diffusers, class_name).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    # Damaged or foreign weights make the loader raise almost anything.
    except Exception as error:
        raise UserError(f"{folder} cannot be loaded as {class_name}: {_reason(error)}") from error
    wrong = [*loading["missing_keys"], *loading["mismatched_keys"]]
    if wrong:
        raise UserError(
            f"{folder} lacks {len(wrong)} of the weights of its {CONFIG}, such as {wrong[0]}: "
            "download or copy it again"
        )
    network = network.float().eval().requires_grad_(False)
    config = network.config
    _check_config(config, folder)
    return Autoencoder(
        identity=_identity(described, network.state_dict()),
        class_name=class_name,
        latent_channels=config["latent_channels"],
        downsampling=2 ** (len(config[kind.blocks]) - 1),
        scaling_factor=float(config["scaling_factor"]),
        shift_factor=float(config.get("shift_factor") or 0.0),
        stochastic=kind.stochastic,
        network=network.to(device),
        device=torch.device(device),
    )


def _find_folder(name: str) -> Path:
    """The folder of an autoencoder, downloaded into the hub's cache if it has to be."""
    path = given_path(name, "the autoencoder")
    if path.is_dir():
        return path
    hub = _HUB_NAME.fullmatch(name)
    if path.exists() or hub is None or name.startswith((".", "~")):
        raise UserError(f"there is no autoencoder {name}: {_EXPECTED}")
    below = f"{hub['folder']}/" if hub["folder"] else ""
    patterns = [below + pattern for pattern in _DOWNLOADED]

    def fetch(*, local_files_only: bool) -> Path:
        from huggingface_hub import snapshot_download

        root = snapshot_download(
            hub["repository"], allow_patterns=patterns, local_files_only=local_files_only
        )
        return Path(root) / below

    # Where it is not in the cache yet.
    with suppress(OSError):
        cached = fetch(local_files_only=True)
        if (cached / CONFIG).is_file() and any(cached.glob("*.safetensors")):
            return cached
    try:
        return fetch(local_files_only=False)
    # The hub's client raises its own errors, those of HTTP and those of the file system.
    except Exception as error:
        raise UserError(
            f"there is no folder {name}, and the hub did not give it ({_reason(error)}): name a "
            "local folder in diffusers' layout, or download it where there is a network"
        ) from error


def _read_config(folder: Path) -> Mapping[str, Any]:
    """The configuration that an autoencoder was saved with."""
    path = folder / CONFIG
    if not path.is_file():
        inside = next((part.parent for part in sorted(folder.glob(f"*vae*/{CONFIG}"))), None)
        hint = f"name {inside}" if inside else _EXPECTED
        raise UserError(f"{folder} holds no autoencoder, as it lacks {CONFIG}: {hint}")
    try:
        described: dict[str, Any] = read_json(path, dict, remedy="download or copy it again")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    return described


def _check_weights(folder: Path) -> None:
    """See that there are weights that can be read without executing anything."""
    if any(folder.glob(f"{_WEIGHTS}*.safetensors")):
        return
    pickles = sorted(path for end in ("bin", "pt", "ckpt") for path in folder.glob(f"*.{end}"))
    if pickles:
        raise UserError(
            f"{pickles[0]} is a pickle, which could run any code, and is not read: save the "
            "weights with save_pretrained(FOLDER, safe_serialization=True)"
        )
    raise UserError(f"{folder} lacks its weights: expected {_WEIGHTS}.safetensors")


def _reason(error: Exception) -> str:
    return one_line(error, most=300)


def _check_config(config: Mapping[str, Any], folder: Path) -> None:
    """See that latents can be scaled; defaults of the class are filled in."""
    for key in ("latents_mean", "latents_std"):
        if config.get(key) is not None:
            raise UserError(
                f"{folder / CONFIG} has {key}, a scale of each channel, but only scaling_factor "
                "and shift_factor are known here"
            )
    if config["in_channels"] != 3:
        raise UserError(f"{folder / CONFIG} has in_channels {config['in_channels']} instead of 3")
    scaling = config["scaling_factor"]
    if not isinstance(scaling, int | float) or not 0 < scaling < float("inf"):
        raise UserError(f"{folder / CONFIG} has scaling_factor {scaling}: expected above 0")


def _identity(described: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over configuration and weights, as they compute, in hex."""
    relevant = {key: value for key, value in described.items() if key not in _IRRELEVANT}
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode())
    for name, value in sorted(weights.items()):
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
