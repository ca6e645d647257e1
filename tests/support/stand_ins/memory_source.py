"""A source of a test's own: images in memory, and faults where a test wants them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.data.make_manifest import make_manifest
from harness.data.manifest import Manifest
from harness.data.sources.base import Entry, EntryIndex, Source, index_entries
from harness.processes.progress import ignore_progress
from models.errors import UserError


class MemorySource(Source):
    """Images by id, `CLASS/NAME`.

    Args:
        files: their bytes.
        damaged: ids that are listed and cannot be read.
        unread: ids that must not be read.
    """

    def __init__(
        self,
        files: Mapping[str, bytes],
        damaged: Sequence[str] = (),
        unread: Sequence[str] = (),
    ) -> None:
        super().__init__(Path("memory"))
        self.files = dict(files)
        self.damaged = damaged
        self.unread = unread

    @property
    def _index(self) -> EntryIndex:  # type: ignore[override]
        """Listed anew each time, since tests change the files."""
        return self._list()

    def _list(self) -> EntryIndex:
        class_ids = tuple(sorted({entry.partition("/")[0] for entry in self.files}))
        found = [
            Entry(entry, class_ids.index(entry.partition("/")[0]), len(content))
            for entry, content in self.files.items()
        ]
        return index_entries(self, class_ids, found, [()] * len(found))

    def read(self, entry_id: str) -> bytes:
        if entry_id in self.damaged:
            raise UserError(f"{entry_id} is damaged")
        if entry_id in self.unread:
            raise AssertionError(f"{entry_id} is read")
        return self.files[entry_id]

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        raise AssertionError("it is read by its id")


def picture(width: int = 8, height: int = 8, seed: int = 0) -> bytes:
    """A PNG of noise."""
    stream = np.random.default_rng(seed)
    file = io.BytesIO()
    Image.fromarray(stream.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def pictures(classes: int = 3, images: int = 4) -> dict[str, bytes]:
    """`c0/i0.png` and so on, all different."""
    return {
        f"c{label}/i{number}.png": picture(seed=100 * label + number)
        for label in range(classes)
        for number in range(images)
    }


def make(source: Source, **changes: Any) -> Manifest:
    """A manifest of all images, unless told otherwise."""
    values: dict[str, Any] = {
        "name": "test/v1",
        "class_ids": None,
        "classes": None,
        "per_class": None,
        "seed": 0,
        "names": {},
        "processes": 1,
        "strict": False,
        "on_progress": ignore_progress,
    }
    return make_manifest(source, **{**values, **changes})


def by_hash(seed: int, names: list[str]) -> list[str]:
    """The documented rank, worked out on its own."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
