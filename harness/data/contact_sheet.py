"""A picture of a manifest: some images of some classes, a class a row."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from harness.data.checked_image import read_checked_image
from harness.data.manifest import Manifest, ManifestImage
from harness.data.ranking import ranked
from harness.data.sources.base import Source
from harness.machine.files import atomic_path
from models.errors import UserError

CLASSES = 20
"""Rows at most, unless told otherwise."""

IMAGES = 8
"""Images a row at most, unless told otherwise."""

_SIDE = 96
_GAP = 4
_CAPTION = 16
"""Pixels: of an image, between images, and the height of a row's text."""


def contact_sheet(
    manifest: Manifest, source: Source, path: Path, classes: int = CLASSES, images: int = IMAGES
) -> None:
    """Draw the sheet as a PNG, which is written atomically; equal input gives equal pixels.

    Args:
        manifest: what to draw.
        source: of the images.
        path: of the PNG.
        classes: rows at most; of more classes, the same ones are drawn each time.
        images: a row at most; the same ones each time.

    Raises:
        UserError: an image is not the manifest's, or a number is not positive.
    """
    if min(classes, images) < 1:
        raise UserError(f"a sheet of {classes} classes with {images} images each would be empty")
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
