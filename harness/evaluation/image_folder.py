"""A folder of image files of one size, decoded as they are asked for and never resized."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM")
"""Told by content. Formats that run other programs are left out, as EPS is."""
_GREY = ("1", "L")
_MAYBE_TRANSPARENT = ("LA", "PA", "P", "RGBA")
_MODES = (*_GREY, *_MAYBE_TRANSPARENT, "RGB", "CMYK", "YCbCr")
_OPAQUE = 255


def image_files(folder: Path) -> tuple[Path, ...]:
    """All files below a folder that are named as images are, sorted by their paths.

    Raises:
        UserError: there are none.
    """
    files = tuple(
        sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
        )
    )
    if not files:
        raise UserError(
            f"{folder} holds no images: expected files that end in {', '.join(SUFFIXES)}"
        )
    return files


class FolderImages:
    """All images below a folder, sorted by their paths.

    As the field's evaluators do, an orientation in EXIF is not looked at.
    """

    def __init__(self, folder: Path) -> None:
        """Read all headers.

        Raises:
            UserError: there are no images, or one is damaged, of another size or of more than 8
                bits a channel. The message names it.
        """
        self.folder = folder
        self.files = image_files(folder)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            headers = list(pool.map(_header, self.files))
        sizes = Counter(size for size, _ in headers)
        if len(sizes) > 1:
            self._refuse_sizes([size for size, _ in headers], sizes)
        self.grey = sum(mode in _GREY for _, mode in headers)
        """How many of the images are grey."""
        ((width, height), _) = headers[0]
        channels = 1 if self.grey == len(self.files) else 3
        self.shape = (len(self.files), height, width, channels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        files = self.files[rows]
        images = np.empty((len(files), *self.shape[1:]), dtype=np.uint8)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for place, image in enumerate(pool.map(self._decoded, files)):
                images[place] = image
        return images

    def _decoded(self, path: Path) -> NDArray[np.uint8]:
        """(H, W, C)."""
        try:
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                if image.mode in _MAYBE_TRANSPARENT:
                    alpha = np.asarray(image.convert("RGBA"))[..., 3]
                    if (alpha != _OPAQUE).any():
                        raise UserError(
                            f"{path} has transparent pixels: put it on a background and store it "
                            "without transparency"
                        )
                pixels = np.asarray(image.convert("L" if self.shape[3] == 1 else "RGB"))
        except UserError:
            raise
        # Damaged files make Pillow raise almost anything.
        except Exception as error:
            raise UserError(f"{path} is damaged or truncated ({error})") from error
        if pixels.shape[:2] != self.shape[1:3]:
            raise UserError(f"{path} has another size than its header had before")
        return pixels.reshape(self.shape[1:])

    def _refuse_sizes(self, sizes: list[tuple[int, int]], counts: Counter[tuple[int, int]]) -> None:
        """Name an image of the usual size and one of another."""
        usual = counts.most_common(1)[0][0]
        one = self.files[sizes.index(usual)]
        other = next(index for index, size in enumerate(sizes) if size != usual)
        raise UserError(
            f"{self.folder} holds images of {len(counts)} sizes: {one} is {usual[0]}x{usual[1]}, "
            f"{self.files[other]} is {sizes[other][0]}x{sizes[other][1]} (width x height); "
            "expected one size, since figures depend on how images are resized"
        )


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """Width and height, and mode."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            size, mode = image.size, image.mode
    except UnidentifiedImageError:
        raise UserError(f"{path} is no image, or a damaged one") from None
    except Exception as error:
        raise UserError(f"{path} is damaged or truncated ({error})") from error
    if mode not in _MODES:
        raise UserError(
            f"{path} has pixels of the kind {mode}: expected 8 bits a channel, colour or grey"
        )
    return size, mode
