"""`evaluate build-reference`: the images that the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.config.data_config import load_data_config
from harness.data.datasets import load_data_set
from harness.data.encoded_images import EncodedImages
from harness.data.manifest import read_manifest
from harness.data.sources import open_source
from harness.evaluation.image_inputs import ImageInput, open_images
from harness.evaluation.reference import PictureRows
from models.errors import UserError

_SCALE = "scale:"


def open_source_images(
    source: str,
    manifest: Path | None,
    resolution: int | None,
    overrides: Sequence[str],
    experiments_dir: Path,
) -> ImageInput:
    """See which images there are.

    Args:
        source: a path, or `scale:NAME`.
        manifest: which images of the path, for those that must be cropped and resized.
        resolution: pixels a side, with a manifest.
        overrides: of a scale's `data.`.
        experiments_dir: the folder of YAML files.

    Raises:
        UserError: they are missing, or the arguments do not fit one another.
    """
    if (manifest is None) != (resolution is None):
        raise UserError(
            "--manifest and --resolution go together: images of a manifest are cropped and resized "
            "to a square, others are taken as they are"
        )
    if source.startswith(_SCALE):
        if manifest is not None:
            raise UserError(f"{source} has a manifest of its own: name it as data.manifest=FILE")
        return _of_scale(source, overrides, experiments_dir)
    if overrides:
        raise UserError(f"{overrides[0]} changes the data of a scale, but SOURCE is {source}")
    if manifest is None or resolution is None:
        return open_images(Path(source))
    named = read_manifest(manifest)
    images = EncodedImages(open_source(Path(source)), named, resolution)
    text = f"{named.name} (manifest {named.hash[:12]}) at {resolution} pixels, from {source}"
    return ImageInput(PictureRows(images), text, ())


def _of_scale(source: str, overrides: Sequence[str], experiments_dir: Path) -> ImageInput:
    config = load_data_config(source.removeprefix(_SCALE), overrides, experiments_dir)
    pictures = load_data_set(config).train.pictures
    text = f"training images of {source} ({config.name}, fingerprint {pictures.fingerprint()[:12]})"
    return ImageInput(PictureRows(pictures), text, ())
