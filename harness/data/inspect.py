"""A manifest in numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from harness.data.decoding import UnreadableImageError, image_size
from harness.data.manifest import LeftOut, Manifest
from harness.data.ranking import ranked
from harness.data.sources.base import Source
from models.errors import UserError

SAMPLED = 1000
"""Images whose width and height are read, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class ClassCount:
    """What a class holds."""

    id: str
    name: str
    images: int
    size: int
    """Bytes of all of them."""


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Width and height in pixels of some images, ordered by their area."""

    sampled: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    """Of the image in the middle; of an even number, the smaller of the two."""
    largest: tuple[int, int]


@dataclass(frozen=True)
class Description:
    """What a manifest holds."""

    name: str
    hash: str
    classes: tuple[ClassCount, ...]
    """By label."""
    left_out: tuple[LeftOut, ...]
    image_sizes: ImageSizes | None
    """None without a source."""

    @property
    def images(self) -> int:
        return sum(item.images for item in self.classes)

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return sum(item.size for item in self.classes)

    @property
    def per_class(self) -> tuple[int, float, int]:
        """Fewest, median and most images of a class."""
        counts = [item.images for item in self.classes]
        return min(counts), statistics.median(counts), max(counts)


def describe(manifest: Manifest, source: Source | None, sampled: int = SAMPLED) -> Description:
    """Count what the manifest holds, and look at the sizes of some images.

    Args:
        manifest: what to describe.
        source: of the images; None leaves their widths and heights out.
        sampled: how many images to look at, at most; the same ones each time.

    Raises:
        UserError: one of them cannot be read.
    """
    counts = [0] * len(manifest.classes)
    sizes = [0] * len(manifest.classes)
    for image in manifest.images:
        counts[image.label] += 1
        sizes[image.label] += image.size
    return Description(
        name=manifest.name,
        hash=manifest.hash,
        classes=tuple(
            ClassCount(item.id, item.name, count, size)
            for item, count, size in zip(manifest.classes, counts, sizes, strict=True)
        ),
        left_out=manifest.left_out,
        image_sizes=None if source is None else _image_sizes(manifest, source, sampled),
    )


def _image_sizes(manifest: Manifest, source: Source, sampled: int) -> ImageSizes:
    if sampled < 1:
        raise UserError(f"--sampled is {sampled}, but expected 1 or more")
    chosen = ranked("describe", (image.id for image in manifest.images))[:sampled]
    sizes = sorted((_size(source, entry) for entry in chosen), key=_by_area)
    return ImageSizes(len(sizes), sizes[0], sizes[(len(sizes) - 1) // 2], sizes[-1])


def _size(source: Source, entry_id: str) -> tuple[int, int]:
    try:
        return image_size(source.read(entry_id))
    except KeyError:
        raise UserError(
            f"{source.path} lacks {entry_id}, which the manifest names: see what else differs "
            "with python -m harness data verify"
        ) from None
    except UnreadableImageError as error:
        raise UserError(f"{entry_id} in {source.path} cannot be read: {error}") from error


def _by_area(size: Sequence[int]) -> tuple[int, int]:
    width, height = size
    return width * height, width
