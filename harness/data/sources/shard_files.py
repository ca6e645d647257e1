"""Which files of a folder belong together: those for training, and all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from models.errors import UserError

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
