"""A folder of class folders; and how all sources read a part of a file.

Files are read at an offset, without a position that threads or forked processes could share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.data.sources.base import Entry, EntryIndex, IndexedSource, Recognised
from harness.data.sources.class_layout import index_class_folders, is_image_name, visible_parts
from models.errors import UserError


def read_range(path: Path, offset: int, size: int) -> bytes:
    """Open a file and read `size` bytes of it.

    Raises:
        OSError: it cannot be opened.
        ValueError: it ends before.
    """
    with path.open("rb", buffering=0) as file:
        return read_exactly(file.fileno(), offset, size)


def read_exactly(descriptor: int, offset: int, size: int) -> bytes:
    """Read `size` bytes of an open file.

    Raises:
        ValueError: it ends before.
    """
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


_DEEPEST = 6
"""Levels of folders looked into: neither a wrong path nor a loop of links is followed far."""


EXPECTED = "images as CLASS/IMAGE in a folder"


def recognise(path: Path) -> Recognised | None:
    """A folder with an image anywhere in it."""
    if not path.is_dir():
        return None
    image = next((name for name, _ in walk(path) if is_image_name(name)), None)
    if image is None:
        return None
    return Recognised(f"the image {image}", lambda: FolderSource(path))


class FolderSource(IndexedSource):
    """Image files on disk; links to files and folders are followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _list(self) -> EntryIndex:
        files: list[tuple[str, int]] = []
        folders: list[str] = []
        for name, entry in walk(self.path):
            if entry.is_dir():
                folders.append(name)
            elif entry.is_file():
                files.append((name, entry.stat().st_size))
            elif entry.is_symlink() and is_image_name(name):
                raise UserError(f"{entry.path} is a link to nothing: mend or remove it")
        return index_class_folders(self, files, [()] * len(files), folders)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        path = self.path / self._index.wrapping / entry.id
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise ValueError(f"{size} bytes instead of {entry.size}")
            return read_exactly(file.fileno(), 0, size)


def walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """All that is not hidden: paths from the root with slashes, in no particular order.

    Raises:
        OSError: a folder cannot be listed.
    """
    waiting = [("", 1)]
    while waiting:
        folder, depth = waiting.pop()
        with os.scandir(root / folder) as found:
            for entry in found:
                if visible_parts(entry.name) is None:
                    continue
                name = folder + entry.name
                if depth < _DEEPEST and entry.is_dir():
                    waiting.append((name + "/", depth + 1))
                yield name, entry
