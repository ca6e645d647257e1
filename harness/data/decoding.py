"""An encoded image as a square of RGB pixels: ADM's centre crop, and one rule a kind of pixel.

The crop is that of guided-diffusion (Dhariwal and Nichol 2021), which DiT took over: halve by
averaging while the short side is at least twice the resolution, bring it to the resolution with a
bicubic filter, and cut out the middle.

As there, transparency is dropped, not laid over a colour, and colour profiles are ignored. Other
than there,

- the orientation of EXIF is applied: without it a photograph from a telephone lies on its side
  though all viewers show it upright;
- more than 8 bits a channel are scaled. Pillow's own conversion clips them, so that nearly all of
  a grey image becomes white.

Bytes of a manifest's image are first proven to be those that the manifest names.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base as ExifTag
from PIL.ImageFile import ImageFile

from harness.data.manifest import Manifest, ManifestImage
from harness.data.sources.base import Source
from harness.data.walk import FORMATS
from harness.machine.files import kind_of_content
from harness.vocabulary.names import short_hash
from models.errors import UserError

DECODING = "adm-center-crop/v1"
"""Another name for other pixels: whoever changes what this module returns raises the version."""

_BEGINNINGS = re.compile(
    rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|....ftyp|GIF8|BM|II\*\0|MM\0\*|\0\0\0\x0cjP", re.DOTALL
)
"""How files of these formats begin, by which a cut one is still known."""

_MOST_PIXELS = 2 * 89_478_485
"""Where Pillow refuses too, unless a library has told it otherwise."""

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes each orientation of EXIF; those from 5 on exchange width and height."""

# ImageNet has many damaged EXIF blocks, and Pillow warns of each one. A filter for the time of a
# call alone would be wrong: all threads share one list of filters.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImageError(Exception):
    """Not an image, or not a whole one. The text says why in a few words, the same everywhere."""


def decode_image(content: bytes, resolution: int) -> NDArray[np.uint8]:
    """An image file as RGB, (R, R, 3), of R = `resolution` pixels a side.

    Smaller images are enlarged; of an animation the first frame is taken.

    Raises:
        UnreadableImageError: the reason.
    """
    with opened_image(content) as image:
        method = _UPRIGHT.get(_orientation(image))
        image.load()
        rgb = _rgb(image)
    return _cropped(rgb if method is None else rgb.transpose(method), resolution)


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height as seen upright, from the header alone. UnreadableImageError says why if it
    cannot be read."""
    with opened_image(content) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


@contextmanager
def opened_image(content: bytes) -> Iterator[ImageFile]:
    """An image whose header is read; failing to decode it in the block is a reason as well."""
    if not content:
        raise UnreadableImageError("empty file")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            _check_pixels(*image.size)
            yield image
    except UnreadableImageError:
        raise
    # Damaged files make Pillow raise almost anything.
    except Exception as error:
        reason = "truncated or damaged"
        if isinstance(error, Image.DecompressionBombError):
            reason = "decompression bomb"
        elif isinstance(error, UnidentifiedImageError) and not _BEGINNINGS.match(content):
            reason = kind_of_content(content) or "not an image"
        raise UnreadableImageError(reason) from error


def _check_pixels(width: int, height: int) -> None:
    if width * height > _MOST_PIXELS:
        raise UnreadableImageError(f"decompression bomb of {width}x{height} pixels")


def _orientation(image: ImageFile) -> int:
    """EXIF's orientation, 1 to 8; 1, upright, where it has none. Pillow turns TIFFs by itself."""
    block = image.info.get("exif")
    if image.format == "TIFF" or not block:
        return 1
    exif = Image.Exif()
    try:
        exif.load(block)
        orientation = exif.get(ExifTag.Orientation)
    # A damaged block says nothing of the pixels, and makes Pillow raise almost anything.
    except Exception:
        return 1
    return orientation if isinstance(orientation, int) and orientation in _UPRIGHT else 1


def _rgb(image: Image.Image) -> Image.Image:
    """Eight bits a channel; transparency is dropped."""
    if image.mode in _SIXTEEN_BITS:
        return _from_sixteen_bits(np.asarray(image))
    if image.mode == "I":
        # Pillow brings PGM of any depth to 16 bits. What white is elsewhere is not written down.
        if image.format not in ("PPM", "PNG"):
            raise UnreadableImageError("integer pixels of 32 bits, whose white is unknown")
        return _from_sixteen_bits(np.asarray(image))
    if image.mode == "F":
        values = np.asarray(image)
        if not (values.min() >= 0 and values.max() <= 1):
            raise UnreadableImageError("pixels of floating point outside 0 to 1")
        return Image.fromarray(np.rint(255 * values).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        # The direct way gives the same colours, with a warning where many are transparent.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _from_sixteen_bits(values: NDArray[np.integer]) -> Image.Image:
    """The high byte, which is all that Pillow reads of 16-bit colours too."""
    return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")


def _cropped(image: Image.Image, resolution: int) -> NDArray[np.uint8]:
    """(R, R, 3), the middle of an image of any size."""
    while min(image.size) >= 2 * resolution:
        halved = (image.width // 2, image.height // 2)
        image = image.resize(halved, Image.Resampling.BOX)
    scale = resolution / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    # A line of pixels would become a picture of any length.
    _check_pixels(width, height)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    return np.array(image.crop((left, top, left + resolution, top + resolution)))


def read_checked_image(
    source: Source, manifest: Manifest, image: ManifestImage, resolution: int
) -> NDArray[np.uint8]:
    """One image of the manifest, read, compared with it and decoded to RGB, (R, R, 3). Raises a
    UserError if the source lacks it, has another size or content there, or it cannot be decoded."""
    try:
        content = source.read(image.id)
    except KeyError:
        raise UserError(
            f"{source.path} lacks {image.id}, which the manifest {manifest.name} names: restore "
            "it, or make a new manifest"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if (len(content), found) != (image.size, image.sha256):
        raise UserError(
            f"{image.id} in {source.path} is not the image of the manifest {manifest.name}: it has "
            f"{len(content)} bytes and the SHA-256 {short_hash(found)}... instead of {image.size} "
            f"and {short_hash(image.sha256)}...; restore it, or make a new manifest"
        )
    try:
        return decode_image(content, resolution)
    except UnreadableImageError as error:
        raise UserError(f"{image.id} in {source.path} cannot be decoded: {error}") from error
