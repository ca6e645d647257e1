"""Sets of images with labels: what a network sees of them, and how they look.

A network sees pixels as numbers in [-1, 1], or latents of an autoencoder. Metrics and people see
the 256 levels of a pixel: those of `Pictures`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from harness.data.decoding import DECODING, read_checked_image
from harness.data.latents.cache import LatentCache
from harness.data.manifest import Manifest
from harness.data.sources.base import Source

NoiseOf = Callable[[int], torch.Generator]
"""The random stream of a row of a batch; only sets whose inputs are random draw from it."""
KEPT_IN_MEMORY = 512 * 2**20
"""Bytes. Decoded images up to here are kept, so that a small data set is decoded once."""


class ImageSet(ABC):
    """Images as a network sees them: pixels, or latents of an autoencoder."""

    labels: Tensor
    """(N,) int64."""
    class_names: tuple[str, ...]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of what the network sees of an image."""

    @property
    @abstractmethod
    def pictures(self) -> Pictures:
        """These images, in this order, to look at and to measure."""

    @abstractmethod
    def inputs(self, index: Tensor, flips: Tensor, noise_of: NoiseOf) -> Tensor:
        """What the network sees of some of the images, (B, C, H, W) float32, about unit scale.

        Args:
            index: (B,) int64.
            flips: (B,) bool, which of them are mirrored left to right.
            noise_of: the stream that a row's latent is sampled with.

        Raises:
            UserError: an image or latent is missing or damaged.
        """

    @abstractmethod
    def subset(self, index: Tensor) -> ImageSet:
        """Some of the images, in the order of `index` (M,)."""


@dataclass(frozen=True)
class DataSet:
    """The two parts of a data set; the split does not depend on a trial's seed."""

    train: ImageSet
    held_out: ImageSet
    title: str
    """What tables call it, with its version if it has one, such as `sub-in-100/v1`."""


def unflipped(index: Tensor) -> Tensor:
    """The flips that mirror none of the images of `index` (B,)."""
    return torch.zeros(len(index), dtype=torch.bool)


def to_network(images: Tensor) -> Tensor:
    """uint8 (B, C, H, W) to float32 in [-1, 1]."""
    return images.float().div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] to uint8, rounded to the nearest of the 256 levels and clipped.

    `127.5 x + 128` rounded down is `127.5 x + 127.5` rounded to the nearest; it is the exact
    inverse of `level / 127.5 - 1`.
    """
    return (127.5 * images + 128.0).clamp(0, 255).to(torch.uint8)


class Pictures(ImageSet):
    """Images that a network sees as people do; a subclass says how they are read."""

    @abstractmethod
    def pixels(self, index: Tensor) -> Tensor:
        """Images of `index` (B,) int64 as (B, C, H, W) uint8, a copy that the caller may change.
        Raises a UserError if an image is missing or is not the one it should be."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digits; equal only for equal images in equal order."""

    @abstractmethod
    def subset(self, index: Tensor) -> Pictures: ...

    @property
    def pictures(self) -> Pictures:
        return self

    def inputs(self, index: Tensor, flips: Tensor, noise_of: NoiseOf) -> Tensor:
        images = self.pixels(index)
        if flips.any():
            images[flips] = images[flips].flip(-1)
        return to_network(images)


