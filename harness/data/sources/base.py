"""What a source of encoded image files offers, whatever it is packed in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


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
        """By label: folder names (WordNet ids in ImageNet), sorted, or the names stored within."""

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
