"""Features of real images, which samples are compared with; kept on disk once extracted."""

from __future__ import annotations

import json
import zipfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.images import Pictures
from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Extraction, Features, extract_features, no_features
from harness.evaluation.metrics.frechet import FeatureMoments, Gaussian, fitted_gaussian
from harness.machine.files import atomic_path
from harness.machine.npz import ImageRows
from harness.processes.lock import held
from harness.processes.progress import Progress
from harness.vocabulary.names import short_hash
from models.randomness import generator


@dataclass(frozen=True)
class ReferenceStatistics:
    """Real images as one extractor sees them."""

    fingerprint: str
    """A hash of the images, or of the file where that is all that is known."""
    images: int | None
    """How many the Gaussians were fitted to; None where it was not recorded."""
    gaussian: Gaussian
    spatial: Gaussian | None
    """Of the spatial features; None where there are none."""
    features: NDArray[np.float32] | None
    """(M, D), of all images or of some; None where there are none."""


class PictureRows(ImageRows):
    """A data set's images as extractors take them, read as they are sliced."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures

    @property
    def shape(self) -> tuple[int, ...]:
        channels, rows, columns = self.pictures.shape
        return len(self), rows, columns, channels

    def __len__(self) -> int:
        return len(self.pictures.labels)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        index = torch.arange(len(self))[rows]
        # (B, C, H, W) -> (B, H, W, C)
        return self.pictures.pixels(index).permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class RealImages:
    """Images of a data set, or of a part of one."""

    images: ImageRows
    """(N, H, W, C) uint8 with 1 or 3 channels."""
    fingerprint: str
    """A hash of the images; equal only for equal images."""


@dataclass(frozen=True)
class Reference:
    """Features of real images, and which images they are of."""

    features: Features
    fingerprint: str
    extractor: str
    weights_sha256: str

    def check(self, extractor: FeatureExtractor) -> None:
        """See that the features are an extractor's.

        Raises:
            ValueError: they are another one's.
        """
        theirs = (self.extractor, self.weights_sha256)
        ours = (extractor.name, extractor.weights_sha256)
        if theirs != ours:
            raise ValueError(f"the reference is from {theirs}, the samples are of {ours}")

    def statistics(self) -> ReferenceStatistics:
        """What samples of the same extractor and resizing are compared with."""
        features, spatial = self.features.features, self.features.spatial
        return ReferenceStatistics(
            fingerprint=self.fingerprint,
            images=len(features),
            gaussian=fitted_gaussian(features),
            spatial=None if spatial is None else spatial.gaussian,
            features=features,
        )


class _DamagedError(Exception):
    pass


def load_reference(real: RealImages, extraction: Extraction, cache_dir: Path) -> Reference:
    """The features of real images, from the cache where they are there.

    The file is `<extractor>-<12 digits of the weights' hash>-<12 of the fingerprint>.npz`. Of
    several processes that need the same one, one extracts and the others wait for it, while
    `extraction.on_progress` is told so; what that raises ends the wait. A file that is damaged or
    of something else is made again, which it is told as well.
    """
    extractor, group = extraction.extractor, extraction.group
    cache_dir.mkdir(parents=True, exist_ok=True)
    # A colon is no part of a file's name everywhere.
    plain = extractor.name.replace(":", "-")
    name = f"{plain}-{short_hash(extractor.weights_sha256)}-{short_hash(real.fingerprint)}"
    path = cache_dir / f"{name}.npz"
    identity = _identity(real, extractor)
    features: Features | None = None
    waits = Progress("wait", 0, 1, "waiting for the features that another process extracts")
    lock = held(cache_dir / f"{name}.lock", lambda: extraction.on_progress(waits))
    with lock if group.leads else nullcontext():
        if group.leads and path.exists():
            try:
                features = _read(path, identity, len(real.images), extractor)
            except _DamagedError as damage:
                note = f"{path} is made again: {damage}"
                extraction.on_progress(Progress("features", 0, len(real.images), note))
        if not group.broadcast(features is not None):
            features = extract_features(real.images, extraction)
            if group.leads:
                _write(path, identity, features)
    if features is None:
        features = no_features(extractor)
    return Reference(features, real.fingerprint, extractor.name, extractor.weights_sha256)


def drawn_without_order(reference: Reference, count: int) -> Features:
    """The features of `count` of the images, or of all where there are fewer.

    Which ones is random but fixed, since data sets often come sorted by class.
    """
    stream = generator("real-against-real")
    order = torch.randperm(len(reference.features), generator=stream)
    drawn = reference.features.subset(order[:count].numpy())
    # All of them, in whatever order, have the moments of all.
    return replace(drawn, spatial=reference.features.spatial) if count >= len(order) else drawn


def _identity(real: RealImages, extractor: FeatureExtractor) -> str:
    """All that the features depend on, as text."""
    return json.dumps(
        {
            "extractor": extractor.name,
            "weights_sha256": extractor.weights_sha256,
            "resize": extractor.resize,
            "fingerprint": real.fingerprint,
            "shape": list(real.images.shape),
        },
        sort_keys=True,
    )


def _write(path: Path, identity: str, features: Features) -> None:
    spatial = {} if features.spatial is None else features.spatial.arrays()
    arrays: dict[str, NDArray[Any]] = {
        "identity": np.array(identity),
        "features": features.features,
        "logits": features.logits,
        **{f"spatial_{name}": array for name, array in spatial.items()},
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _read(path: Path, identity: str, count: int, extractor: FeatureExtractor) -> Features:
    """Read all of a file, which checks the checksum of each array.

    Raises:
        _DamagedError: why it is of no use.
    """
    size, spatial = extractor.spatial_size, None
    try:
        with np.load(path, allow_pickle=False) as stored:
            written = str(stored["identity"])
            features, logits = stored["features"], stored["logits"]
            if size:
                moments = stored["spatial_mean"], stored["spatial_scatter"]
                spatial = FeatureMoments.of(int(stored["spatial_count"]), *moments)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _DamagedError(f"it cannot be read ({error})") from error
    if written != identity:
        raise _DamagedError("it is of other images or of another extractor")
    expected = (
        ("features", features, extractor.feature_size),
        ("logits", logits, extractor.classes),
    )
    for name, array, width in expected:
        if array.shape != (count, width) or array.dtype != np.float32:
            raise _DamagedError(f"it holds {name} {array.dtype} {array.shape}")
    if spatial is not None and (spatial.count, spatial.scatter.shape) != (count, (size, size)):
        raise _DamagedError(f"it holds moments of {spatial.count} spatial features")
    return Features(features, logits, spatial)
