from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.support.stand_ins.digit_images import DIGITS
from tests.support.stand_ins.random_projection import RandomProjection


@pytest.fixture
def projection() -> RandomProjection:
    return RandomProjection()


@pytest.fixture(scope="session")
def digits() -> np.ndarray:
    """(1797, 8, 8, 1) uint8, in the data set's order."""
    return DIGITS[..., None]


class Labelled(NamedTuple):
    """Features of real images, and the classes of these."""

    features: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session")
def cifar(shared_data: Path) -> Labelled:
    """(400, 48) float64 of 40 real JPEGs a class: their pixels, averaged over 8 x 8 squares."""
    features, labels = [], []
    with zipfile.ZipFile(shared_data / "cifar10-test.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[0] for name in names})
        for label, one in enumerate(classes):
            for name in [name for name in names if name.startswith(f"{one}/")][:40]:
                pixels = np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
                means = pixels.reshape(4, 8, 4, 8, 3).mean(axis=(1, 3), dtype=np.float64)
                features.append(means.reshape(-1) / 255)
                labels.append(label)
    return Labelled(np.array(features), np.array(labels))
