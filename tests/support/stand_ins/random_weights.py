"""Files of weights without training: the trained ones cannot be had everywhere.

The network is torch-fidelity's, so whatever holds for these files holds for trained ones too.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import timm
import torch
from torch import nn
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


def write_random_inception(path: Path) -> Path:
    """Random convolutions that keep the scale, and batch norms that are not the identity."""
    with (
        patch.object(feature_extractor_inceptionv3, "load_state_dict_from_url"),
        patch.object(FeatureExtractorInceptionV3, "load_state_dict"),
    ):
        network = FeatureExtractorInceptionV3("random", ["2048"])
    stream = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=stream)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.05, generator=stream)
            module.running_var.uniform_(0.5, 1.5, generator=stream)
    nn.init.normal_(network.fc.weight, 0, 0.05, generator=stream)
    nn.init.normal_(network.fc.bias, 0, 0.05, generator=stream)
    torch.save(network.state_dict(), path)
    return path


def write_random_vit(path: Path) -> Path:
    """Of timm's `test_vit`, which is small."""
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), path)
    return path


def smooth_images(count: int, side: int, seed: int) -> torch.Tensor:
    """(N, side, side, 3) uint8: blobs of colour, as different from one another as photographs."""
    stream = torch.Generator().manual_seed(seed)
    small = 255 * torch.rand(count, 3, 3, 3, generator=stream)
    large = nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(0, 255)
    return large.round().byte().permute(0, 2, 3, 1).contiguous()
