"""The contract of a source of encoded image files, and what all kinds of sources share.

A kind of source is one module of this package with a class that implements `Source` and two names
by which it is found: `EXPECTED`, what it opens in words, and `recognise(path: Path) -> Recognised |
None`, which looks at a file or folder that is there, without listing all of it.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import UserError, one_line

LARGEST_FILE = 256 * 2**20
"""Bytes. An image file above it is refused unread: an archive may claim any size."""

_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Surrogates, which stand for bytes that are no text."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One encoded image file: its id, the index of its class in `class_ids`, and its bytes.

    Ids are unique in a source, and `CLASS/NAME` in folders, zips and ImageNet's tar alike, so that
    the same images have the same ids whatever they are packed in.
    """

    id: str
    label: int
    size: int


@dataclass(frozen=True)
class EntryIndex:
    """What a source holds, and where: N entries, sorted by label and id."""

    class_ids: tuple[str, ...]
    entries: tuple[Entry, ...]
    places: NDArray[np.int64]
    """(N, K): K numbers by which the kind of source finds each entry."""
    wrapping: str = ""
    """The folders around all class folders, with slashes."""
    left_out: str = ""
    """What listing passed over and why, in words."""

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where in `entries` an id stands."""
        return {entry.id: row for row, entry in enumerate(self.entries)}


class Source(ABC):
    """Encoded image files, each of a class, in random access.

    It is listed at the first question. It can be pickled, and used in several threads and forked
    processes at once: files are opened where they are read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        """What the user named."""

    @property
    def class_ids(self) -> tuple[str, ...]:
        """By label: the names of folders (WordNet ids in ImageNet), or those stored within."""
        return self._index.class_ids

    @property
    def left_out(self) -> str:
        """What listing passed over and why, in words; empty if nothing was."""
        return self._index.left_out

    def entries(self) -> Sequence[Entry]:
        """All images, sorted by label and id; listed once, without reading an image. Raises a
        UserError if the source is damaged or holds no image of a class."""
        return self._index.entries

    def read(self, entry_id: str) -> bytes:
        """The encoded bytes of one image.

        Raises:
            KeyError: there is no such image.
            UserError: the source was damaged or changed under way.
        """
        row = self._index.rows[entry_id]
        entry = self._index.entries[row]
        try:
            if entry.size > LARGEST_FILE:
                raise ValueError(f"{entry.size} bytes, more than {LARGEST_FILE}")
            content = self._content(entry, self._index.places[row].tolist())
            if len(content) != entry.size:
                raise ValueError(f"{len(content)} bytes instead of {entry.size}")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{entry_id} in {self.path} cannot be read ({one_line(error)}): restore it, or "
                "pack it again"
            ) from error
        return content

    @cached_property
    def _index(self) -> EntryIndex:
        try:
            return self._list()
        except OSError as error:
            raise UserError(f"{self.path} cannot be listed: {error}") from error

    @abstractmethod
    def _list(self) -> EntryIndex:
        """Find all images, or raise an OSError, or a UserError if the source is damaged."""

    @abstractmethod
    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        """The bytes of one entry, or an OSError, or a ValueError that says how it is damaged."""


@dataclass(frozen=True)
class Recognised:
    """What a kind of source says of a path that it can open."""

    what: str
    """What is there in words, such as `3 tars`, for a path that several kinds recognise."""
    open: Callable[[], Source]
    sure: bool = True
    """False if it may be something else: a kind that is sure goes first."""


def index_entries(
    source: Source,
    class_ids: tuple[str, ...],
    found: Sequence[Entry],
    places: Sequence[Sequence[int]],
    wrapping: str = "",
    left_out: str = "",
) -> EntryIndex:
    """Sort N entries and their places, which are in any order. Raises a UserError if an id is there
    twice, a name is not text, or a class has no image."""
    filled = {entry.label for entry in found}
    empty = [name for label, name in enumerate(class_ids) if label not in filled]
    if empty:
        more = f", and {len(empty) - 1} more classes hold none" if len(empty) > 1 else ""
        raise UserError(
            f"{source.path}: class {empty[0]} holds no image{more}: add its images, or remove the "
            "class"
        )
    for twice, count in Counter(entry.id for entry in found).most_common(1):
        if count > 1:
            raise UserError(
                f"{source.path} holds {twice} {count} times: pack it again, with each image once"
            )
    for name in (*class_ids, *(entry.id for entry in found)):
        if _NO_TEXT.search(name):
            raise UserError(f"{source.path}: the name {name!a} is not valid UTF-8: rename it")
    order = sorted(range(len(found)), key=lambda row: (found[row].label, found[row].id))
    entries = tuple(found[row] for row in order)
    sorted_places = np.array([places[row] for row in order], dtype=np.int64)
    return EntryIndex(class_ids, entries, sorted_places, wrapping, left_out)


def beginning(path: Path) -> bytes:
    """The first 512 bytes of a file, which tell most kinds."""
    with path.open("rb") as file:
        return file.read(512)


def visible_files(folder: Path, suffix: str) -> list[Path]:
    """The files directly in a folder that end in `suffix` and are not hidden."""
    return [
        path
        for path in folder.iterdir()
        if path.suffix == suffix and not path.name.startswith(".") and path.is_file()
    ]


def shorten(names: Sequence[str], most: int = 3) -> str:
    """The first few names, sorted, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(sorted(names)[:most]) or "nothing") + more


def read_range(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes of a file, or a ValueError if it ends before."""
    with path.open("rb", buffering=0) as file:
        return read_exactly(file.fileno(), offset, size)


def read_exactly(descriptor: int, offset: int, size: int) -> bytes:
    """`size` bytes of an open file, without a position that threads or processes share."""
    parts = []
    missing = size
    # One call returns 2 GiB at most, and fewer bytes on some network file systems.
    while missing:
        part = os.pread(descriptor, missing, offset + size - missing)
        if not part:
            raise ValueError(f"the file ends {missing} bytes before the image does")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
