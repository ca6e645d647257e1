"""From images to the features that all quality figures are computed from, extracted once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.metrics.frechet import FeatureMoments
from harness.machine.npz import ImageRows
from harness.processes.group import ALONE, ProcessGroup, in_rounds, own_turns
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.errors import UserError


@dataclass(frozen=True)
class Extraction:
    """By what features are extracted, where, and by which processes together."""

    extractor: FeatureExtractor
    """In eval mode; it is moved to `device`."""
    batch_size: int
    """Images at a time; without effect on the features, up to rounding."""
    device: torch.device | str
    group: ProcessGroup = ALONE
    """Processes that see the same images and call a function together: they share out the batches,
    which are those that one process would make, and the leading one alone has the features."""
    on_progress: ProgressListener = ignore_progress
    """Told after each batch, on the leading process."""


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
        """The features of some of the images, without spatial moments."""
        return Features(self.features[indices], self.logits[indices])


def no_features(extractor: FeatureExtractor, count: int = 0) -> Features:
    """Room for the features of some images, still to be filled."""
    return Features(
        np.empty((count, extractor.feature_size), dtype=np.float32),
        np.empty((count, extractor.classes), dtype=np.float32),
        FeatureMoments(extractor.spatial_size) if extractor.spatial_size else None,
    )


class FeatureBatch(NamedTuple):
    """What an extractor says about some consecutive images."""

    rows: slice
    images: NDArray[np.uint8]
    """(M, H, W, C): those of the batch that were asked for."""
    features: NDArray[np.float32]
    """(B, D)."""
    logits: NDArray[np.float32]
    """(B, K)."""
    spatial: NDArray[np.float32] | None
    """(B, S)."""


def extract_features(images: ImageRows, extraction: Extraction) -> Features:
    """Extract in float32, whatever the precision of training was.

    Returns:
        Of images (N, H, W, C), those of all on the leading process, none on the others.

    Raises:
        ValueError: there are no images, or they are not uint8 with 1 or 3 channels.
        UserError: a feature or logit is not finite.
    """
    found = no_features(extraction.extractor, len(images) if extraction.group.leads else 0)
    placed = np.zeros(len(found), dtype=np.bool_)
    for batch in feature_batches(images, extraction):
        assert not placed[batch.rows].any()
        found.features[batch.rows], found.logits[batch.rows] = batch.features, batch.logits
        placed[batch.rows] = True
        if found.spatial is not None and batch.spatial is not None:
            found.spatial.update(batch.spatial)
    assert placed.all()
    return found


def feature_batches(
    images: ImageRows, extraction: Extraction, kept_images: Sequence[int] | NDArray[np.int64] = ()
) -> Iterator[FeatureBatch]:
    """Extract as `extract_features` does, in memory that does not grow with the images.

    All processes of a group must iterate to the end; the leading one gets all batches, in their
    order.

    `kept_images` are the indices, in rising order, of the images that the batches shall hold.
    """
    if len(images) == 0:
        raise ValueError("no images to extract features from")
    kept = np.asarray(kept_images, dtype=np.int64)
    batches = [
        slice(start, min(start + extraction.batch_size, len(images)))
        for start in range(0, len(images), extraction.batch_size)
    ]
    own = [batches[turn] for turn in own_turns(len(batches), extraction.group)]
    extraction.extractor.to(extraction.device)
    extracted = _extracted_batches(images, own, kept, extraction)
    for found in in_rounds(extracted, len(batches), extraction.group):
        for batch in found:
            yield batch
            extraction.on_progress(Progress("features", batch.rows.stop, len(images)))


def _extracted_batches(
    images: ImageRows, batches: Sequence[slice], kept: NDArray[np.int64], extraction: Extraction
) -> Iterator[FeatureBatch]:
    """The next batch is read while one is worked on."""

    def read(batch: slice) -> NDArray[np.uint8]:
        return np.array(images[batch])

    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(read, batch) for batch in batches[:1]]
        for number, batch in enumerate(batches):
            pixels = coming.pop().result()
            coming += [reader.submit(read, later) for later in batches[number + 1 : number + 2]]
            features, logits, spatial = _extracted(pixels, extraction)
            first, last = np.searchsorted(kept, (batch.start, batch.stop))
            shown = pixels[kept[first:last] - batch.start]
            yield FeatureBatch(batch, shown, features, logits, spatial)


def _extracted(
    images: NDArray[np.uint8], extraction: Extraction
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]:
    extractor = extraction.extractor
    # By default a GPU's convolutions round what they multiply to 10 bits.
    full_precision = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.inference_mode(), full_precision:
        extracted = extractor(torch.from_numpy(images).to(extraction.device))
        parts = [None if part is None else part.cpu().numpy() for part in extracted]
    if not all(part is None or np.isfinite(part).all() for part in parts):
        file = extractor.weights_file
        weights = "its weights" if file is None else f"the weights in {file}"
        raise UserError(
            f"{extractor.name} gave features that are not finite: {weights} hold NaN, or are too "
            "large; make or fetch them again"
        )
    features, logits, spatial = parts
    assert features is not None
    assert logits is not None
    return features, logits, spatial
