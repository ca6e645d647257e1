"""A folder of class folders; and how all sources read a part of a file.

Files are read at an offset, without a position that threads or forked processes could share.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from harness.data.sources.base import Entry, EntryIndex, IndexedSource, Recognised
from harness.data.sources.class_layout import index_class_folders
from harness.data.walk import first_image, walk_images


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


EXPECTED = "images as CLASS/IMAGE in a folder"


def recognise(path: Path) -> Recognised | None:
    """A folder with an image anywhere in it."""
    if not path.is_dir():
        return None
    image = first_image(path)
    if image is None:
        return None
    return Recognised(f"the image {image}", lambda: FolderSource(path))


class FolderSource(IndexedSource):
    """Image files on disk; links to files and folders are followed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _list(self) -> EntryIndex:
        found = walk_images(self.path)
        files = [*zip(found.names, found.sizes, strict=True)]
        return index_class_folders(self, files, [()] * len(files), found.folders, found.left_out)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        path = self.path / self._index.wrapping / entry.id
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise ValueError(f"{size} bytes instead of {entry.size}")
            return read_exactly(file.fileno(), 0, size)
