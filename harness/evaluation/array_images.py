"""Images in one array of a file, checked and brought to (N, H, W, C) uint8 as they are read."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.machine.npz import StreamedArray, open_npz_array
from models.errors import UserError

_LOOKED_AT = 1000
"""Images of a wrong type that are read to say how to convert them."""
_OPAQUE = 255
_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


class ArrayImages:
    """Rows of an array, which is read as it is sliced."""

    def __init__(self, path: Path, array: NDArray[Any] | StreamedArray, what: str) -> None:
        """Check type and shape.

        Args:
            path: of the file, for messages.
            array: (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels, uint8.
            what: the array in words, for messages.

        Raises:
            UserError: another type or shape; the message says how to convert it.
        """
        self.path = path
        self._array = array
        self._what = what
        if array.dtype != np.uint8:
            raise UserError(f"{path}: {what} is {array.dtype}, expected uint8: {self._mend()}")
        shape = array.shape
        if len(shape) == 3 and shape[2] not in (3, 4):
            shape = (*shape, 1)
        if len(shape) != 4 or shape[3] not in (1, 3, 4):
            raise UserError(f"{path}: {what} has the shape {array.shape}, {self._expected()}")
        self.stored_channels = shape[3]
        self.shape = (*shape[:3], min(shape[3], 3))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        try:
            part = np.asarray(self._array[rows])
        except _UNREADABLE as error:
            raise UserError(
                f"{self.path} is damaged or truncated ({error}): write or fetch it again"
            ) from error
        part = part.reshape(len(part), *self.shape[1:3], self.stored_channels)
        if self.stored_channels == 4:
            clear = np.flatnonzero((part[..., 3] != _OPAQUE).any(axis=(1, 2)))
            if len(clear):
                first = rows.indices(len(self))[0] + int(clear[0])
                raise UserError(
                    f"{self.path}: image {first} has transparent pixels: put it on a background "
                    "and store three channels"
                )
        return part[..., : self.shape[3]]

    def _expected(self) -> str:
        shape = self._array.shape
        if len(shape) == 4 and shape[1] in (1, 3, 4):
            return "so channels come first: np.transpose(x, (0, 2, 3, 1)) puts them last"
        if len(shape) == 3:
            return "which is a single image: expected (N, H, W, 3), two images or more"
        return "expected (N, H, W, 3), or (N, H, W) for grey images"

    def _mend(self) -> str:
        """How to make uint8 of it, from what its values are."""
        dtype = self._array.dtype
        if dtype.kind in "iu":
            return "x.astype(np.uint8), where all values are 0 to 255"
        if dtype.kind != "f":
            return "images as numbers from 0 to 255"
        values = np.asarray(self._array[:_LOOKED_AT], dtype=np.float64)
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
            return f"image {bad[0]} has pixels that are NaN or infinite, so find out why first"
        low, high = values.min(initial=0), values.max(initial=0)
        if low < 0:
            return (
                f"the values {low:.3g} to {high:.3g} look like -1 to 1, so "
                "(127.5 * x + 128).clip(0, 255).astype(np.uint8)"
            )
        if high <= 1:
            return (
                f"the values {low:.3g} to {high:.3g} look like 0 to 1, so "
                "(255 * x).round().astype(np.uint8)"
            )
        return "x.round().clip(0, 255).astype(np.uint8), where 255 is white"


def open_array_images(path: Path) -> ArrayImages:
    """The images of a `.npz` in ADM's layout (`arr_0`), or of a `.npy`.

    Raises:
        UserError: the file is missing, damaged or holds something else.
    """
    try:
        if path.suffix == ".npy":
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return ArrayImages(path, array, "the array")
        return ArrayImages(path, open_npz_array(path, "arr_0"), "arr_0")
    except KeyError:
        with zipfile.ZipFile(path) as archive:
            held = ", ".join(name.removesuffix(".npy") for name in archive.namelist())
        raise UserError(
            f"{path} has no array arr_0, which holds the images in ADM's layout; it has {held}"
        ) from None
    except _UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read ({error}): it is damaged, truncated or no file of arrays"
        ) from error
