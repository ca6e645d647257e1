"""Samples as the file that ADM's evaluator reads, for anyone to check the figures with."""

from __future__ import annotations

import zipfile
from pathlib import Path

from harness.image_rows import ImageRows
from harness.machine.files import atomic_path
from harness.machine.npz import write_colour_images


def export_adm(images: ImageRows, path: Path) -> None:
    """Write `arr_0`, (N, H, W, 3) uint8; grey images are stored three times over.

    Args:
        images: (N, H, W, C) with 1 or 3 channels.
        path: of the `.npz`.
    """
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        write_colour_images(archive, "arr_0", images)
