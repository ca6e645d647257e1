"""Tiny autoencoders, and images in memory with their manifest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from harness.data.latents.autoencoder import Autoencoder
from harness.data.manifest import Manifest, ManifestClass, ManifestImage
from tests.support.stand_ins.memory_source import MemorySource

SIDE = 8


class ImagesInMemory(MemorySource):
    """Writes down which files were read, and how often."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(files)
        self.reads: list[str] = []

    def read(self, entry_id: str) -> bytes:
        self.reads.append(entry_id)
        return super().read(entry_id)

    def manifest(self) -> Manifest:
        entries = self.entries()
        return Manifest(
            name="memory/v1",
            seed=None,
            per_class=None,
            classes=tuple(ManifestClass(name, name) for name in self.class_ids),
            images=tuple(
                ManifestImage(
                    entry.id,
                    entry.label,
                    entry.size,
                    hashlib.sha256(self.files[entry.id]).hexdigest(),
                )
                for entry in entries
            ),
            left_out=(),
        )


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="session")
def images_in_memory() -> Callable[..., ImagesInMemory]:
    """`images_in_memory(count, side=8)`: PNG files of three classes, all different."""

    def build(count: int, side: int = SIDE) -> ImagesInMemory:
        stream = np.random.default_rng(0)
        pixels = stream.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        names = (f"{'abc'[i % 3]}/{i:06d}.png" for i in range(count))
        return ImagesInMemory(dict(zip(names, map(png, pixels), strict=True)))

    return build


@dataclass(frozen=True, eq=False)
class LinearAutoencoder(Autoencoder):
    """Means of squares of pixels, times `weight`; a log-variance from their second channel."""

    weight: float = 1.0
    before: Callable[[], None] = lambda: None
    batches: list[int] = field(default_factory=list)

    def encode(self, images: Tensor) -> Tensor:
        self.before()
        self.batches.append(len(images))
        small = torch.nn.functional.avg_pool2d(images.double() / 255, self.downsampling).float()
        return torch.cat([small[:, :1] * self.weight, small[:, 1:2] - 3.0], dim=1)


@pytest.fixture(scope="session")
def linear_autoencoder() -> Callable[..., LinearAutoencoder]:
    def build(weight: float = 1.0, **fields: Any) -> LinearAutoencoder:
        identity = hashlib.sha256(str(weight).encode()).hexdigest()
        space = (identity, "Linear", 1, 4, 0.5, 0.25, True)
        return LinearAutoencoder(*space, None, torch.device("cpu"), weight=weight, **fields)

    return build


@pytest.fixture(scope="session")
def kl_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`kl_folder(**config)`: a small AutoencoderKL with random weights, always the same ones."""
    from diffusers import AutoencoderKL

    def build(**config: Any) -> Path:
        folder = tmp_path_factory.mktemp("kl")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = AutoencoderKL(
                **{
                    "block_out_channels": (8, 16),
                    "down_block_types": ("DownEncoderBlock2D",) * 2,
                    "up_block_types": ("UpDecoderBlock2D",) * 2,
                    "layers_per_block": 1,
                    "norm_num_groups": 4,
                    "latent_channels": 4,
                    "sample_size": 32,
                    "scaling_factor": 0.3611,
                    "shift_factor": 0.1159,
                    **config,
                }
            )
        network.save_pretrained(folder, safe_serialization=True)
        return folder

    return build


@pytest.fixture(scope="session")
def dc_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AutoencoderDC with random weights."""
    from diffusers import AutoencoderDC

    folder = tmp_path_factory.mktemp("dc")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoencoderDC(
            latent_channels=8,
            attention_head_dim=8,
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_block_out_channels=(8, 16, 16),
            decoder_block_out_channels=(8, 16, 16),
            encoder_layers_per_block=(1, 1, 1),
            decoder_layers_per_block=(1, 1, 1),
            encoder_qkv_multiscales=((), (), ()),
            decoder_qkv_multiscales=((), (), ()),
            scaling_factor=0.41407,
        )
    network.save_pretrained(folder, safe_serialization=True)
    return folder
