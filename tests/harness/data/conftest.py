"""Small stand-ins for data sets, written to disk in the layouts that users have."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

CLASSES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


@pytest.fixture
def class_folders(tmp_path: Path) -> Callable[..., Path]:
    """`class_folders("a", "b", images=3, side=8)`: a folder of class folders with PNG files whose
    pixels are all different; CIFAR-10's classes where none are named."""

    def build(*classes: str, images: int = 2, side: int = 32) -> Path:
        root = tmp_path / "images"
        stream = np.random.default_rng(0)
        for name in classes or CLASSES:
            (root / name).mkdir(parents=True)
            for number in range(images):
                pixels = stream.integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name / f"{number:04d}.png")
        return root

    return build


@pytest.fixture
def cifar_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`cifar_folder(images=4)`: torchvision's layout with so many images a file, whose checksums
    stand in the place of the original files'."""

    def build(images: int = 4) -> Path:
        root = tmp_path / "torchvision"
        folder = root / CIFAR10.base_folder
        folder.mkdir(parents=True)
        stream = np.random.default_rng(0)
        sums = {}

        def write(name: str, content: dict[str, Any]) -> None:
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
            digest = hashlib.md5((folder / name).read_bytes(), usedforsecurity=False)
            sums[name] = digest.hexdigest()

        for name, _ in CIFAR10.train_list:
            batch = {
                "batch_label": name,
                "labels": stream.integers(0, 10, images).tolist(),
                "data": stream.integers(0, 256, (images, 3 * 32 * 32), dtype=np.uint8),
                "filenames": [f"{number}.png" for number in range(images)],
            }
            write(name, batch)
        monkeypatch.setattr(CIFAR10, "train_list", [list(pair) for pair in sums.items()])
        write("batches.meta", {"label_names": CLASSES, "num_vis": 3072})
        meta = {**CIFAR10.meta, "md5": sums["batches.meta"]}
        monkeypatch.setattr(CIFAR10, "meta", meta)
        return root

    return build
