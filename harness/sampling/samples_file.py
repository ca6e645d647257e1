"""Samples as a file that ADM's evaluator reads: `arr_0`, images, and `arr_1`, labels."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.machine.files import atomic_path
from harness.machine.npz import map_member, write_colour_images
from models.errors import UserError


def save_samples(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write samples atomically.

    Args:
        path: ends in `.npz`.
        images: (N, H, W, C) with 3 channels, or 1 that is stored three times, since the evaluator
            knows colour images only.
        labels: (N,).

    Raises:
        ValueError: shapes or types are not these.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"samples must be uint8 (N, H, W, 1 or 3), not {_describe(images)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} samples need as many labels, not {_describe(labels)}")
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        write_colour_images(archive, "arr_0", images)
        with archive.open("arr_1.npy", "w") as file:
            np.lib.format.write_array(file, labels, allow_pickle=False)


def load_samples(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read images (N, H, W, 3) uint8 and labels (N,) int64.

    Images that are stored uncompressed stay on the disk until they are looked at.

    Raises:
        UserError: the file is missing, damaged or not of this layout.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            labels = stored["arr_1"]
            mapped = map_member(path, "arr_0.npy")
            images = stored["arr_0"] if mapped is None else mapped
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no file of samples ({error}): expected an .npz with arr_0 and arr_1"
        ) from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"{path}: arr_0 must be uint8 (N, H, W, 3), not {_describe(images)}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
        raise UserError(f"{path}: arr_1 must be {len(images)} labels, not {_describe(labels)}")
    return images, labels.astype(np.int64)


def _describe(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {array.shape}"
