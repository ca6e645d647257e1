"""From images to a reference file, in memory that does not grow with the images."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import FeatureBatch, feature_batches
from harness.evaluation.image_inputs import HashedRows
from harness.evaluation.metrics.frechet import GatheredMoments
from harness.evaluation.reference_file import FORMAT, PROVENANCE
from harness.machine.environment import installed_versions
from harness.machine.files import atomic_path
from harness.machine.npz import ImageRows, begin_array
from harness.processes.group import ALONE, ProcessGroup
from harness.processes.progress import ProgressListener, ignore_progress
from models.errors import UserError
from models.randomness import generator

Layout = Literal["features", "adm"]
SINGLE_IMAGES = 10_000
"""As in ADM's reference files."""
_PACKAGES = ("numpy", "pillow", "timm", "torch", "torch-fidelity")
_STORED_CHANNELS = 3


def build_reference(
    images: ImageRows,
    extractor: FeatureExtractor,
    path: Path,
    *,
    source: str,
    layout: Layout = "features",
    single_images: int = SINGLE_IMAGES,
    batch_size: int,
    device: torch.device | str,
    group: ProcessGroup = ALONE,
    on_progress: ProgressListener = ignore_progress,
) -> dict[str, Any]:
    """Write the file that `read_reference` reads, the same one by however many processes.

    Args:
        images: (N, H, W, C) uint8 with 1 or 3 channels, N at least 2.
        extractor: in eval mode.
        path: of the `.npz`.
        source: where the images come from, in words.
        layout: `features` keeps features of single images, `adm` the images themselves.
        single_images: how many of them at most, a fixed random choice.
        batch_size: of the extraction.
        device: of the extraction.
        group: of processes that see the same images and call this together; the leading one writes.
        on_progress: told after each batch, on the leading process.

    Returns:
        The provenance.

    Raises:
        UserError: the layout does not fit the extractor, or there are too few images.
    """
    if layout == "adm" and not extractor.spatial_size:
        raise UserError(
            f"ADM's layout is for Inception features, not for {extractor.name}: leave --layout out"
        )
    if len(images) < 2:
        raise UserError(f"{source}: {len(images)} images, but at least 2 are needed")
    hashed = HashedRows(images)
    order = torch.randperm(len(images), generator=generator("reference-single-images"))
    chosen = np.sort(order[:single_images].numpy())
    batches = feature_batches(
        hashed,
        extractor,
        batch_size=batch_size,
        device=device,
        kept_images=chosen if layout == "adm" else None,
        group=group,
        on_progress=on_progress,
    )
    provenance = {
        "format": FORMAT,
        "extractor": extractor.name,
        "extractor_display": extractor.display,
        "weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "images": len(images),
        "single_images": len(chosen),
        "resolution": "x".join(str(side) for side in images.shape[1:3]),
        "source": source,
        "versions": installed_versions(_PACKAGES),
    }
    if not group.leads:
        for _ in batches:
            pass
        return {**provenance, "fingerprint": hashed.sha256(group)}
    stored: tuple[str, tuple[int, ...], type[np.generic]]
    stored = ("features", (extractor.feature_size,), np.float32)
    if layout == "adm":
        stored = ("arr_0", (*images.shape[1:3], _STORED_CHANNELS), np.uint8)
    name, row, kind = stored
    moments = GatheredMoments(extractor.feature_size)
    spatial = GatheredMoments(extractor.spatial_size)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            begin_array(file, (len(chosen), *row), np.dtype(kind))
            for batch in batches:
                moments.take(batch.features)
                if batch.spatial is not None:
                    spatial.take(batch.spatial)
                file.write(_chosen_rows(batch, chosen, layout).tobytes())
        provenance["fingerprint"] = hashed.sha256(group)
        found = moments.moments()
        arrays: dict[str, NDArray[Any]] = {"mu": found.mean, "sigma": found.covariance}
        if extractor.spatial_size:
            found = spatial.moments()
            arrays |= {"mu_s": found.mean, "sigma_s": found.covariance}
        arrays[PROVENANCE] = np.array(json.dumps(provenance, sort_keys=True))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return provenance


def _chosen_rows(
    batch: FeatureBatch, chosen: NDArray[np.int64], layout: Layout
) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Those of the batch's images that are chosen, as they are stored."""
    if layout == "features":
        first, last = np.searchsorted(chosen, (batch.rows.start, batch.rows.stop))
        return batch.features[chosen[first:last] - batch.rows.start]
    return np.broadcast_to(batch.images, (*batch.images.shape[:3], _STORED_CHANNELS))
