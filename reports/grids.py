"""The sample grids of an ablation, one a variant, all of one seed where that can be."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.vocabulary import names
from reports.load import AblationRuns
from reports.mlflow_store import fetched_artifact, has_artifact, open_store

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np


_NOT_A_GRID = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Grid:
    """A trial's samples, the same starting noise and labels for every variant."""

    variant: str
    seed: int
    images: np.ndarray
    """(classes, images a class, H, W, 1 or 3) uint8."""
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class SampleGrids:
    """The grids that stand side by side, and in words what is wrong with the picture."""

    grids: tuple[Grid, ...]
    faults: tuple[str, ...]


def load_grids(runs: AblationRuns) -> SampleGrids:
    """In table order. Of each variant only the grid of one seed is fetched.

    It is the first seed that all variants have finished, since equal seeds share noise and labels,
    else each variant's first. A grid that is missing, cannot be read, or shows other classes than
    the first one is left out.
    """
    grids: list[Grid] = []
    faults = []
    seed_in_common = _seed_in_common(runs)
    if seed_in_common is None:
        chosen = runs.trials.drop_duplicates("variant")
        faults.append("shows different seeds, so cells do not share their noise")
    else:
        chosen = runs.trials[runs.trials["seed"] == seed_in_common]
    with open_store(runs.tracking_uri, f"run `{runs.command}` first") as client:
        trials = zip(chosen["variant"], chosen["seed"], chosen["run_id"], strict=True)
        for variant, seed, run_id in trials:
            if not has_artifact(client, run_id, names.ARTIFACT_GRID_IMAGES):
                faults.append(f"lacks {variant}: its run holds no {names.ARTIFACT_GRID_IMAGES}")
                continue
            with fetched_artifact(client, run_id, names.ARTIFACT_GRID_IMAGES) as path:
                try:
                    grid = _read_grid(path, variant, int(seed))
                except _NOT_A_GRID as error:
                    problem = f"{names.ARTIFACT_GRID_IMAGES} of run {run_id} is no grid ({error})"
                    faults.append(f"lacks {variant}: {problem}")
                    continue
            if grids and grid.class_names != grids[0].class_names:
                faults.append(f"lacks {variant}: its classes are not those of {grids[0].variant}")
                continue
            grids.append(grid)
    return SampleGrids(tuple(grids), tuple(faults))


def _seed_in_common(runs: AblationRuns) -> int | None:
    """The first seed, in the order of the trials, that every variant with any trial has."""
    counts = runs.trials.groupby("seed", sort=False)["variant"].nunique()
    complete = counts[counts == runs.trials["variant"].nunique()]
    return None if complete.empty else int(complete.index[0])


def _read_grid(path: Path, variant: str, seed: int) -> Grid:
    """Raises one of `_NOT_A_GRID`."""
    import numpy as np

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
    return Grid(variant, seed, images, tuple(str(name) for name in class_names))