@dataclass(frozen=True)
class LabelledImages(Pictures):
    """Images in memory; the network sees their pixels."""

    images: Tensor
    """(N, C, H, W) uint8."""
    labels: Tensor
    """(N,) int64."""
    class_names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, rows, columns = self.images.shape
        return channels, rows, columns

    def pixels(self, index: Tensor) -> Tensor:
        return self.images[index]

    def subset(self, index: Tensor) -> LabelledImages:
        return LabelledImages(self.images[index], self.labels[index], self.class_names)

    def fingerprint(self) -> str:
        """SHA-256 of pixels, shape, labels and class names, in hex."""
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.class_names)).encode())
        digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(self.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()


def _labelled_rows(
    manifest: Manifest, rows: Tensor | None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Rows (N,), all if they are None; their labels (N,); and the names of the classes."""
    labels = torch.tensor([image.label for image in manifest.images], dtype=torch.int64)
    chosen = torch.arange(len(labels)) if rows is None else rows
    return chosen, labels[chosen], tuple(item.name for item in manifest.classes)


class EncodedImages(Pictures):
    """Colour images of a manifest, or of `rows` of it, (N,), cropped and resized to a square when
    they are asked for, and then kept if all fit into so many bytes of memory."""

    def __init__(
        self,
        source: Source,
        manifest: Manifest,
        resolution: int,
        rows: Tensor | None = None,
        kept_in_memory: int = KEPT_IN_MEMORY,
    ) -> None:
        # Listed here, once, rather than in every worker process that is forked later.
        source.entries()
        self.source = source
        self.manifest = manifest
        self.resolution = resolution
        self.kept_in_memory = kept_in_memory
        self.rows, self.labels, self.class_names = _labelled_rows(manifest, rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.resolution, self.resolution

    def pixels(self, index: Tensor) -> Tensor:
        return self._read(self.rows[index]) if self._decoded is None else self._decoded[index]

    def subset(self, index: Tensor) -> EncodedImages:
        return EncodedImages(
            self.source, self.manifest, self.resolution, self.rows[index], self.kept_in_memory
        )

    def fingerprint(self) -> str:
        """SHA-256 of the manifest's hash, the decoding, the resolution and which rows, in hex."""
        facts = (self.manifest.hash, DECODING, self.resolution)
        digest = hashlib.sha256(repr(facts).encode())
        digest.update(self.rows.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _decoded(self) -> Tensor | None:
        """All images, (N, 3, H, W), if they fit into memory."""
        fits = len(self.rows) * 3 * self.resolution**2 <= self.kept_in_memory
        return self._read(self.rows) if fits else None

    def _read(self, rows: Tensor) -> Tensor:
        """(B, 3, H, W) uint8, decoded in as many threads as PyTorch may use here."""
        images = np.empty((len(rows), self.resolution, self.resolution, 3), dtype=np.uint8)

        def read(place: int) -> None:
            image = self.manifest.images[int(rows[place])]
            images[place] = read_checked_image(self.source, self.manifest, image, self.resolution)

        threads = min(torch.get_num_threads(), len(rows))
        if threads < 2:
            # Of a loader's worker, where handing images between threads would cost more.
            for place in range(len(rows)):
                read(place)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(read, range(len(rows))))
        # (B, H, W, 3) -> (B, 3, H, W)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


class LatentImages(ImageSet):
    """Latents of a complete cache, or of `rows` of it, (N,), sampled anew at each request.

    `open_pictures` gives the images that the cache was made from, all of its manifest; it is called
    only when images are looked at or measured.
    """

    def __init__(
        self,
        cache: LatentCache,
        open_pictures: Callable[[], Pictures],
        rows: Tensor | None = None,
    ) -> None:
        self.cache = cache
        self.open_pictures = open_pictures
        self.rows, self.labels, self.class_names = _labelled_rows(cache.manifest, rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.cache.latent_shape

    @cached_property
    def pictures(self) -> Pictures:
        return self.open_pictures().subset(self.rows)

    def inputs(self, index: Tensor, flips: Tensor, noise_of: NoiseOf) -> Tensor:
        drawn = zip(self.rows[index].tolist(), flips.tolist(), strict=True)
        return torch.stack(
            [
                self.cache.space.sample(self.cache.moments(row, flip), noise_of(place))
                for place, (row, flip) in enumerate(drawn)
            ]
        )

    def subset(self, index: Tensor) -> LatentImages:
        return LatentImages(self.cache, self.open_pictures, self.rows[index])
