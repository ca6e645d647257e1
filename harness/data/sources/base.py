"""The contract of a source of encoded image files, and what all kinds of sources share.

A kind of source is one module of this package with a class that implements `IndexedSource` and two
names by which it is found: `EXPECTED`, what it opens in words, and `recognise(path: Path) ->
Recognised | None`, which looks at a file or folder that is there, without listing all of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.data.walk import LeftOut
from models.errors import UserError, one_line


@dataclass(frozen=True, slots=True)
class Entry:
    """One encoded image file."""

    id: str
    """Unique in its source. `CLASS/NAME` in folders, zips and ImageNet's tar alike, so that the
    same images have the same ids whatever they are packed in."""
    label: int
    """Index into the source's `class_ids`."""
    size: int
    """Bytes of the encoded file."""


class Source(ABC):
    """Encoded image files, each of a class, in random access.

    It can be pickled, and used in several threads and forked processes at once: files are opened
    where they are read.
    """

    path: Path
    """What the user named."""

    @property
    @abstractmethod
    def class_ids(self) -> tuple[str, ...]:
        """By label: the names of folders (WordNet ids in ImageNet), or those stored within."""

    @property
    @abstractmethod
    def left_out(self) -> str:
        """What listing passed over and why, in words; empty where nothing was."""

    @abstractmethod
    def entries(self) -> Sequence[Entry]:
        """All images, sorted by label and id; listed once, without reading an image.

        Raises:
            UserError: the source is damaged or holds no image of a class.
        """

    @abstractmethod
    def read(self, entry_id: str) -> bytes:
        """The encoded bytes of one image.

        Raises:
            KeyError: there is no such image.
            UserError: the source was damaged or changed under way.
        """


@dataclass(frozen=True)
class Recognised:
    """What a kind of source says of a path that it can open."""

    what: str
    """What is there in words, such as `3 tars`, for where several kinds recognise a path."""
    open: Callable[[], Source]
    sure: bool = True
    """False where it may be something else: a kind that is sure goes first."""


def beginning(path: Path) -> bytes:
    """The first 512 bytes of a file, which tell most kinds.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(512)


def visible_files(folder: Path, suffix: str) -> list[Path]:
    """The files directly in a folder that end in `suffix` and are not hidden.

    Raises:
        OSError: the folder cannot be listed.
    """
    return [
        path
        for path in folder.iterdir()
        if path.suffix == suffix and not path.name.startswith(".") and path.is_file()
    ]


def shorten(names: Sequence[str], most: int = 3) -> str:
    """The first few names, sorted, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(sorted(names)[:most]) or "nothing") + more


LARGEST_FILE = 256 * 2**20
"""Bytes. An image file above it is refused unread: an archive may claim any size."""


@dataclass(frozen=True)
class EntryIndex:
    """What a source holds, and where."""

    class_ids: tuple[str, ...]
    """By label."""
    entries: tuple[Entry, ...]
    """N of them, sorted by label and id."""
    places: NDArray[np.int64]
    """(N, K): K numbers by which the kind of source finds each entry."""
    wrapping: str = ""
    """The folders around all class folders, with slashes."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Files that are no images, and hidden ones."""

    @cached_property
    def rows(self) -> dict[str, int]:
        """Where in `entries` an id stands."""
        return {entry.id: row for row, entry in enumerate(self.entries)}


class IndexedSource(Source):
    """A source that is listed at the first question; its kinds say how to list and to read."""

    @property
    def class_ids(self) -> tuple[str, ...]:
        return self._index.class_ids

    @property
    def left_out(self) -> str:
        return str(self._index.left_out)

    def entries(self) -> Sequence[Entry]:
        return self._index.entries

    def read(self, entry_id: str) -> bytes:
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
        """Find all images.

        Raises:
            OSError: something cannot be opened.
            UserError: the source is damaged, or holds no image of a class.
        """

    @abstractmethod
    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        """The bytes of one entry.

        Raises:
            OSError: it cannot be opened.
            ValueError: it is damaged; the text says how.
        """


def index_entries(
    source: Source,
    class_ids: tuple[str, ...],
    found: Sequence[Entry],
    places: NDArray[np.int64],
    wrapping: str = "",
    left_out: LeftOut | None = None,
) -> EntryIndex:
    """Sort what was found.

    Args:
        source: named in messages.
        class_ids: C of them, by label.
        found: N entries in any order.
        places: (N, K), of the same ones.
        wrapping: the folders around all class folders, with slashes.
        left_out: what listing passed over.

    Raises:
        UserError: an id is there twice, a name is not text, or a class has no image.
    """
    counts = np.bincount(
        np.fromiter((entry.label for entry in found), np.int64, len(found)),
        minlength=len(class_ids),
    )
    empty = [name for name, count in zip(class_ids, counts, strict=True) if not count]
    if empty:
        more = f", and {len(empty) - 1} more classes hold none" if len(empty) > 1 else ""
        raise UserError(
            f"{source.path}: class {empty[0]} holds no image{more}: add its images, or remove the "
            "class"
        )
    if len({entry.id for entry in found}) < len(found):
        ((twice, count),) = Counter(entry.id for entry in found).most_common(1)
        raise UserError(
            f"{source.path} holds {twice} {count} times: pack it again, with each image once"
        )
    for name in (*class_ids, *(entry.id for entry in found)):
        if not _is_text(name):
            raise UserError(f"{source.path}: the name {name!a} is not valid UTF-8: rename it")
    order = sorted(range(len(found)), key=lambda row: (found[row].label, found[row].id))
    entries = tuple(found[row] for row in order)
    return EntryIndex(
        class_ids, entries, places[np.array(order, dtype=np.int64)], wrapping, left_out or LeftOut()
    )


def _is_text(name: str) -> bool:
    """Whether it has none of the surrogates that stand for bytes that are no text."""
    if name.isascii():
        return True
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
