"""The images of a manifest as a data set: decoded when they are asked for, or as latents.

Files are checked against the manifest as they are read. Latents come from a cache and are sampled
anew each time they are asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.decoding import DECODING, read_checked_image
from harness.data.images import ImageSet, NoiseOf, Pictures, PixelSet
from harness.data.latents.cache import LatentCache
from harness.data.manifest import Manifest
from harness.data.sources.base import Source

KEPT_IN_MEMORY = 512 * 2**20
"""Bytes. Decoded images up to here are kept, so that a small data set is decoded once."""


def _labelled_rows(
    manifest: Manifest, rows: Tensor | None
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Rows (N,), all where they are None; their labels (N,); and the names of the classes."""
    labels = torch.tensor([image.label for image in manifest.images], dtype=torch.int64)
    chosen = torch.arange(len(labels)) if rows is None else rows
    return chosen, labels[chosen], tuple(item.name for item in manifest.classes)


class EncodedImages(PixelSet):
    """Colour images, cropped and resized to a square.

    Args:
        source: of the encoded files.
        manifest: which of them, and what they must contain.
        resolution: pixels a side.
        rows: of the manifest, (N,); None takes all.
        kept_in_memory: bytes up to which all decoded images are kept.
    """

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
    def picture_shape(self) -> tuple[int, int, int]:
        return 3, self.resolution, self.resolution

    def pixels(self, index: Tensor) -> Tensor:
        if self._decoded is not None:
            return self._decoded[index]
        return self._read(self.rows[index].tolist())

    def subset(self, index: Tensor) -> EncodedImages:
        return EncodedImages(
            self.source, self.manifest, self.resolution, self.rows[index], self.kept_in_memory
        )

    def fingerprint(self) -> str:
        """SHA-256 of the manifest's hash, the decoding, the resolution and which rows, in hex."""
        digest = hashlib.sha256()
        digest.update(repr((self.manifest.hash, DECODING, self.resolution)).encode())
        digest.update(self.rows.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _decoded(self) -> Tensor | None:
        """All images, (N, 3, H, W), where they fit into memory."""
        if len(self.rows) * 3 * self.resolution**2 > self.kept_in_memory:
            return None
        return self._read(self.rows.tolist())

    def _read(self, rows: list[int]) -> Tensor:
        """(B, 3, H, W) uint8, decoded in as many threads as PyTorch may use here."""
        images = np.empty((len(rows), self.resolution, self.resolution, 3), dtype=np.uint8)
        threads = min(torch.get_num_threads(), len(rows))
        if threads < 2:
            # Of a loader's worker, where handing images between threads would cost more.
            for place, row in enumerate(rows):
                images[place] = self._read_one(row)
        else:
            with ThreadPoolExecutor(threads) as pool:
                for place, image in enumerate(pool.map(self._read_one, rows)):
                    images[place] = image
        # (B, H, W, 3) -> (B, 3, H, W)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()

    def _read_one(self, row: int) -> NDArray[np.uint8]:
        image = self.manifest.images[row]
        return read_checked_image(self.source, self.manifest, image, self.resolution)


class LatentImages(ImageSet):
    """Rows of a latent cache.

    Args:
        cache: complete.
        open_pictures: gives the images that the cache was made from, all of its manifest; called
            only where images are looked at or measured.
        rows: of the manifest, (N,); None takes all.
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

    @property
    def pictures(self) -> Pictures:
        return self._pictures

    def inputs(self, index: Tensor, flips: Tensor, noise_of: NoiseOf) -> Tensor:
        rows = self.rows[index].tolist()
        return torch.stack(
            [
                self.cache.sample(self.cache.moments(row, flip), noise_of(place))
                for place, (row, flip) in enumerate(zip(rows, flips.tolist(), strict=True))
            ]
        )

    def subset(self, index: Tensor) -> LatentImages:
        return LatentImages(self.cache, self.open_pictures, self.rows[index])

    @cached_property
    def _pictures(self) -> Pictures:
        return self.open_pictures().subset(self.rows)
