"""An image of a manifest as pixels, once its bytes are proven to be those of the manifest."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from harness.data.decoding import UnreadableImageError, decode_image
from harness.data.manifest import Manifest, ManifestImage
from harness.data.sources.base import Source
from models.errors import UserError

_SHOWN_DIGITS = 12


def read_checked_image(
    source: Source, manifest: Manifest, image: ManifestImage, resolution: int
) -> NDArray[np.uint8]:
    """Read, check and decode one image.

    Args:
        source: of the encoded files.
        manifest: named in messages.
        image: one of the manifest's.
        resolution: R, pixels a side.

    Returns:
        (R, R, 3).

    Raises:
        UserError: the source lacks it, has another size or content there, or it cannot be decoded.
    """
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
            f"{len(content)} bytes and the SHA-256 {found[:_SHOWN_DIGITS]}... instead of "
            f"{image.size} and {image.sha256[:_SHOWN_DIGITS]}...; restore it, or make a new "
            "manifest"
        )
    try:
        return decode_image(content, resolution)
    except UnreadableImageError as error:
        raise UserError(f"{image.id} in {source.path} cannot be decoded: {error}") from error
