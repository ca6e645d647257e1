"""Probes a network of 4,096 tokens in a process of its own: `probe_many_tokens.py VARIANT`.

Prints the most memory that was resident at one time; Linux only.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import torch

from harness.data.images import LabelledImages
from harness.evaluation.probe import ENTROPY, choose_probe_images, probe_attention
from models.attention import load_variant
from models.attention.base import ValueConvolutionConfig
from models.backbone import Backbone, BackboneConfig
from models.objectives import build_objective, objective_config

torch.set_num_threads(1)
SIDE = 64
network = Backbone(
    BackboneConfig(
        image_shape=(4, SIDE, SIDE),
        num_classes=10,
        depth=1 if sys.argv[1] == "softmax" else 2,
        width=96,
        heads=1 if sys.argv[1] == "softmax" else 3,
        patch_size=1,
        feedforward="mlp",
        mlp_ratio=4.0,
        positions="sincos",
        qk_norm=False,
        value_convolution=ValueConvolutionConfig(size=5, initialization="identity"),
        attention=load_variant(sys.argv[1]).config(),
        variance_channels=1,
    ),
    seed=0,
).eval()
stream = torch.Generator().manual_seed(0)
images = torch.randint(0, 256, (2, 4, SIDE, SIDE), generator=stream, dtype=torch.uint8)
held_out = LabelledImages(images, torch.arange(2), ("a", "b"))
began = time.perf_counter()
rows = probe_attention(
    network,
    build_objective(objective_config("flow")(name="flow")),
    choose_probe_images(held_out, 1 if sys.argv[1] == "softmax" else 2),
    noise_levels=1,
)
(peak,) = (
    int(line.split()[1]) * 1024
    for line in Path("/proc/self/status").read_text().splitlines()
    if line.startswith("VmHWM:")
)
print(
    json.dumps(
        {
            "tokens": SIDE * SIDE,
            "heads_measured": sum(row.metric == ENTROPY for row in rows),
            "finite": all(math.isfinite(row.value) for row in rows),
            "peak_bytes": peak,
            "seconds": time.perf_counter() - began,
        }
    )
)
