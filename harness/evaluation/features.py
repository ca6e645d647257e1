"""From images to the features that all quality figures are computed from, extracted once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.metrics.frechet import Gaussian
from harness.evaluation.metrics.moments import FeatureMoments
from harness.machine.npz import ImageRows
from harness.processes.group import ALONE, ProcessGroup, in_rounds, own_turns
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.errors import UserError


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

    @property
    def spatial_gaussian(self) -> Gaussian | None:
        """Fitted to the spatial features; None where there are none."""
        return None if self.spatial is None else self.spatial.gaussian

    def subset(self, indices: NDArray[np.int64]) -> Features:
        """Those of some of the images, without their spatial moments."""
        return Features(self.features[indices], self.logits[indices])


def no_features(extractor: FeatureExtractor) -> Features:
    """Those of no image."""
    return Features(
        np.empty((0, extractor.feature_size), dtype=np.float32),
        np.empty((0, extractor.classes), dtype=np.float32),
    )


class FeatureBatch(NamedTuple):
    """What an extractor says about some consecutive images."""

    rows: slice
    """Which ones."""
    images: NDArray[np.uint8]
    """(M, H, W, C): those of the batch that were asked for."""
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
    group: ProcessGroup = ALONE,
    on_progress: ProgressListener = ignore_progress,
) -> Features:
    """Extract in float32, whatever the precision of training was.

    Several processes share out the batches, which are the same ones as one process would make.

    Args:
        images: (N, H, W, C) uint8 with 1 or 3 channels; a batch at a time is read.
        extractor: in eval mode; it is moved to `device`.
        batch_size: without effect on the result, up to rounding.
        device: where to compute.
        group: of processes that see the same images and call this together.
        on_progress: told after each batch, on the leading process.

    Returns:
        Those of all images on the leading process, none on the others.

    Raises:
        ValueError: there are no images, or they are not uint8 of this shape.
        FloatingPointError: a feature or logit is not finite.
    """
    count = len(images) if group.leads else 0
    features = np.empty((count, extractor.feature_size), dtype=np.float32)
    logits = np.empty((count, extractor.classes), dtype=np.float32)
    spatial = FeatureMoments(extractor.spatial_size)
    placed = np.zeros(count, dtype=np.bool_)
    for batch in feature_batches(
        images,
        extractor,
        batch_size=batch_size,
        device=device,
        group=group,
        on_progress=on_progress,
    ):
        assert not placed[batch.rows].any()
        features[batch.rows], logits[batch.rows] = batch.features, batch.logits
        placed[batch.rows] = True
        if batch.spatial is not None:
            spatial.update(batch.spatial)
    assert placed.all()
    return Features(features, logits, spatial if extractor.spatial_size else None)


@contextmanager
def finite_features(weights: Path | None) -> Iterator[None]:
    """Context in which features are extracted with weights that a user may have named.

    Args:
        weights: their file; None for those that the extractor has of its own.

    Raises:
        UserError: a feature or logit is not finite.
    """
    try:
        yield
    except FloatingPointError as error:
        file = "its weights" if weights is None else f"the weights in {weights}"
        raise UserError(
            f"{error}: {file} hold NaN, or are too large; make or fetch them again"
        ) from error


def feature_batches(
    images: ImageRows,
    extractor: FeatureExtractor,
    *,
    batch_size: int,
    device: torch.device | str,
    kept_images: NDArray[np.int64] | None = None,
    group: ProcessGroup = ALONE,
    on_progress: ProgressListener = ignore_progress,
) -> Iterator[FeatureBatch]:
    """The same batch by batch, so that memory does not grow with the images.

    All processes of a group must iterate to the end; the leading one gets all batches, in their
    order.

    Args:
        images: as in `extract_features`.
        extractor: the same.
        batch_size: the same.
        device: the same.
        kept_images: in rising order, the indices of those that the batches shall hold; None for
            no images at all.
        group: as in `extract_features`.
        on_progress: the same.
    """
    if len(images) == 0:
        raise ValueError("no images to extract features from")
    kept = np.empty(0, dtype=np.int64) if kept_images is None else kept_images
    batches = [
        slice(start, min(start + batch_size, len(images)))
        for start in range(0, len(images), batch_size)
    ]
    own = [batches[turn] for turn in own_turns(len(batches), group)]
    extracted = _extracted_batches(images, own, kept, extractor.to(device), device)
    for found in in_rounds(extracted, len(batches), group):
        for batch in found:
            yield batch
            on_progress(Progress("features", batch.rows.stop, len(images)))


def _extracted_batches(
    images: ImageRows,
    batches: Sequence[slice],
    kept: NDArray[np.int64],
    extractor: FeatureExtractor,
    device: torch.device | str,
) -> Iterator[FeatureBatch]:
    """The next batch is read while one is worked on."""

    def read(batch: slice) -> NDArray[np.uint8]:
        return np.array(images[batch])

    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(read, batch) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            pixels = coming.pop().result()
            coming += [reader.submit(read, later) for later in batches[number + 1 : number + 2]]
            yield _extracted(pixels, batch, kept, extractor, device)


def _extracted(
    images: NDArray[np.uint8],
    rows: slice,
    kept: NDArray[np.int64],
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
    first, last = np.searchsorted(kept, (rows.start, rows.stop))
    return FeatureBatch(rows, images[kept[first:last] - rows.start], features, logits, spatial)


def _full_precision() -> AbstractContextManager[None]:
    """By default a GPU's convolutions round what they multiply to 10 bits."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
