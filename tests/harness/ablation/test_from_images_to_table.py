"""From a zip of real photographs to a table, with the commands that a user types."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from safetensors import safe_open

from tests.support.command import output_of

RESOLUTION = 32
SETTINGS = [
    f"data.resolution={RESOLUTION}",
    "data.downsampling=4",
    "data.held_out=16",
    "data.workers=1",
    "model.size=tiny",
    "model.depth=1",
    "model.patch_size=1",
    "train.steps=8",
    "train.batch_size=8",
    "train.validate_every=4",
    "train.checkpoint_every=4",
    "sample.steps=3",
    "sample.batch_size=8",
    "evaluate.extractor=efficientnet_lite0",
    "evaluate.samples=20",
    "evaluate.inception_splits=2",
    "evaluate.probe_images=2",
]


def save_random_autoencoder(folder: Path) -> None:
    """No trained autoencoder can be had without a network; its shape is that of a real one."""
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.18215,
    ).save_pretrained(folder, safe_serialization=True)


@pytest.mark.slow
def test_photographs_become_a_manifest_latents_and_a_table(
    shared_data: Path, tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    store = new_store(tmp_path)
    images = shared_data / "imagenet-sample.zip"
    manifest, latents = tmp_path / "manifest.json", tmp_path / "latents"
    autoencoder, sheet = tmp_path / "autoencoder", tmp_path / "sheet.png"
    save_random_autoencoder(autoencoder)
    output_of("data", "make-manifest", images, manifest, "--classes", "50", "--seed", "3")
    described = output_of("data", "describe", manifest, images, "--contact-sheet", sheet)
    stored = json.loads(manifest.read_text())
    assert stored["hash"][:12] in described
    assert sheet.stat().st_size > 10_000
    output_of(
        *("data", "encode", images, latents, "--manifest", manifest),
        *("--autoencoder", autoencoder, "--resolution", RESOLUTION, "--images-per-shard", 16),
    )
    count = 0
    for shard in latents.glob("shard-*.safetensors"):
        with safe_open(shard, framework="pt") as opened:
            count += len(opened.get_tensor("moments"))
    assert count == len(stored["images"]) == 50
    settings = [
        f"data.path={images}",
        f"data.manifest={manifest}",
        f"data.latents={latents}",
        f"data.autoencoder={autoencoder}",
        *SETTINGS,
    ]
    runs = tmp_path / "runs"
    ablation = ("ablation", "no_differential", "--scale", "sub_in", "--seeds", "1")
    first = output_of(*ablation, "--runs-dir", runs, *settings, store=store)
    assert "3 trials to run" in first
    report = runs / "reports" / "sub_in" / "no_differential"
    with (report / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["row"] == "seed"]
    distances = [float(row["fd_efficientnet_lite0"]) for row in rows]
    assert len(distances) >= 3
    assert all(np.isfinite(distances))
    for samples in runs.glob("sub_in/*/*/samples.npz"):
        with np.load(samples) as drawn:
            assert drawn["arr_0"].shape == (20, RESOLUTION, RESOLUTION, 3)
    assert "3 of 3 trials are finished already" in output_of(
        *ablation, "--runs-dir", runs, *settings, store=store
    )
