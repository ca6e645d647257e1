"""A cache of latents: a folder with its description, a manifest and shards, read row by row.

The description, `cache.json`, says what the autoencoder's latents are (shape, scale, whether one is
sampled) and of which images they were made, how. The manifest beside it names the images, and an
image's id alone decides which shard holds it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from harness.data.latents.shard import Shard, ShardFacts, shard_name
from harness.data.manifest import Manifest, first_mistake, read_manifest
from harness.vocabulary.names import short_hash
from models.errors import UserError

DESCRIPTION, MANIFEST = "cache.json", "manifest.json"

StorageType: TypeAlias = Literal["float16", "float32"]

STORAGE: dict[StorageType, torch.dtype] = {"float16": torch.float16, "float32": torch.float32}
GREATEST_RESOLUTION = 8192
"""Pixels a side: whatever is larger is a slip, and would ask for more memory than there is."""

_LEAST_LOG_VARIANCE, _GREATEST_LOG_VARIANCE = -30.0, 20.0
"""The bounds of diffusers' `DiagonalGaussianDistribution`."""


@dataclass(frozen=True)
class LatentSpace:
    """What an autoencoder says of its latents."""

    identity: str
    """SHA-256 of configuration and weights, in hex."""
    class_name: str
    """The autoencoder's class in diffusers."""
    latent_channels: Annotated[int, Field(ge=1)]
    """C."""
    downsampling: Annotated[int, Field(ge=1)]
    """Pixels a side of one latent."""
    scaling_factor: Annotated[float, Field(gt=0)]
    """A network sees (latent - shift_factor) * scaling_factor."""
    shift_factor: float
    """In the autoencoder's own units."""
    stochastic: bool
    """Whether it gives mean and log-variance of a latent, or the latent itself."""

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """C, h and w of the latent of a square image. Raises a UserError if the side is not a
        multiple of the downsampling, or is too large."""
        if not 1 <= resolution <= GREATEST_RESOLUTION or resolution % self.downsampling:
            raise UserError(
                f"the resolution is {resolution}, but this {self.class_name} needs a multiple of "
                f"{self.downsampling} up to {GREATEST_RESOLUTION}"
            )
        side = resolution // self.downsampling
        return self.latent_channels, side, side

    def moments_shape(self, resolution: int) -> tuple[int, int, int]:
        """C', h and w of what is encoded: C' is 2C if the autoencoder is stochastic, else C. Raises
        a UserError if the side is not a multiple of the downsampling, or is too large."""
        channels, rows, columns = self.latent_shape(resolution)
        return channels * (2 if self.stochastic else 1), rows, columns

    def sample(self, moments: Tensor, generator: torch.Generator) -> Tensor:
        """A latent as a network sees it, (..., C, h, w).

        Args:
            moments: (..., C', h, w), mean and log-variance, or the latent itself, unscaled.
            generator: of the moments' device; draws nothing if there is nothing to draw.
        """
        latents = moments
        if self.stochastic:
            mean, log_variance = moments.chunk(2, dim=-3)
            log_variance = log_variance.clamp(_LEAST_LOG_VARIANCE, _GREATEST_LOG_VARIANCE)
            noise = torch.randn(
                mean.shape, generator=generator, dtype=mean.dtype, device=generator.device
            )
            latents = mean + torch.exp(0.5 * log_variance) * noise
        return (latents - self.shift_factor) * self.scaling_factor

    def unscaled(self, latents: Tensor) -> Tensor:
        """What a network sees, as the autoencoder's decoder takes it."""
        return latents / self.scaling_factor + self.shift_factor


