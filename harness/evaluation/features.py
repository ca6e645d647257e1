"""From images to the features that all quality figures are computed from, extracted once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.gathered_moments import GatheredMoments
from harness.evaluation.moments import FeatureMoments
from harness.image_rows import ImageRows
from harness.progress import Progress, ProgressListener, ignore_progress


@dataclass(frozen=True)
class Features:
    """What an extractor says about N images, in their order."""

    features: NDArray[np.float32]
    """(N, D)."""
    logits: NDArray[np.float32]
    """(N, K)."""
    spatial: FeatureMoments | None = None
    """Of the spatial features of exactly these images, which are too large to be kept; None where
    the extractor has none."""

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, indices: NDArray[np.int64]) -> Features:
        """Those of some of the images, without their spatial moments."""
        return Features(self.features[indices], self.logits[indices])


class FeatureBatch(NamedTuple):
    """What an extractor says about some consecutive images."""

    rows: slice
    """Which ones."""
    images: NDArray[np.uint8]
    """(B, H, W, C)."""
    features: NDArray[np.float32]
    """(B, D)."""
    logits: NDArray[np.float32]
    """(B, K)."""
    spatial: NDArray[np.float32] | None
    """(B, S)."""


def extract_features(
    images: ImageRows,
    extractor: FeatureExtractor,
    *,
    batch_size: int,
    device: torch.device | str,
    on_progress: ProgressListener = ignore_progress,
) -> Features:
    """Extract in float32, whatever the precision of training was.

    Args:
        images: (N, H, W, C) uint8 with 1 or 3 channels; a batch at a time is read.
        extractor: in eval mode; it is moved to `device`.
        batch_size: without effect on the result, up to rounding.
        device: where to compute.
        on_progress: told after each batch.

    Raises:
        ValueError: there are no images, or they are not uint8 of this shape.
        FloatingPointError: a feature or logit is not finite.
    """
    features = np.empty((len(images), extractor.feature_size), dtype=np.float32)
    logits = np.empty((len(images), extractor.classes), dtype=np.float32)
    spatial = GatheredMoments(extractor.spatial_size)
    for batch in feature_batches(
        images, extractor, batch_size=batch_size, device=device, on_progress=on_progress
    ):
        features[batch.rows], logits[batch.rows] = batch.features, batch.logits
        if batch.spatial is not None:
            spatial.take(batch.spatial)
    return Features(features, logits, spatial.moments() if extractor.spatial_size else None)


def feature_batches(
    images: ImageRows,
    extractor: FeatureExtractor,
    *,
    batch_size: int,
    device: torch.device | str,
    on_progress: ProgressListener = ignore_progress,
) -> Iterator[FeatureBatch]:
    """The same batch by batch, so that memory does not grow with the images.

    The next batch is read while one is worked on.
    """
    if len(images) == 0:
        raise ValueError("no images to extract features from")
    extractor = extractor.to(device)

    def read(start: int) -> NDArray[np.uint8]:
        return np.array(images[start : min(start + batch_size, len(images))])

    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for start in range(0, len(images), batch_size):
            batch = coming.result()
            if start + batch_size < len(images):
                coming = reader.submit(read, start + batch_size)
            yield _extracted(batch, start, extractor, device)
            on_progress(Progress("features", start + len(batch), len(images)))


def _extracted(
    images: NDArray[np.uint8],
    start: int,
    extractor: FeatureExtractor,
    device: torch.device | str,
) -> FeatureBatch:
    with torch.inference_mode(), _full_precision():
        extracted = extractor(torch.from_numpy(images).to(device))
        parts = [None if part is None else part.cpu().numpy() for part in extracted]
    if not all(part is None or np.isfinite(part).all() for part in parts):
        raise FloatingPointError(f"{extractor.name} gave features that are not finite")
    features, logits, spatial = parts
    assert features is not None
    assert logits is not None
    return FeatureBatch(slice(start, start + len(images)), images, features, logits, spatial)


def _full_precision() -> AbstractContextManager[None]:
    """By default a GPU's convolutions round what they multiply to 10 bits."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
