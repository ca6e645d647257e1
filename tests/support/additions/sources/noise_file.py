"""A kind of source: a file that says how many images of noise it stands for."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from harness.data.sources.base import Entry, Recognised, Source, beginning

EXPECTED = "a file of noise"
MAGIC = b"NOISE "


def recognise(path: Path) -> Recognised | None:
    found = not path.is_dir() and beginning(path).startswith(MAGIC)
    return Recognised("noise", lambda: NoiseSource(path)) if found else None


class NoiseSource(Source):
    """Grey images of 8x8 pixels in two classes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def class_ids(self) -> tuple[str, ...]:
        return ("even", "odd")

    @property
    def left_out(self) -> str:
        return ""

    def entries(self) -> Sequence[Entry]:
        count = int(self.path.read_bytes().removeprefix(MAGIC))
        numbers = [*range(0, count, 2), *range(1, count, 2)]
        return [Entry(f"{self.class_ids[n % 2]}/{n}.png", n % 2, 1) for n in numbers]

    def read(self, entry_id: str) -> bytes:
        stream = np.random.default_rng(int(Path(entry_id).stem))
        file = io.BytesIO()
        Image.fromarray(stream.integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "PNG")
        return file.getvalue()
