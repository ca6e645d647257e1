"""The classes of images from anywhere: folders of class folders, or `arr_1` as ADM writes it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.walk import class_order
from harness.evaluation.image_inputs import find_images, reading_arrays
from harness.machine.file_kinds import shown_names
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
        reference: the same; or a reference in ADM's layout that holds `arr_1` beside its images.

    Raises:
        UserError: there are no labels, or the samples have a class that the reference lacks.
    """
    ours, real = read_labels(samples), read_labels(reference)
    if real.names is None and ours.names is None:
        count = int(real.labels.max()) + 1
        _check_within(ours, count, real.path)
        names = tuple(str(label) for label in range(count))
        return ClassLabels(names, ours.labels, real.labels, "")
    if real.names is not None and ours.names is not None:
        places = {_by_number(name): place for place, name in enumerate(real.names)}
        unknown = sorted({name for name in ours.names if _by_number(name) not in places})
        if unknown:
            raise UserError(
                f"{ours.path} has the class {unknown[0]!r}, which {real.path} lacks: expected its "
                f"classes, {shown_names(list(real.names))}"
            )
        renumbered = np.array([places[_by_number(name)] for name in ours.names], dtype=np.int64)
        pairs = [
            f"{name} is {real.names[places[_by_number(name)]]}"
            for name in ours.names
            if name not in real.names
        ]
        mapping = f"class folders match by number: {shown_names(pairs)}" if pairs else ""
        return ClassLabels(real.names, renumbered[ours.labels], real.labels, mapping)
    named, numbered = (real, ours) if real.names is not None else (ours, real)
    labels, mapping = _as_folders(numbered, named)
    sides = (labels, named.labels) if numbered is ours else (named.labels, labels)
    return ClassLabels(named.names or (), *sides, mapping)


def _by_number(name: str) -> str | int:
    return int(name) if name.isascii() and name.isdigit() else name


def _as_folders(numbered: Labelled, named: Labelled) -> tuple[NDArray[np.int64], str]:
    """Labels of an array as those of the folders of the other side, and which is which in words."""
    folders = named.names or ()
    place_of = {_by_number(name): place for place, name in enumerate(folders)}
    unique, inverse = np.unique(numbered.labels, return_inverse=True)
    found = unique.tolist()
    if not all(label in place_of for label in found):
        _check_within(numbered, len(folders), named.path)
        place_of = {place: place for place in range(len(folders))}
    places = np.array([place_of[label] for label in found], dtype=np.int64)
    pairs = [f"{label} is {folders[place_of[label]]}" for label in found]
    return places[inverse], f"labels of {numbered.path}: {shown_names(pairs)}"


def _check_within(labelled: Labelled, count: int, other: Path) -> None:
    largest = int(labelled.labels.max())
    if largest >= count:
        raise UserError(
            f"{labelled.path} has the label {largest}, but {other} has the classes 0 to "
            f"{count - 1}: expected labels of the same classes"
        )


def read_labels(path: Path) -> Labelled:
    """The labels of one side.

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
        images = _length(path, "arr_0")
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


def _length(path: Path, name: str) -> int | None:
    """Rows of an array of an archive, from its header; None where there is no such array."""
    try:
        shape = array_shape(path, name)
    except KeyError:
        return None
    return shape[0] if shape else None
