"""Images of one size in one folder a class, as a folder on disk or as a zip of one."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.data.labelled_images import LabelledImages
from harness.data.sources.base import Source
from harness.data.sources.folder import FolderSource
from harness.data.sources.zip_archive import ZipSource
from models.errors import UserError

_SHOWN = 5


def read_class_folders(source: Path, side: int) -> LabelledImages:
    """Read square colour images that all have one size.

    Grey, palette and other images become RGB; transparency is dropped.

    Args:
        source: a folder or zip of class folders.
        side: pixels a side.

    Raises:
        UserError: it is missing, is neither of both, or holds images that lie in no class folder;
            or some images cannot be read or have another size, with the first of them and the
            number of all.
    """
    files = _opened(source)
    entries = files.entries()
    pixels = np.empty((len(entries), 3, side, side), dtype=np.uint8)
    problems = []
    for index, entry in enumerate(entries):
        try:
            pixels[index] = _pixels(files.read(entry.id), side).transpose(2, 0, 1)
        # Damaged images make Pillow raise almost anything.
        except Exception as error:
            problems.append(f"{entry.id} ({_one_line(error)})")
    if problems:
        raise UserError(
            f"{source}: {len(problems)} of {len(entries)} images cannot be used: "
            f"{_first(problems)}; mend or remove them"
        )
    labels = torch.tensor([entry.label for entry in entries], dtype=torch.int64)
    return LabelledImages(torch.from_numpy(pixels), labels, files.class_ids)


def _opened(source: Path) -> Source:
    if source.is_dir():
        return FolderSource(source)
    if not source.exists():
        raise UserError(f"there is no folder or zip {source}")
    if not zipfile.is_zipfile(source):
        raise UserError(f"{source} is neither a folder nor a zip of class folders, or is cut off")
    return ZipSource(source)


def _pixels(content: bytes, side: int) -> NDArray[np.uint8]:
    """(side, side, 3)."""
    with Image.open(io.BytesIO(content)) as image:
        # The size stands in the header, so a wrong one costs no decoding.
        if image.size != (side, side):
            columns, rows = image.size
            raise ValueError(f"{columns}x{rows} instead of {side}x{side} pixels")
        return np.asarray(image.convert("RGB"))


def _one_line(error: Exception) -> str:
    # Pillow's text names a buffer's address in memory.
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    # What a source says names itself and the image once more; its cause does not.
    cause = error.__cause__ if isinstance(error, UserError) else error
    return " ".join(str(cause).split()) or type(error).__name__


def _first(problems: Sequence[str]) -> str:
    more = len(problems) - _SHOWN
    return ", ".join(problems[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
