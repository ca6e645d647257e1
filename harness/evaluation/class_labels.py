"""The classes of images from anywhere: folders of class folders, or `arr_1` as ADM writes it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.walk import class_order
from harness.evaluation.image_inputs import find_images, reading_arrays
from harness.machine.files import shown_names
from harness.machine.npz import array_shape, load_arrays
from models.errors import UserError

_LABELS = "arr_1"
_LARGEST = 999_999
_EXPECTED = (
    "figures of each class need a folder of class folders, or an .npz with a label for each image "
    f"in {_LABELS}"
)


@dataclass(frozen=True)
class ClassLabels:
    """Which class each image of two sets is of."""

    names: tuple[str, ...]
    """Of the classes, by their labels 0..K-1."""
    samples: NDArray[np.int64]
    """(N,)."""
    reference: NDArray[np.int64]
    """(M,)."""
    mapping: str
    """Which label or folder of the samples is which class, where names alone do not say it."""


@dataclass(frozen=True)
class Labelled:
    """Which class each image of one set is of."""

    path: Path
    names: tuple[str, ...] | None
    """None where classes are numbers alone."""
    labels: NDArray[np.int64]


def matched_labels(samples: Path, reference: Path) -> ClassLabels:
    """The labels of both sides, as numbers that mean the same class.

    A class folder is the first folder below the one that is named. Folders match by their names;
    those that are numbers match by the number, so "01" is class 1. Labels in an array that are
    all numbers of folders mean these; others count the folders from 0, in the order of
    `class_order`, as data sets and `torchvision.datasets.ImageFolder` do.

    Args:
        samples: a folder of class folders, or an `.npz` with `arr_1`.
        reference: such a folder or file, which may be a reference in ADM's layout.

    Raises:
        UserError: there are no labels, or the samples have a class that the reference lacks.
    """
    ours, real = read_labels(samples), read_labels(reference)
    if real.names is None and ours.names is None:
        names = tuple(map(str, range(int(real.labels.max()) + 1)))
        labels, _ = _as_folders(ours, names, real.path)
        return ClassLabels(names, labels, real.labels, "")
    if ours.names is None:
        names = real.names or ()
        labels, mapping = _as_folders(ours, names, real.path)
        return ClassLabels(names, labels, real.labels, mapping)
    if real.names is None:
        labels, mapping = _as_folders(real, ours.names, ours.path)
        return ClassLabels(ours.names, ours.labels, labels, mapping)
    places = _places(real.names)
    unknown = sorted({name for name in ours.names if _by_number(name) not in places})
    if unknown:
        raise UserError(
            f"{ours.path} has the class {unknown[0]!r}, which {real.path} lacks: expected its "
            f"classes, {shown_names(list(real.names))}"
        )
    renumbered = [places[_by_number(name)] for name in ours.names]
    pairs = [
        f"{name} is {real.names[place]}"
        for name, place in zip(ours.names, renumbered, strict=True)
        if name not in real.names
    ]
    mapping = f"class folders match by number: {shown_names(pairs)}" if pairs else ""
    labels = np.array(renumbered, dtype=np.int64)[ours.labels]
    return ClassLabels(real.names, labels, real.labels, mapping)


def _by_number(name: str) -> str | int:
    return int(name) if name.isascii() and name.isdigit() else name


def _places(names: Sequence[str]) -> dict[str | int, int]:
    return {_by_number(name): place for place, name in enumerate(names)}


def _as_folders(
    numbered: Labelled, names: Sequence[str], other: Path
) -> tuple[NDArray[np.int64], str]:
    """Labels of an array as those of the folders of the other side, and which is which in words."""
    unique, inverse = np.unique(numbered.labels, return_inverse=True)
    found, places = unique.tolist(), _places(names)
    if not all(label in places for label in found):
        if found[-1] >= len(names):
            raise UserError(
                f"{numbered.path} has the label {found[-1]}, but {other} has the classes 0 to "
                f"{len(names) - 1}: expected labels of the same classes"
            )
        places = {place: place for place in range(len(names))}
    pairs = [f"{label} is {names[places[label]]}" for label in found]
    labels = np.array([places[label] for label in found], dtype=np.int64)[inverse]
    return labels, f"labels of {numbered.path}: {shown_names(pairs)}"


def read_labels(path: Path) -> Labelled:
    """The labels of a folder of class folders, or of an `.npz` with `arr_1`.

    Raises:
        UserError: there are none.
    """
    if path.is_dir():
        return _folder_labels(path)
    if path.suffix != ".npz":
        raise UserError(f"{path} holds no labels: {_EXPECTED}")
    with reading_arrays(path):
        labels = load_arrays(path, [_LABELS]).get(_LABELS)
        if labels is None:
            raise UserError(f"{path} holds no labels {_LABELS}: {_EXPECTED}")
        images = None
        with suppress(KeyError):
            images = next(iter(array_shape(path, "arr_0")), None)
    are_integers = labels.dtype.kind in "iu" and labels.ndim == 1 and labels.size > 0
    if not are_integers or labels.min() < 0 or labels.max() > _LARGEST:
        raise UserError(
            f"{path}: {_LABELS} is {labels.dtype} {labels.shape}, expected a label from 0 to "
            f"{_LARGEST:,} for each image, as integers"
        )
    if images is not None and images != len(labels):
        raise UserError(f"{path}: {len(labels)} labels {_LABELS} for {images} images arr_0")
    return Labelled(path, None, labels.astype(np.int64))


def known_labels(path: Path) -> NDArray[np.int64] | None:
    """(N,) labels of one side, numbering class folders from 0 in order; None without any."""
    try:
        return read_labels(path).labels
    except UserError:
        return None


def _folder_labels(folder: Path) -> Labelled:
    parts = [tuple(name.split("/")) for name in find_images(folder).names]
    loose = next((part for part in parts if len(part) < 2), None)
    if loose is not None:
        raise UserError(f"{folder / loose[0]} lies in no class folder: {_EXPECTED}")
    names = tuple(sorted({part[0] for part in parts}, key=class_order))
    for one, other in itertools.pairwise(names):
        if _by_number(one) == _by_number(other):
            raise UserError(
                f"{folder} has the class folders {one} and {other}, which are the same number: "
                "join or rename them"
            )
    places = {name: place for place, name in enumerate(names)}
    return Labelled(folder, names, np.array([places[part[0]] for part in parts], dtype=np.int64))
