"""Latents as they lie in a folder, read row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.latents.description import STORAGE, CacheDescription, read_description
from harness.data.latents.shard import Shard, ShardFacts, shard_name
from harness.data.latents.sharding import Sharding
from harness.data.manifest import Manifest, read_manifest
from models.errors import UserError

MANIFEST = "manifest.json"


class LatentCache:
    """Latents of the images of a manifest, and of their mirror images.

    Rows are those of the manifest. Shards are opened when they are needed, in each process for
    itself: it can be pickled, and forked at any time.

    Args:
        folder: where it is.
        description: how it was made.
        manifest: the one that it was made from.
    """

    def __init__(self, folder: Path, description: CacheDescription, manifest: Manifest) -> None:
        self.folder = folder
        self.description = description
        self.manifest = manifest
        ids = [image.id for image in manifest.images]
        self.sharding = Sharding(ids, len(description.shard_sizes))
        if self.sharding.sizes != description.shard_sizes:
            raise UserError(
                f"{folder}: the images of {MANIFEST} are not those of its shards: name an empty "
                "folder and run `python -m harness data encode` again"
            )
        self._open: dict[int, Shard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}

    @property
    def identity(self) -> str:
        """SHA-256 of everything that can change a latent, in hex."""
        return self.description.identity

    @property
    def autoencoder_identity(self) -> str:
        """SHA-256 of the autoencoder, in hex."""
        return self.description.autoencoder.identity

    @property
    def resolution(self) -> int:
        """Pixels a side of the images."""
        return self.description.resolution

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, h and w."""
        return self.description.autoencoder.latent_shape(self.resolution)

    @property
    def scaling_factor(self) -> float:
        """What brings latents to about unit scale."""
        return self.description.autoencoder.scaling_factor

    @property
    def missing_shards(self) -> tuple[int, ...]:
        """Those that are not written yet, as the folder is now. A shard without images is none."""
        present = {path.name for path in self.folder.iterdir()}
        return tuple(
            number
            for number, size in enumerate(self.description.shard_sizes)
            if size and shard_name(number) not in present
        )

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return not self.missing_shards

    def moments(self, row: int, mirrored: bool) -> Tensor:
        """What is stored of an image or of its mirror image, unscaled.

        Returns:
            (C', h, w) float32: mean and log-variance where the autoencoder is stochastic, or the
            latent.

        Raises:
            UserError: its shard is missing, damaged or of something else.
        """
        shard = self.open_shard(int(self.sharding.shard[row]))
        return shard.moments(int(self.sharding.place[row]), mirrored)

    def sample(self, moments: Tensor, generator: torch.Generator) -> Tensor:
        """(..., C', h, w) to a latent as a network sees it, (..., C, h, w)."""
        return self.description.autoencoder.sample(moments, generator)

    def shard_facts(self, number: int) -> ShardFacts:
        """What a shard must say of itself."""
        images = self.manifest.images
        ids = tuple(images[row].id for row in self.sharding.rows[number].tolist())
        return ShardFacts(
            ids, self.autoencoder_identity, self.description.manifest_hash, self.identity
        )

    def open_shard(self, number: int) -> Shard:
        """A shard, opened once and checked then.

        Raises:
            UserError: it is missing, cut short, or not what it should be.
        """
        if number not in self._open:
            self._open[number] = Shard(
                self.folder / shard_name(number),
                self.shard_facts(number),
                self.description.autoencoder.moments_shape(self.resolution),
                STORAGE[self.description.dtype],
            )
        return self._open[number]


def open_cache(folder: Path) -> LatentCache:
    """The cache in a folder, complete or not.

    Raises:
        UserError: there is none, or its description and its manifest do not fit.
    """
    description = read_description(folder)
    manifest = read_manifest(folder / MANIFEST)
    if manifest.hash != description.manifest_hash:
        raise UserError(
            f"{folder / MANIFEST} has the hash {manifest.hash[:12]}, but the latents beside it are "
            f"of {description.manifest_hash[:12]}: restore the manifest that they were encoded with"
        )
    return LatentCache(folder, description, manifest)
