"""Small stand-ins for data sets, written to disk in the layouts that users have."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

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


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 did, whose `str` was both."""

    dispatch: ClassVar[dict[Any, Any]] = dict(pickle._Pickler.dispatch)

    def save_python2_str(self, value: str | bytes) -> None:
        raw = value.encode("latin-1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = save_python2_str
    dispatch[bytes] = save_python2_str


def python2_pickle(content: Any) -> bytes:
    """As CIFAR-10's own files are written."""
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


@pytest.fixture
def cifar_folder(tmp_path: Path) -> Callable[..., Path]:
    """`cifar_folder(images=4)`: torchvision's layout with so many images a file. `write` makes the
    bytes of a file from its content."""

    def build(images: int = 4, write: Callable[[Any], bytes] = python2_pickle) -> Path:
        root = tmp_path / "torchvision"
        folder = root / "cifar-10-batches-py"
        folder.mkdir(parents=True)
        stream = np.random.default_rng(0)
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            batch = {
                "batch_label": name,
                "labels": stream.integers(0, 10, images).tolist(),
                "data": stream.integers(0, 256, (images, 3 * 32 * 32), dtype=np.uint8),
                "filenames": [f"{number}.png" for number in range(images)],
            }
            (folder / name).write_bytes(write(batch))
        (folder / "batches.meta").write_bytes(write({"label_names": CLASSES, "num_vis": 3072}))
        return root

    return build
