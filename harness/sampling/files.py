"""Files of samples: an unfinished one, the one that ADM's evaluator reads, and grids to look at."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.machine.files import DamagedFileError, atomic_path, read_json, write_json
from harness.machine.npz import map_member, write_colour_images
from models.errors import UserError

_SMALLEST_CELL = 48
_GAP = 2
_BACKGROUND = 255
_MISSING = 127
_MOST_CLASSES = 20


class FileSink:
    """Keeps samples in a file of their final size, and beside it how many of them are whole.

    Samples depend on their index alone, so a process that goes on after another one gives the file
    that one process would have given.

    Args:
        folder: gets `samples.partial.npy` and `samples.partial.json`.
        count: N.
        origin: all that the samples depend on; what another origin left behind is not used.
    """

    def __init__(self, folder: Path, count: int, origin: str) -> None:
        self.path = folder / "samples.partial.npy"
        self.state = folder / "samples.partial.json"
        self.count = count
        self.origin = origin
        self.done = self._found()
        """How many of the first samples are there already."""

    def write(self, images: NDArray[np.uint8]) -> None:
        """Append samples (B, H, W, C) uint8."""
        if self.done == 0:
            shape = (self.count, *images.shape[1:])
            stored = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.uint8, shape=shape)
        else:
            stored = np.lib.format.open_memmap(self.path, mode="r+")
        stored[self.done : self.done + len(images)] = images
        # On the disk before the count says so.
        stored.flush()
        del stored
        self.done += len(images)
        write_json(self.state, {"origin": self.origin, "done": self.done})

    @property
    def images(self) -> NDArray[np.uint8]:
        """All samples, (N, H, W, C), once all are there."""
        return np.lib.format.open_memmap(self.path, mode="r")

    def remove(self) -> None:
        """Delete both files, once the samples are kept elsewhere."""
        self.state.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _found(self) -> int:
        """How many samples of the same origin an earlier process left; 0 where that is unclear."""
        try:
            state = read_json(self.state)
            stored = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, DamagedFileError, ValueError, EOFError):
            return 0
        whole = stored.dtype == np.uint8 and stored.ndim == 4 and len(stored) == self.count
        if not whole or not isinstance(state, dict) or state.get("origin") != self.origin:
            return 0
        done = state.get("done")
        return done if isinstance(done, int) and 0 <= done <= self.count else 0


def save_samples(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    """Write samples to an `.npz`, atomically: images as `arr_0` and labels (N,) as `arr_1`.

    Images are (N, H, W, C) with 3 channels, or 1 that is stored three times, since ADM's evaluator
    knows colour images only.

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


def shown_classes(num_classes: int) -> tuple[int, ...]:
    """The labels of a grid's rows: all, or where there are many, some spread evenly."""
    spread = np.linspace(0, num_classes - 1, min(num_classes, _MOST_CLASSES))
    return tuple(map(int, spread.round()))


def class_grid(
    images: NDArray[np.uint8], labels: NDArray[np.int64], shown: Sequence[int], per_class: int
) -> NDArray[np.uint8]:
    """The first of the images (N, H, W, C) of each class, in the order of their indices.

    Returns:
        (rows, per_class, H, W, C), a row a label of `shown`; cells of classes with fewer images are
        mid-grey.
    """
    grid = np.full((len(shown), per_class, *images.shape[1:]), _MISSING, dtype=np.uint8)
    for row, label in enumerate(shown):
        chosen = images[np.flatnonzero(labels == label)[:per_class]]
        grid[row, : len(chosen)] = chosen
    return grid


def save_grid_png(path: Path, grid: NDArray[np.uint8]) -> None:
    """Write a grid (rows, columns, H, W, C) of 1 or 3 channels as a PNG, atomically, small images
    enlarged by a whole factor without smoothing."""
    from PIL import Image

    height, width, channels = grid.shape[2:]
    factor = max(1, -(-_SMALLEST_CELL // min(height, width)))
    cells = grid.repeat(factor, axis=2).repeat(factor, axis=3)
    margin = ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0))
    padded = np.pad(cells, margin, constant_values=_BACKGROUND)
    rows, columns, cell_height, cell_width, _ = padded.shape
    # (rows, columns, h, w, C) -> (rows * h, columns * w, C)
    picture = padded.transpose(0, 2, 1, 3, 4).reshape(
        rows * cell_height, columns * cell_width, channels
    )
    framed = np.pad(picture, ((_GAP, 0), (_GAP, 0), (0, 0)), constant_values=_BACKGROUND)
    with atomic_path(path) as temporary:
        Image.fromarray(framed[..., 0] if channels == 1 else framed).save(temporary, format="PNG")
