"""A source of a test's own: images in memory, and faults where a test wants them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.sources.base import Entry, Source
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
        self.path = Path("memory")
        self.files = dict(files)
        self.damaged = damaged
        self.unread = unread

    @property
    def class_ids(self) -> tuple[str, ...]:
        return tuple(sorted({entry.partition("/")[0] for entry in self.files}))

    def entries(self) -> Sequence[Entry]:
        labels = {item: label for label, item in enumerate(self.class_ids)}
        return [
            Entry(entry, labels[entry.partition("/")[0]], len(self.files[entry]))
            for entry in sorted(self.files)
        ]

    def read(self, entry_id: str) -> bytes:
        if entry_id in self.unread:
            raise AssertionError(f"{entry_id} is read")
        if entry_id in self.damaged:
            raise UserError(f"{self.path}: {entry_id} is damaged")
        return self.files[entry_id]


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
