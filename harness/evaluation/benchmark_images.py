"""Two folders of images that every evaluator reads the same way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from harness.evaluation.image_inputs import FolderImages
from models.errors import UserError

PIXELS = 256
_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Those that all of the tools look for."""
_LEVELS = 16
"""Of scikit-learn's digits."""


@dataclass(frozen=True)
class ImagePair:
    """Folders without folders in them."""

    samples: Path
    reference: Path
    images: int
    """In both together."""
    what: str
    """In words."""


def link_images(samples: Path, reference: Path, count: int, scratch: Path) -> ImagePair:
    """The first images of two folders at any depth, as links.

    Raises:
        UserError: a folder holds no images, or others than all tools read.
    """
    total = 0
    for name, source in (("samples", samples), ("reference", reference)):
        if not source.is_dir():
            raise UserError(f"{source} is no folder of images")
        images = FolderImages(source)
        folder = scratch / name
        folder.mkdir(parents=True)
        for number, file in enumerate(images.files[:count]):
            if file.suffix not in _SUFFIXES:
                raise UserError(
                    f"{file} is no file that all tools look for: expected {', '.join(_SUFFIXES)}"
                )
            (folder / f"{number:06}{file.suffix}").symlink_to(file.resolve())
            total += 1
    return ImagePair(
        scratch / "samples", scratch / "reference", total, f"of {samples} and {reference}"
    )


def write_digits(count: int, scratch: Path) -> ImagePair:
    """Real images that come with scikit-learn, enlarged to 256 pixels a side.

    Args:
        count: of each folder, at most half of 1,797.
        scratch: where the folders are made.

    Raises:
        UserError: more images are asked for than there are.
    """
    from sklearn.datasets import load_digits

    digits = load_digits().images
    if count > len(digits) // 2:
        raise UserError(
            f"--count is {count}, but there are {len(digits) // 2} digits for each folder: name "
            "folders with --samples and --reference"
        )
    for place, name in enumerate(("samples", "reference")):
        folder = scratch / name
        folder.mkdir(parents=True)
        for number, digit in enumerate(digits[place::2][:count]):
            levels = (digit * (255 / _LEVELS)).round().astype(np.uint8)
            image = Image.fromarray(levels).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
            image.convert("RGB").save(folder / f"{number:06}.png")
    return ImagePair(
        scratch / "samples",
        scratch / "reference",
        2 * count,
        f"scikit-learn's digits of {PIXELS} pixels",
    )
