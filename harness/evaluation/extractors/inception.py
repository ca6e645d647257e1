"""InceptionV3 as TensorFlow published it in 2015, which FID, sFID and the Inception score mean.

The network is torch-fidelity's port with its resize, TensorFlow 1's bilinear one. sFID (Nash et al.
2021) takes the first 7 channels of TensorFlow's `mixed_6/conv`, the rectified output of the 1x1
branch of the block that is called Mixed_6d here, in the order rows, columns, channels.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import final

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import (
    URL_INCEPTION_V3,
    FeatureExtractorInceptionV3,
)
from typing_extensions import override

from harness.config.discovery import extractors
from harness.evaluation.extractors.base import Extracted, FeatureExtractor, fold_batch_norms
from harness.evaluation.extractors.weights_file import check_there, file_sha256, read_weights
from models.errors import UserError

WEIGHTS = "optional"
SPATIAL = True
NAME = "inception"
STANDARD_SHA256 = "6726825d"
"""The first digits, which the file bears in its name; all evaluators of the field use it."""
STANDARD_FILE = f"weights-inception-2015-12-05-{STANDARD_SHA256}.pth"
_FEATURES = ["2048", "logits_unbiased"]
_SPATIAL_CHANNELS = 7
_SPATIAL_SIDE = 17
_SHOWN_DIGITS = 8


@final
class Extractor(FeatureExtractor):
    """Features after average pooling; logits without their bias, as in the Inception score."""

    resize = "TensorFlow 1 bilinear to 299x299, corners not aligned, not antialiased, no rounding"
    feature_size = 2048
    classes = 1008
    spatial_size = _SPATIAL_SIDE**2 * _SPATIAL_CHANNELS
    images_on_cpu = 6

    def __init__(self, weights: Path, sha256: str) -> None:
        """Read the weights, whose hash says whether they are the standard ones.

        Raises:
            UserError: the file is damaged or of another network.
        """
        super().__init__()
        standard = sha256.startswith(STANDARD_SHA256)
        shown = sha256[:_SHOWN_DIGITS]
        self.name = NAME if standard else f"{NAME}_{shown}"
        self.display = "Inception" if standard else f"Inception network with weights {shown}"
        self.weights_sha256 = sha256
        network = _network(weights)
        network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)
        self._spatial: Tensor | None = None
        fold_batch_norms(network)
        # Channels last is what the CPU's convolutions are fastest with.
        self.network = network.to(memory_format=torch.channels_last).requires_grad_(False)

    @override
    def extract(self, images: Tensor) -> Extracted:
        # (B, H, W, C) -> (B, 3, H, W)
        colour = images.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        features, logits = self.network(colour)
        spatial, self._spatial = self._spatial, None
        return Extracted(features, logits, spatial)

    def _keep_spatial(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        # (B, 192, 17, 17) -> (B, 17, 17, 7) -> (B, 2023)
        maps = output[:, :_SPATIAL_CHANNELS].permute(0, 2, 3, 1)
        self._spatial = maps.flatten(1).contiguous()


def load(weights: Path | None) -> Extractor:
    """The network with the weights of a file; None takes the field's from PyTorch's cache.

    Raises:
        UserError: the file is missing, damaged or another one than the standard one.
    """
    path = check(weights)
    digest = file_sha256(path)
    if weights is None and not digest.startswith(STANDARD_SHA256):
        raise UserError(
            f"{path} has SHA-256 {digest}, expected {STANDARD_SHA256}...: fetch "
            f"{URL_INCEPTION_V3} again, or name the file yourself if other weights are meant"
        )
    return Extractor(path, digest)


def check(weights: Path | None) -> Path:
    """The file.

    Raises:
        UserError: it is missing.
    """
    if weights is not None:
        check_there(weights)
        return weights
    path = standard_weights()
    if not path.is_file():
        needs_none = [
            name for name, one in extractors().items() if one.constants.get("WEIGHTS") == "refused"
        ]
        raise UserError(
            f"the extractor inception needs its weights: put {URL_INCEPTION_V3} at {path}, or name "
            "the file (evaluate.extractor_weights, --extractor-weights); what needs no file is "
            f"--extractor {' or '.join(needs_none)}"
        )
    return path


def standard_weights() -> Path:
    """Where torch-fidelity keeps its download."""
    return Path(torch.hub.get_dir()) / "checkpoints" / STANDARD_FILE


def _network(path: Path) -> FeatureExtractorInceptionV3:
    """In eval mode. The file is read without pickle, which torch-fidelity's own reading allows."""
    safe = io.BytesIO()
    torch.save(read_weights(path), safe)
    safe.seek(0)
    try:
        return FeatureExtractorInceptionV3(NAME, _FEATURES, feature_extractor_weights_path=safe)
    except RuntimeError as error:
        raise UserError(
            f"the weights {path} do not fit the Inception network of torch-fidelity: expected "
            f"{URL_INCEPTION_V3}"
        ) from error
