"""Whether a source holds the very images of a manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from harness.data.make_manifest import read_each
from harness.data.manifest import Manifest, ManifestImage
from harness.data.sources.base import Source
from harness.processes.progress import Progress, ProgressListener
from harness.vocabulary.names import short_hash
from models.errors import UserError


def check_sizes(manifest: Manifest, source: Source) -> None:
    """See that every image is there with its size, without reading one.

    Raises:
        UserError: the first image that differs, and how many more do.
    """
    _refuse(manifest, source, _differing_sizes(manifest, source))


def check_contents(
    manifest: Manifest, source: Source, processes: int, on_progress: ProgressListener
) -> None:
    """Read every image and compare its SHA-256.

    Args:
        manifest: what should be there.
        source: what is there; further images of it do not matter.
        processes: that read.
        on_progress: is told how many images are read.

    Raises:
        UserError: as `check_sizes`.
    """
    problems = _differing_sizes(manifest, source)
    images = [image for image in manifest.images if image.id not in problems]
    found = read_each(_hashed, source, [image.id for image in images], processes)
    for done, (image, (sha256, problem)) in enumerate(zip(images, found, strict=True), start=1):
        if problem is not None:
            problems[image.id] = f"cannot be read ({problem})"
        elif sha256 != image.sha256:
            problems[image.id] = (
                f"has other content, SHA-256 {short_hash(sha256)}... instead of "
                f"{short_hash(image.sha256)}..."
            )
        on_progress(Progress("verify", done, len(images)))
    _refuse(manifest, source, problems)


def _differing_sizes(manifest: Manifest, source: Source) -> dict[str, str]:
    """What is wrong, by the id of an image."""
    sizes = {entry.id: entry.size for entry in source.entries()}

    def problem(image: ManifestImage) -> str | None:
        size = sizes.get(image.id)
        if size is None:
            return "is missing"
        return None if size == image.size else f"has {size} bytes instead of {image.size}"

    found = ((image.id, problem(image)) for image in manifest.images)
    return {entry: text for entry, text in found if text is not None}


def _hashed(source: Source, entry_id: str) -> tuple[str, str | None]:
    """SHA-256, and why the source cannot give the image whole."""
    try:
        content = source.read(entry_id)
    except UserError as error:
        return "", str(error)
    return hashlib.sha256(content).hexdigest(), None


def _refuse(manifest: Manifest, source: Source, problems: Mapping[str, str]) -> None:
    for image in manifest.images:
        if image.id in problems:
            more = f", and {len(problems) - 1} more images differ" if len(problems) > 1 else ""
            raise UserError(
                f"{source.path} does not hold the images of the manifest {manifest.name}: "
                f"{image.id} {problems[image.id]}{more}; restore them, or make a new manifest"
            )
