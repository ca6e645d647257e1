"""Grids of samples, a row a class, for a look at what a network draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.machine.files import atomic_path

_SMALLEST_CELL = 48
_GAP = 2
_BACKGROUND = 255
_MISSING = 127
_MOST_CLASSES = 20


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
