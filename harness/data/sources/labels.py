"""Images whose labels are stored with them in several files: which files, and which numbers.

Tars and tables alike come as several files, of which those for training are taken. A label is
stored as a number or as a name, and becomes an index into the class ids.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.data.sources.base import Entry, EntryIndex, Source, index_entries
from models.errors import UserError

StoredLabel = int | str


class LabelledEntry(NamedTuple):
    """An image with its label as it is stored, its bytes, and the numbers that say where it is."""

    id: str
    label: StoredLabel
    size: int
    place: tuple[int, ...]


def index_labelled(
    source: Source, names: tuple[str, ...] | None, found: Sequence[LabelledEntry]
) -> EntryIndex:
    """The index of images with stored labels.

    `names` are those of classes by label. If they are not known, numbers become names themselves,
    and names are numbered as sorted.

    Raises:
        UserError: a label is beyond the names or negative, or some are numbers and some names; two
            classes have one name; a class has no image; or an id is there twice.
    """
    if names is None:
        numbers = {each.label for each in found if isinstance(each.label, int)}
        texts = {each.label for each in found if isinstance(each.label, str)}
        if numbers and texts:
            raise UserError(
                f"{source.path} labels some images by number and some by name: use one of them"
            )
        names = _numbers_as_names(source, numbers) if numbers else tuple(sorted(texts))
    label_of = {name: label for label, name in enumerate(names)}
    if len(label_of) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{source.path} has two classes named {twice}: tell them apart")
    entries = []
    for entry_id, stored, size, _ in found:
        label = label_of.get(stored, -1) if isinstance(stored, str) else stored
        if not 0 <= label < len(names):
            wanted = f"0 to {len(names) - 1}, or a name of a class" if names else "0 or more"
            raise UserError(
                f"{source.path}: {entry_id} has the label {stored}, but expected {wanted}"
            )
        entries.append(Entry(entry_id, label, size))
    return index_entries(source, names, entries, [each.place for each in found])


def _numbers_as_names(source: Source, numbers: set[int]) -> tuple[str, ...]:
    there = {number for number in numbers if number >= 0}
    missing = next(number for number in range(len(there) + 1) if number not in there)
    if there and missing < max(there):
        raise UserError(
            f"{source.path} has labels up to {max(there)}, but no image of class {missing}: add "
            "what is missing, or name the classes"
        )
    return tuple(str(number) for number in range(len(there)))


_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    "test": "test",
}
"""Words in the names of files, as in `train-00000-of-00002.parquet`."""

_NUMBERED = re.compile(r"(.*?)(\d+)-of-(\d+)")


def training_files(folder: Path, files: Sequence[Path]) -> tuple[Path, ...]:
    """All but the files that are named after a split for validation or test, sorted by name.

    If only one split is there, it is taken, whichever it is. Raises a UserError if there are
    several, but none for training; or if files are missing, by the numbers in their names.
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
