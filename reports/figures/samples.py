"""The side-by-side sample figure: a row a class, a block of columns a variant."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.grids import Grid

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

MOST_CLASSES = 20
_TEXT_WIDTH = 6.5
"""Inches that the images share; the width of a page's text."""
_SMALLEST_CELL, _LARGEST_CELL = 0.28, 0.55
"""Inches a side of one image."""
_BLOCK_GAP = 0.12
_CELL_PIXELS = 96
"""Tiny images are enlarged by a whole number to about this size."""
_FONT_SIZE = 8
_CHARACTER_WIDTH = 0.068
"""Inches that a character of this size takes on average, rather too much than too little."""


def draw_samples(grids: Sequence[Grid]) -> Figure:
    """Equal cells hold samples from the same noise and label, so blocks compare cell by cell.

    Grey images are drawn in grey, tiny ones with hard pixel edges. Where the blocks would not fit
    the width of a page, each shows its first images only; of very many classes the first are
    shown.

    Args:
        grids: at least one, all of the same classes.
    """
    from matplotlib.figure import Figure

    class_names = grids[0].class_names
    rows = min(len(class_names), MOST_CLASSES)
    fitting = max(1, int(_TEXT_WIDTH / _SMALLEST_CELL / len(grids)))
    columns = min(fitting, *(grid.images.shape[1] for grid in grids))
    cell = _TEXT_WIDTH / (columns * len(grids))
    cell = min(max(cell, _SMALLEST_CELL), _LARGEST_CELL)
    block = columns * cell
    titles = [_wrapped(grid.variant, block) for grid in grids]
    top = (max(title.count("\n") for title in titles) + 1) * 0.16 + 0.06
    left = max(len(name) for name in class_names[:rows]) * _CHARACTER_WIDTH + 0.1
    width = left + len(grids) * block + (len(grids) - 1) * _BLOCK_GAP
    height = top + rows * cell
    figure = Figure(figsize=(width, height))
    for index, (grid, title) in enumerate(zip(grids, titles, strict=True)):
        x = left + index * (block + _BLOCK_GAP)
        axes = figure.add_axes((x / width, 0, block / width, rows * cell / height))
        axes.set_axis_off()
        axes.imshow(
            _montage(grid.images[:rows, :columns]),
            cmap="gray",
            vmin=0,
            vmax=255,
            aspect="auto",
            interpolation="nearest" if grid.images.shape[2] < _CELL_PIXELS else "antialiased",
        )
        figure.text(
            (x + block / 2) / width,
            1 - (top - 0.06) / height,
            title,
            ha="center",
            va="bottom",
            fontsize=_FONT_SIZE,
            parse_math=False,
        )
    for row, name in enumerate(class_names[:rows]):
        figure.text(
            (left - 0.07) / width,
            1 - (top + (row + 0.5) * cell) / height,
            name,
            ha="right",
            va="center",
            fontsize=_FONT_SIZE,
            parse_math=False,
        )
    return figure


def _montage(images: np.ndarray) -> np.ndarray:
    """(rows, columns, H, W, C) to one picture with white lines between the images."""
    import numpy as np

    factor = max(1, _CELL_PIXELS // max(images.shape[2:4]))
    large = images.repeat(factor, axis=2).repeat(factor, axis=3)
    gap = max(1, round(0.03 * max(large.shape[2:4])))
    framed = np.pad(large, ((0, 0), (0, 0), (gap, gap), (gap, gap), (0, 0)), constant_values=255)
    rows, columns, height, width, channels = framed.shape
    picture = framed.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return picture[..., 0] if channels == 1 else picture


def _wrapped(name: str, inches: float) -> str:
    """Break at spaces and hyphens, and where that does not do, at underscores first."""
    characters = max(4, int(inches / _CHARACTER_WIDTH))
    longest = max(map(len, re.split(r"(?<=-)| ", name)))
    lines = textwrap.wrap(name.replace("_", "_ ") if longest > characters else name, characters)
    return "\n".join(line.replace("_ ", "_") for line in lines)
