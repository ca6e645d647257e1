"""Where samples go as they are drawn: into memory, or to a file that survives an interruption."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.machine.files import write_text


class SampleSink(ABC):
    """Takes samples in the order of their indices."""

    @property
    @abstractmethod
    def done(self) -> int:
        """How many of the first samples are there already."""

    @abstractmethod
    def write(self, images: NDArray[np.uint8]) -> None:
        """Append samples (B, H, W, C) uint8."""

    @property
    @abstractmethod
    def images(self) -> NDArray[np.uint8]:
        """All samples, (N, H, W, C), once all are there."""


class MemorySink(SampleSink):
    """Keeps all samples in memory.

    Args:
        count: N.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._done = 0
        self._images = np.empty((0, 0, 0, 0), dtype=np.uint8)

    @property
    def done(self) -> int:
        return self._done

    def write(self, images: NDArray[np.uint8]) -> None:
        if self._done == 0:
            self._images = np.empty((self.count, *images.shape[1:]), dtype=np.uint8)
        self._images[self._done : self._done + len(images)] = images
        self._done += len(images)

    @property
    def images(self) -> NDArray[np.uint8]:
        return self._images


class FileSink(SampleSink):
    """Keeps samples in a file of their final size, and beside it how many of them are whole.

    Samples depend on their index alone, so a process that goes on after another one gives the file
    that one process would have given.

    Args:
        folder: gets `samples.partial.npy` and `samples.partial.json`.
        count: N.
        origin: all that the samples depend on; what another origin left behind is not used.
    """

    def __init__(self, folder: Path, count: int, origin: str) -> None:
        self.path = folder / "samples.partial.npy"
        self.state = folder / "samples.partial.json"
        self.count = count
        self.origin = origin
        self._done = self._found()

    @property
    def done(self) -> int:
        return self._done

    def write(self, images: NDArray[np.uint8]) -> None:
        if self._done == 0:
            shape = (self.count, *images.shape[1:])
            stored = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.uint8, shape=shape)
        else:
            stored = np.lib.format.open_memmap(self.path, mode="r+")
        stored[self._done : self._done + len(images)] = images
        # On the disk before the count says so.
        stored.flush()
        del stored
        self._done += len(images)
        write_text(self.state, json.dumps({"origin": self.origin, "done": self._done}) + "\n")

    @property
    def images(self) -> NDArray[np.uint8]:
        return np.lib.format.open_memmap(self.path, mode="r")

    def remove(self) -> None:
        """Delete both files, once the samples are kept elsewhere."""
        self.state.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def _found(self) -> int:
        """How many samples of the same origin an earlier process left; 0 where that is unclear."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            stored = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return 0
        whole = stored.dtype == np.uint8 and stored.ndim == 4 and len(stored) == self.count
        if not whole or state.get("origin") != self.origin:
            return 0
        return int(state["done"])
