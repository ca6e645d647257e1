"""Images whose labels stand beside them in the files: which files, which samples, which numbers.

Tars and tables alike come as several files, of which those for training are taken. A label is
stored as a number or as a name, and becomes an index into the class ids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from harness.data.sources.base import Entry, EntryIndex, Source, index_entries
from models.errors import UserError

StoredLabel = int | str

SAMPLE_IMAGES = ("jpg", "png", "jpeg", "webp")
"""What the image of a sample in a tar may end in."""
SAMPLE_LABELS = ("cls", "json")
"""What the label beside it may end in."""


def has_samples(names: Iterable[str]) -> bool:
    """Whether some images among files in a tar have a label beside them."""
    split = [key_and_part(name) for name in names]
    labelled = {key for key, part in split if part in SAMPLE_LABELS}
    return any(key in labelled and part in SAMPLE_IMAGES for key, part in split)


def key_and_part(name: str) -> tuple[str, str]:
    """`a/b.seg.png` is the part `seg.png` of the sample `a/b`."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, _, part = base.partition(".")
    return folder + slash + key, part.lower()


def index_labelled(
    source: Source,
    names: tuple[str, ...] | None,
    labels: Sequence[StoredLabel],
    ids: Sequence[str],
    sizes: Sequence[int],
    places: Sequence[Sequence[int]],
) -> EntryIndex:
    """The index of N images with stored labels.

    Args:
        source: named in messages.
        names: C class names by label, where they are known.
        labels: N, as they are stored.
        ids: N.
        sizes: N, in bytes.
        places: N, each of K numbers by which the source finds an image.

    Raises:
        UserError: the labels do not fit the names or one another, or an id is there twice.
    """
    class_ids, numbers = number_labels(source, names, labels, ids)
    found = [Entry(*values) for values in zip(ids, numbers, sizes, strict=True)]
    return index_entries(source, class_ids, found, np.array(places, dtype=np.int64))


def number_labels(
    source: Source,
    names: tuple[str, ...] | None,
    labels: Sequence[StoredLabel],
    ids: Sequence[str],
) -> tuple[tuple[str, ...], list[int]]:
    """Class ids and labels.

    Where no names are known, numbers become names themselves, and names are numbered as sorted.

    Args:
        source: named in messages.
        names: C class names by label, where they are known.
        labels: of N images.
        ids: of the same ones, named in messages.

    Returns:
        The class ids, and the label of each image.

    Raises:
        UserError: a label is beyond the names or negative, or some are numbers and some names; two
            classes have one name; or a class has no image.
    """
    numbers = [label for label in labels if isinstance(label, int)]
    if names is None:
        if not numbers:
            names = tuple(sorted({str(label) for label in labels}))
        elif len(numbers) == len(labels):
            names = _numbers_as_names(source, numbers)
        else:
            raise UserError(
                f"{source.path} labels some images by number and some by name: use one of them"
            )
    label_of = {name: label for label, name in enumerate(names)}
    if len(label_of) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source.path} has two classes named {twice}: tell them apart")
    expected = f"0 to {len(names) - 1}, or a name of a class" if names else "0 or more"
    found = [label_of.get(label, -1) if isinstance(label, str) else label for label in labels]
    for entry_id, stored, label in zip(ids, labels, found, strict=True):
        if not 0 <= label < len(names):
            raise UserError(
                f"{source.path}: {entry_id} has the label {stored}, but expected {expected}"
            )
    return names, found


def _numbers_as_names(source: Source, numbers: Sequence[int]) -> tuple[str, ...]:
    there = {number for number in numbers if number >= 0}
    missing = next(number for number in range(len(there) + 1) if number not in there)
    if there and missing < max(there):
        raise UserError(
            f"{source.path} has labels up to {max(there)}, but no image of class {missing}: add "
            "what is missing, or name the classes"
        )
    return tuple(str(number) for number in range(len(there)))


_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
"""Words in the names of files, as in `train-00000-of-00002.parquet`."""

_NUMBERED = re.compile(r"(.*?)(\d+)-of-(\d+)")


def training_files(folder: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """Leave out the files that are named after a split for validation or test.

    Where only one split is there, it is taken, whichever it is.

    Args:
        folder: named in messages.
        files: one or more in it.

    Returns:
        Sorted by name.

    Raises:
        UserError: there are several splits, but none for training; or, by the numbers in their
            names, files are missing.
    """
    split_of = {path: _split(path.name) for path in files}
    splits = set(split_of.values()) - {None}
    if len(splits) > 1 and "train" not in splits:
        raise UserError(
            f"{folder} holds several splits, {', '.join(sorted(map(str, splits)))}, and none is "
            "called train: name a folder with one of them"
        )
    others = {"validation", "test"} if "train" in splits else set()
    kept = tuple(sorted(path for path in files if split_of[path] not in others))
    _check_complete(folder, kept)
    return kept


def _split(name: str) -> str | None:
    words = re.split(r"[^a-z]+", name.lower())
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _check_complete(folder: Path, files: Sequence[Path]) -> None:
    there: dict[tuple[str, str], set[int]] = {}
    for match in filter(None, (_NUMBERED.match(path.name) for path in files)):
        before, number, total = match.groups()
        there.setdefault((before, total), set()).add(int(number))
    for (before, total), numbers in there.items():
        missing = next((index for index in range(int(total)) if index not in numbers), None)
        if missing is not None:
            name = f"{before}{missing:0{len(total)}d}-of-{total}"
            raise UserError(f"{folder} lacks the file {name}...: copy it there as well")
