"""Images from anywhere: a folder, an `.npz` in ADM's layout or a `.npy`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.array_images import ArrayImages, open_array_images
from harness.evaluation.image_folder import FolderImages
from harness.machine.npz import ImageRows
from harness.processes.group import ALONE, ProcessGroup
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
    """Images that are hashed on their way, each of them once or more, in whatever order."""

    def __init__(self, images: ImageRows) -> None:
        self._images = images
        self._digests = np.zeros((len(images), hashlib.sha256().digest_size), dtype=np.uint8)
        self._seen = np.zeros(len(images), dtype=np.bool_)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        part = self._images[rows]
        for row, image in zip(range(*rows.indices(len(self))), part, strict=True):
            digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
            self._digests[row] = np.frombuffer(digest, dtype=np.uint8)
            self._seen[row] = True
        return part

    def sha256(self, group: ProcessGroup = ALONE) -> str:
        """64 hex digits: the SHA-256 of the shape as text and of the SHA-256 of each image.

        Args:
            group: of processes that call this together, each of which read some of the images.

        Raises:
            ValueError: not all images have been read.
        """
        own = np.flatnonzero(self._seen)
        read = group.gather((own, self._digests[own]))
        found = None if read is None else self._of_all(read)
        return group.broadcast(found or "")

    def _of_all(self, read: Sequence[tuple[NDArray[np.intp], NDArray[np.uint8]]]) -> str:
        for rows, digests in read:
            self._digests[rows], self._seen[rows] = digests, True
        if not self._seen.all():
            raise ValueError(f"{self._seen.sum()} of {len(self)} images have been read")
        text = repr(tuple(self.shape)).encode()
        return hashlib.sha256(text + self._digests.tobytes()).hexdigest()


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
