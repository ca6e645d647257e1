"""ImageNet's own `ILSVRC2012_img_train.tar`: a tar that holds one tar a class, `n01440764.tar`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from harness.data.sources.base import Entry
from harness.data.sources.byte_range import read_range
from harness.data.sources.class_layout import index_class_folders
from harness.data.sources.indexed_source import EntryIndex, IndexedSource
from harness.data.sources.tar import tar_members

INNER_SUFFIX = ".tar"


class ImageNetTarSource(IndexedSource):
    """Nothing is unpacked: images are read where they stand in the outer archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _list(self) -> EntryIndex:
        files, places, class_ids = [], [], []
        for outer in tar_members(self.path):
            name = PurePosixPath(outer.name)
            if outer.is_folder or name.suffix != INNER_SUFFIX or name.name.startswith("."):
                continue
            class_ids.append(name.stem)
            for image in tar_members(self.path, outer.offset, outer.size, name.name):
                if not image.is_folder:
                    files.append((f"{name.stem}/{image.name}", image.size))
                    places.append((image.offset,))
        return index_class_folders(self, files, places, class_ids)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        return read_range(self.path, place[0], entry.size)
