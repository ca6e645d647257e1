"""Any images: those of a manifest, from wherever they are kept, as pixels or as latents."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from harness.config.sections import DataConfig
from harness.data.datasets.base import check_held_out, hash_of_facts, hold_out
from harness.data.decoding import DECODING
from harness.data.images import DataSet, EncodedImages, LatentImages
from harness.data.latents.cache import DESCRIPTION, LatentCache, open_cache
from harness.data.manifest import Manifest, read_manifest
from harness.data.sources import open_source
from harness.data.verify import check_sizes
from harness.machine.files import given_path
from harness.vocabulary.names import short_hash
from models.errors import UserError

FIELDS = ("manifest", "latents")
"""Fields of `data` that other data sets have no use for."""
_MAKE = "python -m harness data make-manifest IMAGES manifest.json"
_ENCODE = "python -m harness data encode IMAGES LATENTS --manifest MANIFEST --autoencoder FOLDER"


def check(config: DataConfig) -> None:
    """See that images, manifest and latents are there and fit one another and the configuration.

    Sizes of all images are compared with the manifest; contents are when an image is read. Raises a
    UserError if something is missing or does not fit.
    """
    images = _named(config.path, "data.path", "the images", "a folder, archive or shards")
    cache = _cache(config)
    manifest = _manifest(config, cache)
    check_held_out(config.held_out, len(manifest.images))
    check_sizes(manifest, open_source(images))
    if cache is not None:
        _check_fits(config, cache)


def content(config: DataConfig) -> str:
    """A hash of the manifest, how images are decoded and, with latents, the autoencoder."""
    cache = _cache(config)
    facts = {"manifest": _manifest(config, cache).hash, "decoding": DECODING}
    return hash_of_facts(facts if cache is None else {**facts, "latents": cache.identity})


def load(config: DataConfig) -> DataSet:
    """The images of the manifest, some of them held out, drawn evenly from the classes.

    With latents, images are looked at only when they are measured, and their sizes compared then.
    Raises a UserError if something is missing or does not fit, or too few images would be left.
    """
    images = _named(config.path, "data.path", "the images", "a folder, archive or shards")
    cache = _cache(config)
    manifest = _manifest(config, cache)
    pictures = partial(_pictures, images, manifest, config.resolution)
    if cache is None:
        return hold_out(pictures(), config.held_out, manifest.name)
    _check_fits(config, cache)
    return hold_out(LatentImages(cache, pictures), config.held_out, manifest.name)


def _pictures(images: Path, manifest: Manifest, resolution: int) -> EncodedImages:
    source = open_source(images)
    check_sizes(manifest, source)
    return EncodedImages(source, manifest, resolution)


def _cache(config: DataConfig) -> LatentCache | None:
    if config.latents is None:
        return None
    folder = _named(config.latents, "data.latents", "the latents", f"the folder of: {_ENCODE}")
    cache = _opened(folder, _changed(folder / DESCRIPTION))
    if cache.missing_shards:
        raise UserError(
            f"{folder} lacks {len(cache.missing_shards)} of its shards: repeat the command that "
            "encodes it, which goes on where it stopped"
        )
    return cache


def _manifest(config: DataConfig, cache: LatentCache | None) -> Manifest:
    """The one that is named, or else that of the latents."""
    if config.manifest is None and cache is not None:
        return cache.manifest
    path = _named(config.manifest, "data.manifest", "the manifest", f"the file of: {_MAKE}")
    manifest = _read(path, _changed(path))
    if cache is not None and cache.manifest.hash != manifest.hash:
        raise UserError(
            f"{config.latents} holds latents of the manifest {cache.manifest.name} "
            f"({short_hash(cache.manifest.hash)}), but {path} is {manifest.name} "
            f"({short_hash(manifest.hash)}): encode these images, or set data.manifest=null to "
            "take the one of the latents"
        )
    return manifest


# One of ImageNet takes seconds to read, and is asked for several times.
@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> Manifest:  # noqa: ARG001
    return read_manifest(path)


@lru_cache(maxsize=2)
def _opened(folder: Path, changed: int) -> LatentCache:  # noqa: ARG001
    return open_cache(folder)


def _changed(path: Path) -> int:
    """When a file was written last, in nanoseconds; 0 where there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _check_fits(config: DataConfig, cache: LatentCache) -> None:
    side = cache.latent_shape[1]
    facts = {
        "data.resolution": (config.resolution, cache.resolution),
        "data.downsampling": (config.downsampling, cache.resolution // side),
    }
    for key, (asked, found) in facts.items():
        if asked != found:
            raise UserError(
                f"{key} is {asked}, but {config.latents} was encoded with {found}: set "
                f"{key}={found}, or encode again"
            )
    if config.autoencoder is None:
        raise UserError(
            "data.latents is set and data.autoencoder is null: name the autoencoder that the "
            "latents come from, so that samples can be decoded"
        )


def _named(path: str | None, key: str, what: str, expected: str) -> Path:
    if path is None:
        raise UserError(f"{key} is null, but it must name {what}: {expected}")
    named = given_path(path, key)
    if not named.exists():
        raise UserError(f"{key} names {named}, which is not there: expected {what}, {expected}")
    return named
