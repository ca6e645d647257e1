"""From images to the features that all quality figures are computed from, extracted once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.progress import Progress, ProgressListener, ignore_progress


@dataclass(frozen=True)
class Features:
    """What an extractor says about N images, in their order."""

    features: NDArray[np.float32]
    """(N, D)."""
    logits: NDArray[np.float32]
    """(N, K)."""

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, indices: NDArray[np.int64]) -> Features:
        """Those of some of the images."""
        return Features(self.features[indices], self.logits[indices])


class ImageRows(Protocol):
    """Images (N, H, W, C) uint8 that are read as they are sliced; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]: ...


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
    if len(images) == 0:
        raise ValueError("no images to extract features from")
    extractor = extractor.to(device)
    features = np.empty((len(images), extractor.feature_size), dtype=np.float32)
    logits = np.empty((len(images), extractor.classes), dtype=np.float32)
    for start in range(0, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        batch = torch.from_numpy(np.array(images[start:stop]))
        with torch.inference_mode():
            extracted = extractor(batch.to(device))
            features[start:stop] = extracted.features.cpu().numpy()
            logits[start:stop] = extracted.logits.cpu().numpy()
        on_progress(Progress("features", stop, len(images)))
    if not (np.isfinite(features).all() and np.isfinite(logits).all()):
        raise FloatingPointError(f"{extractor.name} gave features that are not finite")
    return Features(features, logits)