class CacheDescription(BaseModel):
    """The images whose latents a cache holds, and how these were made."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal[1] = 1
    manifest_name: str
    manifest_hash: str
    resolution: Annotated[int, Field(ge=1, le=GREATEST_RESOLUTION)]
    """Pixels a side."""
    decoding: str
    """The version of how files become pixels."""
    dtype: StorageType
    shard_sizes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Images in each shard."""
    autoencoder: LatentSpace

    @property
    def identity(self) -> str:
        """SHA-256 of everything that can change a latent, in hex."""
        made = (self.format, self.manifest_hash, self.resolution, self.decoding, self.dtype)
        text = json.dumps((*made, asdict(self.autoencoder)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def check_same(self, wanted: CacheDescription, folder: Path) -> None:
        """See that latents made as `wanted` belong into this cache. Shards may be of any size.
        Raises a UserError if they do not, with both values of each difference."""
        ours, theirs = (
            {
                "the manifest": facts.manifest_hash,
                "the resolution": facts.resolution,
                "the decoding": facts.decoding,
                "the dtype": facts.dtype,
                **{f"the autoencoder's {k}": v for k, v in asdict(facts.autoencoder).items()},
            }
            for facts in (self, wanted)
        )
        if differences := [
            f"{name} {_shown(ours[name])} instead of {_shown(theirs[name])}"
            for name in ours
            if ours[name] != theirs[name]
        ]:
            raise UserError(
                f"{folder} holds latents of {', '.join(differences)}: name an empty folder, or "
                "encode as they were begun"
            )


def read_description(folder: Path) -> CacheDescription:
    """The description in the folder of a cache. Raises a UserError if there is none, or it is
    damaged or of another format."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(
            f"{folder} holds no latents, as it lacks {DESCRIPTION}; "
            "`python -m harness data encode` writes them"
        )
    try:
        return CacheDescription.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(
            f"{path} does not describe latents of format 1, the only one known: "
            f"{first_mistake(error)}"
        ) from error


def _shown(value: object) -> str:
    """Hashes are cut, as they are wherever else the user meets them."""
    text = str(value)
    is_hash = len(text) == hashlib.sha256().digest_size * 2
    return f"{short_hash(text)}..." if is_hash else text


class Sharding:
    """N images in shards, by their ids alone: the order in which they are listed does not matter.

    Attributes:
        shard: of each row of the manifest, (N,).
        place: of each row within its shard, (N,).
        sizes: images in each shard.
        rows: in each shard, sorted by id.
    """

    def __init__(self, ids: Sequence[str], shards: int) -> None:
        numbers = [_shard_of(image_id, shards) for image_id in ids]
        by_shard = sorted(range(len(ids)), key=lambda row: (numbers[row], ids[row]))
        order = np.array(by_shard, dtype=np.int64)
        self.shard = np.array(numbers, dtype=np.int64)
        self.sizes: tuple[int, ...] = tuple(np.bincount(self.shard, minlength=shards).tolist())
        self.rows = tuple(np.split(order, np.cumsum(self.sizes)[:-1]))
        self.place = np.empty_like(self.shard)
        self.place[order] = np.concatenate([np.arange(size) for size in self.sizes])


def _shard_of(image_id: str, shards: int) -> int:
    digest = hashlib.sha256(image_id.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % shards


class LatentCache:
    """Latents of the images of a manifest, by its rows, and of their mirror images.

    Shards are opened when they are needed, in each process for itself: it can be pickled, and
    forked at any time. Raises a UserError if the shards are not those of the manifest.
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
    def space(self) -> LatentSpace:
        return self.description.autoencoder

    @property
    def resolution(self) -> int:
        return self.description.resolution

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """C, h and w."""
        return self.space.latent_shape(self.resolution)

    @property
    def missing_shards(self) -> tuple[int, ...]:
        """Shards not written yet, as the folder is now. One without images is never missing."""
        present = {path.name for path in self.folder.iterdir()}
        sizes = enumerate(self.description.shard_sizes)
        return tuple(number for number, size in sizes if size and shard_name(number) not in present)

    def moments(self, row: int, mirrored: bool) -> Tensor:
        """What is stored of an image or of its mirror image, (C', h, w) float32, unscaled: mean and
        log-variance, or the latent. Raises a UserError if its shard is missing or damaged."""
        shard = self.open_shard(int(self.sharding.shard[row]))
        return shard.moments(int(self.sharding.place[row]), mirrored)

    def shard_facts(self, number: int) -> ShardFacts:
        """What a shard must say of itself."""
        images = self.manifest.images
        ids = tuple(images[row].id for row in self.sharding.rows[number].tolist())
        return ShardFacts(ids, self.space.identity, self.description.manifest_hash, self.identity)

    def open_shard(self, number: int) -> Shard:
        """A shard, opened once and checked then. Raises a UserError if it is missing, cut short, or
        not what it should be."""
        if number not in self._open:
            self._open[number] = Shard(
                self.folder / shard_name(number),
                self.shard_facts(number),
                self.space.moments_shape(self.resolution),
                STORAGE[self.description.dtype],
            )
        return self._open[number]


def open_cache(folder: Path) -> LatentCache:
    """The cache in a folder, complete or not. Raises a UserError if there is none, or if its
    description and its manifest do not fit."""
    description = read_description(folder)
    manifest = read_manifest(folder / MANIFEST)
    if manifest.hash != description.manifest_hash:
        raise UserError(
            f"{folder / MANIFEST} has the hash {short_hash(manifest.hash)}, but the latents beside "
            f"it are of {short_hash(description.manifest_hash)}: restore the manifest that they "
            "were encoded with"
        )
    return LatentCache(folder, description, manifest)
