"""The classes of images from anywhere: folders of class folders, or `arr_1` as ADM writes it."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.data.walk import class_order
from harness.evaluation.image_inputs import find_images
from models.errors import UserError

_LABELS = "arr_1"
_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class ClassLabels:
    """Which class each image of two sets is of."""

    names: tuple[str, ...]
    """Of the classes, by their labels 0..K-1."""
    samples: NDArray[np.int64]
    """(N,)."""
    reference: NDArray[np.int64]
    """(M,)."""


@dataclass(frozen=True)
class _Labelled:
    path: Path
    names: tuple[str, ...] | None
    """None where classes are numbers alone."""
    labels: NDArray[np.int64]


def matched_labels(samples: Path, reference: Path) -> ClassLabels:
    """The labels of both sides, as numbers that mean the same class.

    A class folder is the first folder below the one that is named. Numbers stand for class folders
    in alphabetical order, as in torchvision's ImageFolder.

    Args:
        samples: a folder of class folders, or an `.npz` with `arr_1`.
        reference: the same; or a reference in ADM's layout that holds `arr_1` beside its images.

    Raises:
        UserError: there are no labels, or the samples have a class that the reference lacks.
    """
    ours, real = _labels(samples), _labels(reference)
    if real.names is not None:
        names = real.names
        labels = real.labels
    elif ours.names is not None:
        names = ours.names
        labels = _numbers_within(real, len(names), ours.path)
    else:
        names = tuple(str(label) for label in range(int(real.labels.max()) + 1))
        labels = real.labels
    if ours.names is None:
        ours_labels = _numbers_within(ours, len(names), real.path)
    else:
        unknown = sorted(set(ours.names) - set(names))
        if unknown:
            raise UserError(
                f"{ours.path} has the class {unknown[0]!r}, which {real.path} lacks: expected its "
                f"classes, {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            )
        places = np.array([names.index(name) for name in ours.names], dtype=np.int64)
        ours_labels = places[ours.labels]
    return ClassLabels(names, ours_labels, labels)


def _numbers_within(labelled: _Labelled, count: int, other: Path) -> NDArray[np.int64]:
    largest = int(labelled.labels.max())
    if largest >= count:
        raise UserError(
            f"{labelled.path} has the label {largest}, but {other} has the classes 0 to "
            f"{count - 1}: expected labels of the same classes"
        )
    return labelled.labels


def _labels(path: Path) -> _Labelled:
    if path.is_dir():
        return _folder_labels(path)
    if path.suffix != ".npz":
        raise UserError(f"{path} holds no labels: {_expected()}")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if _LABELS not in stored:
                raise UserError(f"{path} holds no labels {_LABELS}: {_expected()}")
            labels = stored[_LABELS]
            images = _length(path, "arr_0")
    except _UNREADABLE as error:
        raise UserError(
            f"{path} cannot be read ({error}): it is damaged, truncated or no file of arrays"
        ) from error
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or (labels < 0).any():
        raise UserError(
            f"{path}: {_LABELS} is {labels.dtype} {labels.shape}, expected a label from 0 for "
            "each image, as integers"
        )
    if images is not None and images != len(labels):
        raise UserError(f"{path}: {len(labels)} labels {_LABELS} for {images} images arr_0")
    return _Labelled(path, None, labels.astype(np.int64))


def _folder_labels(folder: Path) -> _Labelled:
    parts = [tuple(name.split("/")) for name in find_images(folder).names]
    loose = next((part for part in parts if len(part) < 2), None)
    if loose is not None:
        raise UserError(f"{folder / loose[0]} lies in no class folder: {_expected()}")
    names = tuple(sorted({part[0] for part in parts}, key=class_order))
    places = {name: place for place, name in enumerate(names)}
    return _Labelled(folder, names, np.array([places[part[0]] for part in parts], dtype=np.int64))


def _length(path: Path, name: str) -> int | None:
    """Rows of an array of an archive, from its header; None where there is no such array."""
    with zipfile.ZipFile(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            return None
        with archive.open(f"{name}.npy") as file:
            version: Any = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape = read(file)[0]
    return int(shape[0]) if shape else None


def _expected() -> str:
    return (
        "figures of each class need a folder of class folders, or an .npz with a label for each "
        f"image in {_LABELS}"
    )
