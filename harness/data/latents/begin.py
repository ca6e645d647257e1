"""Making the folder of a cache, or joining one that was begun before."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

from filelock import FileLock

from harness.data.latents.cache import MANIFEST, LatentCache
from harness.data.latents.description import (
    DESCRIPTION,
    CacheDescription,
    StorageType,
    read_description,
)
from harness.data.latents.sharding import Sharding
from harness.data.latents.space import LatentSpace
from harness.data.manifest import Manifest, write_manifest
from harness.machine.files import write_text
from models.errors import UserError

LOCKS = ".locks"
"""A folder with a file for each shard that was worked on; the kernel frees a lock whose holder
dies, and the files stay, as removing one could let two processes hold the same lock."""


def describe(
    manifest: Manifest,
    autoencoder: LatentSpace,
    *,
    resolution: int,
    decoding: str,
    dtype: StorageType,
    images_per_shard: int,
) -> CacheDescription:
    """What a new cache says of itself.

    Raises:
        UserError: the resolution does not fit the autoencoder.
    """
    autoencoder.latent_shape(resolution)
    ids = [image.id for image in manifest.images]
    shards = math.ceil(len(ids) / images_per_shard)
    facts = {field.name: getattr(autoencoder, field.name) for field in fields(LatentSpace)}
    return CacheDescription(
        manifest_name=manifest.name,
        manifest_hash=manifest.hash,
        resolution=resolution,
        decoding=decoding,
        dtype=dtype,
        shard_sizes=Sharding(ids, shards).sizes,
        autoencoder=LatentSpace(**facts),
    )


def begin_cache(folder: Path, wanted: CacheDescription, manifest: Manifest) -> LatentCache:
    """The cache in a folder: a new one, or the one that is there, which keeps its own shards.

    Any number of processes may begin at once; where they want different things, one wins.

    Raises:
        UserError: the folder holds something else, and nothing was written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder for the latents")
    # Listed before the description is looked for, which is there before any shard is.
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not (folder / DESCRIPTION).is_file():
        foreign = sorted(name for name in present - {MANIFEST} if not name.startswith("."))
        if foreign:
            raise UserError(
                f"{folder} holds {foreign[0]}, but no {DESCRIPTION}: name an empty folder for the "
                "latents, or the one of a cache"
            )
        (folder / LOCKS).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCKS / f"{DESCRIPTION}.lock"):
            if not (folder / DESCRIPTION).is_file():
                write_manifest(folder / MANIFEST, manifest)
                write_text(folder / DESCRIPTION, wanted.model_dump_json(indent=2) + "\n")
    description = read_description(folder)
    description.check_same(wanted, folder)
    return LatentCache(folder, description, manifest)
