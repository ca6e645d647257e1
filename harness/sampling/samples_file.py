"""Samples as a file that ADM's evaluator reads: `arr_0`, images, and `arr_1`, labels."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.atomic_file import atomic_path
from models.errors import UserError

_AT_ONCE = 256
"""Images in memory while writing."""
_CHUNK = 2**20


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
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            shape = (*images.shape[:3], 3)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(images), _AT_ONCE):
                part = images[start : start + _AT_ONCE]
                file.write(np.broadcast_to(part, (len(part), *shape[1:])).tobytes())
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
            mapped = _mapped(path, "arr_0.npy")
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


def _mapped(path: Path, name: str) -> NDArray[np.uint8] | None:
    """An array of bytes in an archive, mapped into memory; None where it is compressed or other."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        member = archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            return None
        # A mapped array is not checked as it is read, so all of it is checked once.
        with archive.open(member) as content:
            while content.read(_CHUNK):
                pass
        file.seek(member.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, 1)
        if np.lib.format.read_magic(file) != (1, 0):
            return None
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        if fortran_order or dtype != np.uint8:
            return None
        return np.memmap(path, dtype=np.uint8, mode="r", offset=file.tell(), shape=shape)


def _describe(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {array.shape}"
