"""Inception weights without training, for measurements where only the time counts."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import inception_v3

from harness.evaluation.extractors.inception import Extractor
from harness.machine.files import atomic_path
from models.randomness import generator

_SPREAD = 0.05


def write_random_inception(path: Path) -> None:
    """Write a file in the layout of the field's weights (torchvision's names, 1,008 classes).

    Convolutions keep the scale of what they are given, so that activations are as large as those of
    a trained network: zeros or overflows can take another time.
    """
    network = inception_v3(
        weights=None, num_classes=Extractor.classes, aux_logits=False, init_weights=False
    )
    stream = generator("random-inception")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=stream)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, _SPREAD, generator=stream)
    with atomic_path(path) as temporary:
        torch.save(network.state_dict(), temporary)
