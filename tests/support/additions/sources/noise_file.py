"""A kind of source: a file that says how many images of noise it stands for."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.sources.base import (
    Entry,
    EntryIndex,
    Recognised,
    Source,
    beginning,
    index_entries,
)

EXPECTED = "a file of noise"
MAGIC = b"NOISE "


def recognise(path: Path) -> Recognised | None:
    found = not path.is_dir() and beginning(path).startswith(MAGIC)
    return Recognised("noise", lambda: NoiseSource(path)) if found else None


class NoiseSource(Source):
    """Grey images of 8x8 pixels in two classes."""

    def _list(self) -> EntryIndex:
        count = int(self.path.read_bytes().removeprefix(MAGIC))
        classes = ("even", "odd")
        found = [Entry(f"{classes[n % 2]}/{n}.png", n % 2, len(_image(n))) for n in range(count)]
        return index_entries(self, classes, found, [(n,) for n in range(count)])

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        return _image(place[0])


def _image(number: int) -> bytes:
    stream = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(stream.integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
