"""The sample figure: a row a class, a block of columns a variant, of one seed where possible."""

from __future__ import annotations

import re
import textwrap
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from harness.vocabulary import names
from reports.figures.panels import PAGE_WIDTH
from reports.load import AblationRuns, fetched_artifact, open_store

_NOT_A_GRID = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

MOST_CLASSES = 20
_SMALLEST_CELL, _LARGEST_CELL = 0.28, 0.55
"""Inches a side of one image."""
_BLOCK_GAP = 0.12
_CELL_PIXELS = 96
"""Tiny images are enlarged by a whole number to about this size."""
_FONT_SIZE = 8
_CHARACTER_WIDTH = 0.068
"""Inches that a character of this size takes on average, rather too much than too little."""


@dataclass(frozen=True)
class Grid:
    """A trial's samples, the same starting noise and labels for every variant."""

    variant: str
    seed: int
    images: np.ndarray
    """(classes, images a class, H, W, 1 or 3) uint8."""
    class_names: tuple[str, ...]


def load_grids(runs: AblationRuns) -> tuple[list[Grid], list[str]]:
    """The grids that stand side by side, in table order, and in words what the picture lacks.

    Of each variant only the grid of one seed is fetched. It is the first seed that all variants
    have finished, since equal seeds share noise and labels, else each variant's first. A grid that
    is missing, cannot be read, or shows other classes than the first one is left out.
    """
    grids: list[Grid] = []
    faults = []
    counts = runs.trials.groupby("seed", sort=False)["variant"].nunique()
    in_common = counts[counts == runs.trials["variant"].nunique()]
    if in_common.empty:
        chosen = runs.trials.drop_duplicates("variant")
        faults.append("shows different seeds, so cells do not share their noise")
    else:
        chosen = runs.trials[runs.trials["seed"] == in_common.index[0]]
    name = names.ARTIFACT_GRID_IMAGES
    with open_store(runs.tracking_uri, runs.ablation, runs.scale) as client:
        for trial in chosen.to_dict("records"):
            variant, run_id = trial["variant"], trial["run_id"]
            with fetched_artifact(client, run_id, name) as path:
                if path is None:
                    faults.append(f"lacks {variant}: its run holds no {name}")
                    continue
                try:
                    grid = _read_grid(path, variant, int(trial["seed"]))
                except _NOT_A_GRID as error:
                    faults.append(f"lacks {variant}: {name} of run {run_id} is no grid ({error})")
                    continue
            if grids and grid.class_names != grids[0].class_names:
                faults.append(f"lacks {variant}: its classes are not those of {grids[0].variant}")
            else:
                grids.append(grid)
    return grids, faults


def _read_grid(path: Path, variant: str, seed: int) -> Grid:
    """Raises one of `_NOT_A_GRID`."""
    with np.load(path, allow_pickle=False) as arrays:
        images, class_names = arrays["images"], arrays["class_names"]
    if (
        images.ndim != 5
        or images.dtype != np.uint8
        or images.shape[-1] not in (1, 3)
        or 0 in images.shape
        or class_names.shape != images.shape[:1]
    ):
        raise ValueError(f"images {images.shape} {images.dtype}, class names {class_names.shape}")
    return Grid(variant, seed, images, tuple(map(str, class_names)))


def draw_samples(grids: Sequence[Grid]) -> Figure | None:
    """Equal cells hold samples from the same noise and label, so blocks compare cell by cell.

    Grey images are drawn in grey, tiny ones with hard pixel edges. Where the blocks would not fit
    the width of a page, each shows its first images only; of very many classes the first are
    shown.

    Args:
        grids: all of the same classes; None where there are none.
    """
    if not grids:
        return None
    class_names = grids[0].class_names[:MOST_CLASSES]
    rows = len(class_names)
    fitting = max(1, int(PAGE_WIDTH / _SMALLEST_CELL / len(grids)))
    columns = min(fitting, *(grid.images.shape[1] for grid in grids))
    cell = PAGE_WIDTH / (columns * len(grids))
    cell = min(max(cell, _SMALLEST_CELL), _LARGEST_CELL)
    block = columns * cell
    titles = [_wrapped(grid.variant, block) for grid in grids]
    top = (max(title.count("\n") for title in titles) + 1) * 0.16 + 0.06
    left = max(map(len, class_names)) * _CHARACTER_WIDTH + 0.1
    width = left + len(grids) * block + (len(grids) - 1) * _BLOCK_GAP
    height = top + rows * cell
    figure = Figure(figsize=(width, height))

    def write(x: float, from_top: float, text: str, ha: str, va: str) -> None:
        place = (x / width, 1 - from_top / height)
        figure.text(*place, text, ha=ha, va=va, fontsize=_FONT_SIZE, parse_math=False)

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
        write(x + block / 2, top - 0.06, title, "center", "bottom")
    for row, name in enumerate(class_names):
        write(left - 0.07, top + (row + 0.5) * cell, name, "right", "center")
    return figure


def _montage(images: np.ndarray) -> np.ndarray:
    """(rows, columns, H, W, C) to one picture with white lines between the images."""
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
