"""Samples as the file that ADM's evaluator reads, for anyone to check the figures with."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from harness.atomic_file import atomic_path
from harness.evaluation.features import ImageRows
from harness.npz_array import begin_array

_AT_ONCE = 256
"""Images in memory."""


def export_adm(images: ImageRows, path: Path) -> None:
    """Write `arr_0`, (N, H, W, 3) uint8; grey images are stored three times over.

    Args:
        images: (N, H, W, C) with 1 or 3 channels.
        path: of the `.npz`.
    """
    shape = (*images.shape[:3], 3)
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        archive.open("arr_0.npy", "w", force_zip64=True) as file,
    ):
        begin_array(file, shape, np.dtype(np.uint8))
        for start in range(0, len(images), _AT_ONCE):
            part = images[start : min(start + _AT_ONCE, len(images))]
            file.write(np.broadcast_to(part, (len(part), *shape[1:])).tobytes())
