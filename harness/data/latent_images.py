"""Images as latents of an autoencoder, sampled anew each time they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from harness.data.images import ImageSet, NoiseOf, Pictures
from harness.data.latents.cache import LatentCache


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
        manifest = cache.manifest
        self.rows = torch.arange(len(manifest.images)) if rows is None else rows
        every = torch.tensor([image.label for image in manifest.images], dtype=torch.int64)
        self.labels = every[self.rows]
        self.class_names = tuple(item.name for item in manifest.classes)

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
