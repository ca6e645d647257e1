"""Any image classifier of timm's with weights from a local file, such as DINOv2.

Images are resized to the size that is asked for, else to the one that published figures of such a
model use, else to the one that timm names. A transformer's position embeddings are then resampled
by timm, bicubic and antialiased; networks of convolutions take any size as they are.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from typing_extensions import override

from harness.evaluation.extractors.base import Extracted, FeatureExtractor, resized
from harness.evaluation.extractors.weights_file import check_there, file_sha256, read_weights
from models.errors import UserError, one_line

FAMILY = "torch"
SIZED = True
WEIGHTS = "required"
_INTERPOLATIONS = ("bicubic", "bilinear")
_PUBLISHED_SIZES = {"dinov2": 224}
"""By a part of the model's name: FD-DINOv2 (Stein et al. 2023) is taken at 224 pixels, where timm
names the 518 of the last steps of training."""


@runtime_checkable
class _SetsInputSize(Protocol):
    """A network of timm's that is made for one size, and can be changed to another."""

    def set_input_size(self, img_size: tuple[int, int]) -> None: ...


@final
class Extractor(FeatureExtractor):
    """What the classifier's last layer sees, and what it says.

    Whole images are resized without timm's crop, and normalised with its mean and deviation.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(self, model: str, weights: Path, size: int | None = None) -> None:
        """Build a model of timm's, by its name with or without the tag of its training.

        Args:
            model: the name.
            weights: the file.
            size: pixels a side of what the network sees; None takes the published choice where
                there is one, else timm's.

        Raises:
            UserError: no such model, it takes no images of that size, or the file is missing,
                damaged or of another model.
        """
        super().__init__()
        network = _trained(model, weights)
        config = resolve_model_data_config(network)
        channels, *native = config["input_size"]
        self._interpolation = config["interpolation"]
        if channels != 3 or self._interpolation not in _INTERPOLATIONS:
            raise UserError(
                f"the extractor torch:{model} takes {channels} channels, resized by "
                f"{self._interpolation}: expected a model of 3 channels and of "
                f"{' or '.join(_INTERPOLATIONS)} interpolation"
            )
        if size is None:
            size = next((side for part, side in _PUBLISHED_SIZES.items() if part in model), None)
        self._size = (int(native[0]), int(native[1])) if size is None else (size, size)
        self.name = f"torch:{model}"
        self.display = model
        self.weights_sha256 = file_sha256(weights)
        mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
        self.resize = (
            f"{self._interpolation} to {self._size[0]}x{self._size[1]}, half-pixel centres, "
            f"antialiased only when shrinking, clipped to 0..255, no rounding, mean {mean}, "
            f"std {std}"
        )
        self.register_buffer("_mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)
        self._has_classifier = not isinstance(network.get_classifier(), nn.Identity)
        try:
            if self._size != tuple(native) and isinstance(network, _SetsInputSize):
                network.set_input_size(self._size)
            self.network = network.to(memory_format=torch.channels_last).requires_grad_(False)
            with torch.inference_mode():
                found = self.extract(torch.zeros(1, *self._size, 3, dtype=torch.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"torch:{model} takes no images of {self._size[0]}x{self._size[1]} pixels "
                f"({one_line(error)}): leave the extractor's size out, or name another"
            ) from error
        self.feature_size, self.classes = found.features.shape[1], found.logits.shape[1]

    @override
    def extract(self, images: Tensor) -> Extracted:
        # (B, H, W, C) -> (B, C, H, W)
        pixels = images.permute(0, 3, 1, 2).float()
        if pixels.shape[2:] != self._size:
            pixels = resized(pixels, self._size, self._interpolation).clamp(0, 255)
        normalised = (pixels.expand(-1, 3, -1, -1) - self._mean) / self._std
        maps = self.network.forward_features(
            normalised.contiguous(memory_format=torch.channels_last)
        )
        features = self.network.forward_head(maps, pre_logits=True).flatten(1)
        if not self._has_classifier:
            return Extracted(features, features.new_empty(len(features), 0))
        return Extracted(features, self.network.forward_head(maps))


def load(model: str, weights: Path | None, size: int | None) -> Extractor:
    """A model of timm's with weights from a file, which must be named: nothing is downloaded.

    Raises:
        UserError: no such model, it takes no images of that size, or its weights are not named,
            missing, damaged or others.
    """
    return Extractor(model, check(model, weights, size), size)


def check(model: str, weights: Path | None, size: int | None) -> Path:
    """The file; the weights in it are not read.

    Raises:
        UserError: there is no such model, its patches do not fill that size, or the file is not
            named or missing.
    """
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UserError(f"timm has no model {model!r}{hint}: timm.list_models() names all")
    if weights is None:
        raise UserError(
            f"the extractor torch:{model} needs a file of weights, .safetensors or .pth: name it "
            "(evaluate.extractor_weights, --extractor-weights)"
        )
    check_there(weights)
    if size is not None:
        _check_patches(model, size)
    return weights


def _check_patches(model: str, size: int) -> None:
    """See that patches leave no rest of the images, which timm would cut off or stop at."""
    with torch.device("meta"):
        network = _created(model)
    patch = next((one for one in network.modules() if isinstance(one, PatchEmbed)), None)
    side = 1 if patch is None else patch.patch_size[0]
    if size % side:
        below = size // side * side
        near = f"{below} or {below + side}" if below else f"{side}"
        raise UserError(
            f"torch:{model} takes no images of {size}x{size} pixels, since its patches have {side} "
            f"a side: expected a multiple of {side}, such as {near} (evaluate.extractor_size, "
            "--extractor-size)"
        )


def _created(model: str) -> Any:
    try:
        return timm.create_model(model, pretrained=False)
    except RuntimeError as error:
        raise UserError(f"timm cannot build {model}: {error}") from error


def _trained(model: str, weights: Path) -> Any:
    """In eval mode."""
    network = _created(model)
    stored, expected = read_weights(weights), network.state_dict()
    odd = sorted(
        name
        for name in stored.keys() | expected.keys()
        if name not in stored or name not in expected or stored[name].shape != expected[name].shape
    )
    if odd:
        raise UserError(
            f"the weights {weights} are not those of {model}: {len(odd)} of "
            f"{len(expected)} tensors are missing, unknown or of another shape, the first "
            f"{odd[0]}; expected a file that timm has for this model"
        )
    network.load_state_dict(stored)
    return network.eval()
