"""A tar of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.data.sources.base import Entry
from harness.data.sources.byte_range import read_range
from harness.data.sources.class_layout import index_class_folders
from harness.data.sources.indexed_source import EntryIndex, IndexedSource
from harness.data.sources.tar import tar_members


class ClassTarSource(IndexedSource):
    """Files are read where they stand in the archive, which must not be compressed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _list(self) -> EntryIndex:
        files, places, folders = [], [], []
        for member in tar_members(self.path):
            if member.is_folder:
                folders.append(member.name)
            else:
                files.append((member.name, member.size))
                places.append((member.offset,))
        return index_class_folders(self, files, places, folders)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        return read_range(self.path, place[0], entry.size)
