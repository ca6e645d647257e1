"""Images from anywhere: a folder, an `.npz` in ADM's layout or a `.npy`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.array_images import ArrayImages, open_array_images
from harness.evaluation.image_folder import FolderImages
from harness.image_rows import ImageRows
from models.errors import UserError

_FEWEST = 2


@dataclass(frozen=True)
class ImageInput:
    """Images, and what should be said of them."""

    images: ImageRows
    source: str
    """Where they come from, in words."""
    notes: tuple[str, ...]
    """What was done to them."""


class HashedRows:
    """Images that are hashed on their way, if they are read once from first to last."""

    def __init__(self, images: ImageRows) -> None:
        self._images = images
        self._digest = hashlib.sha256(repr(tuple(images.shape)).encode())
        self._read = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        part = self._images[rows]
        start, stop, _ = rows.indices(len(self))
        if start == self._read:
            self._digest.update(np.ascontiguousarray(part).data)
            self._read = stop
        return part

    def sha256(self) -> str:
        """64 hex digits over the shape and all pixels.

        Raises:
            ValueError: not all images have been read.
        """
        if self._read != len(self):
            raise ValueError(f"{self._read} of {len(self)} images have been read")
        return self._digest.hexdigest()


def open_images(path: Path) -> ImageInput:
    """See what images there are, without reading all of them.

    Args:
        path: a folder of image files, at any depth; an `.npz` with `arr_0`; or a `.npy`.

    Raises:
        UserError: nothing is there, it holds no images as they are expected, or fewer than two.
    """
    if not path.exists():
        raise UserError(f"there is no {path}: expected a folder of images, an .npz or a .npy")
    images: FolderImages | ArrayImages
    if path.is_dir():
        images = FolderImages(path)
        grey = images.grey
    else:
        images = open_array_images(path)
        grey = len(images) if images.stored_channels == 1 else 0
    if len(images) < _FEWEST:
        raise UserError(f"{path} holds {len(images)} images, but at least {_FEWEST} are needed")
    notes = []
    if grey:
        count = "all" if grey == len(images) else f"{grey:,} of {len(images):,}"
        notes.append(f"{path}: {count} images are grey, shown as three equal channels")
    if isinstance(images, ArrayImages) and images.stored_channels == 4:
        notes.append(f"{path}: the fourth channel is opacity, and left out")
    return ImageInput(images, str(path), tuple(notes))
