"""A manifest to look at: in numbers, and as a sheet of some images, a class a row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from harness.data.decoding import UnreadableImageError, image_size, read_checked_image
from harness.data.manifest import Manifest, ManifestImage, ranked
from harness.data.sources.base import Source
from harness.machine.files import atomic_path
from models.errors import UserError


@dataclass(frozen=True, slots=True)
class ImageSizes:
    """Width and height in pixels of some images, ordered by their area."""

    sampled: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    """The image in the middle's; where two are, the smaller one's."""
    largest: tuple[int, int]


@dataclass(frozen=True)
class Description:
    """What a manifest holds."""

    manifest: Manifest
    image_bytes: tuple[tuple[int, ...], ...]
    """By label, the bytes of each image."""
    image_sizes: ImageSizes | None
    """None without a source."""


def describe(manifest: Manifest, source: Source | None, sampled: int = 1000) -> Description:
    """Count what the manifest holds, and look at the sizes of some images of the source, if given:
    at most `sampled`, the same ones each time. Raises a UserError if one cannot be read."""
    sizes: list[list[int]] = [[] for _ in manifest.classes]
    for image in manifest.images:
        sizes[image.label].append(image.size)
    looked_at = None if source is None else _image_sizes(manifest, source, sampled)
    return Description(manifest, tuple(map(tuple, sizes)), looked_at)


def _image_sizes(manifest: Manifest, source: Source, sampled: int) -> ImageSizes:
    chosen = ranked("describe", (image.id for image in manifest.images))[:sampled]
    sizes = [_size(source, entry) for entry in chosen]
    sizes.sort(key=lambda size: (size[0] * size[1], size[0]))
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


_SIDE, _GAP, _CAPTION = 96, 4, 16
"""Pixels: of an image, between images, and the height of a row's text."""


def contact_sheet(
    manifest: Manifest, source: Source, path: Path, classes: int = 20, images: int = 8
) -> None:
    """Draw the sheet as a PNG, which is written atomically; equal input gives equal pixels.

    It has `classes` rows at most, and `images` images a row, the same ones each time. Raises a
    UserError if an image is not the manifest's.
    """
    rows = _rows(manifest, classes, images)
    step = _SIDE + _GAP
    size = (_GAP + images * step, _GAP + len(rows) * (step + _CAPTION))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    for row, (label, chosen) in enumerate(rows.items()):
        top = _GAP + row * (step + _CAPTION)
        for column, image in enumerate(chosen):
            pixels = read_checked_image(source, manifest, image, _SIDE)
            sheet.paste(Image.fromarray(pixels), (_GAP + column * step, top))
        caption = _fitting(manifest.classes[label].name, draw, font, size[0] - 2 * _GAP)
        draw.text((_GAP, top + _SIDE), caption, fill="black", font=font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _rows(manifest: Manifest, classes: int, images: int) -> dict[int, list[ManifestImage]]:
    """The images to draw by label, in the order of labels and ids."""
    labels = {item.id: label for label, item in enumerate(manifest.classes)}
    drawn = {labels[item] for item in ranked("contact sheet", labels)[:classes]}
    rows = {}
    for label, group in groupby(manifest.images, key=lambda image: image.label):
        if label in drawn:
            by_id = {image.id: image for image in group}
            rows[label] = [by_id[item] for item in sorted(ranked("contact sheet", by_id)[:images])]
    return rows


def _fitting(
    name: str,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    width: int,
) -> str:
    """The name in signs that every font of Pillow's has, cut to a width in pixels."""
    text = " ".join(name.encode("latin-1", "replace").decode("latin-1").split())
    if draw.textlength(text, font) <= width:
        return text
    cut = (f"{text[:length]}..." for length in range(len(text), -1, -1))
    return next((part for part in cut if draw.textlength(part, font) <= width), "")
