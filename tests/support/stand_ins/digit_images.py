"""scikit-learn's digits as 8-bit images, in memory and as folders of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

DIGITS = (load_digits().images * (255 / 16)).round().astype(np.uint8)
"""(1797, 8, 8)."""


def write_digits(folder: Path, samples: int, real: int) -> Path:
    """Write the first digits to `samples` and the next ones to `real`; the folder of both."""
    for name, part in (("samples", DIGITS[:samples]), ("real", DIGITS[samples : samples + real])):
        (folder / name).mkdir()
        for number, image in enumerate(part):
            Image.fromarray(image).save(folder / name / f"{number:03}.png")
    return folder
