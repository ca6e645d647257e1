"""References on disk: `.npz` files that pytorch-fid reads as well, and ADM's evaluator in part.

`mu` and `sigma` are mean and covariance of the features, `mu_s` and `sigma_s` those of the spatial
features where the extractor has them, and `provenance` is a JSON of all that they depend on. Single
images, for KID, precision and recall, are there as `features` (M, D) float32; or, in ADM's own
layout, as `arr_0` (M, H, W, 3) uint8, from which features are extracted when they are needed, and
without which ADM's evaluator reads no file. The statistics are of all images, whatever M is. A file
without provenance, such as ADM's, is taken for one of the standard Inception network, which is what
the field means by it.

From images to a reference file, in memory that does not grow with the images.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.extractors.weights_file import file_sha256
from harness.evaluation.features import FeatureBatch, Features, extract_features, feature_batches
from harness.evaluation.image_inputs import HashedRows, ImageInput, open_array_images, open_images
from harness.evaluation.metrics.frechet import Gaussian, gaussian_of_moments
from harness.evaluation.metrics.moments import FeatureMoments, fitted_gaussian
from harness.evaluation.reference import ReferenceStatistics
from harness.machine.environment import installed_versions
from harness.machine.files import atomic_path
from harness.machine.npz import ImageRows, array_shape, begin_array
from harness.processes.group import ALONE, ProcessGroup
from harness.processes.progress import ProgressListener, ignore_progress
from models.errors import UserError
from models.randomness import generator

FORMAT = 1
"""Of the provenance; raise it when a key changes."""

PROVENANCE = "provenance"

_STANDARD = "inception"

_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def is_reference(path: Path) -> bool:
    """Whether a file holds statistics, and not images alone; a damaged one counts as one."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return "mu.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return True


def open_reference_images(path: Path) -> ImageInput | None:
    """The images of what is no reference; None for one whose archive can be opened.

    Raises:
        UserError: it is missing, damaged, or neither a reference nor images.
    """
    if not is_reference(path):
        return open_images(path)
    try:
        zipfile.ZipFile(path).close()
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the reference {path} cannot be read ({error}): it is damaged, truncated or no .npz; "
            "make or fetch it again"
        ) from error
    return None


def reference_extractor(path: Path) -> str:
    """The extractor of a reference, as configurations name it; Inception where nothing says so.

    Raises:
        UserError: the file is damaged.
    """
    if not is_reference(path):
        return _STANDARD
    try:
        with np.load(path, allow_pickle=False) as stored:
            name = str(_provenance(stored, path)["extractor"])
    except _UNREADABLE as error:
        raise UserError(f"the reference {path} cannot be read ({error})") from error
    # The same network with other weights.
    return _STANDARD if name.startswith(f"{_STANDARD}_") else name


def read_reference(
    path: Path,
    extractor: FeatureExtractor,
    *,
    single_images: bool,
    batch_size: int,
    device: torch.device | str,
    group: ProcessGroup = ALONE,
    on_progress: ProgressListener = ignore_progress,
) -> tuple[ReferenceStatistics, dict[str, Any]]:
    """Read a reference, and what it is from.

    Args:
        path: of the `.npz`.
        extractor: that the samples are measured with.
        single_images: whether features of single images are needed, which an ADM file has to be
            asked for: its images are then shown to the extractor.
        batch_size: of that extraction.
        device: of that extraction.
        group: of processes that call this together; of an extraction, the leading one alone has
            the features.
        on_progress: told after each batch, on the leading process.

    Raises:
        UserError: it is missing, damaged, no reference, or from another extractor.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            provenance = _provenance(stored, path)
            _check_extractor(provenance, extractor, path)
            arrays = {
                name: stored[name]
                for name in ("mu", "sigma", "mu_s", "sigma_s", "features")
                if name in stored
            }
            has_images = "arr_0" in stored
        if has_images:
            # Other arrays of that name are told of where they are needed.
            shape = array_shape(path, "arr_0")
            if len(shape) == 4:
                provenance.setdefault("resolution", f"{shape[1]}x{shape[2]}")
    except FileNotFoundError:
        raise UserError(
            f"there is no reference {path}: make it with: python -m harness evaluate "
            f"build-reference IMAGES {path}"
        ) from None
    except _UNREADABLE as error:
        raise UserError(
            f"the reference {path} cannot be read ({error}): it is damaged, truncated or holds no "
            "statistics (mu, sigma); make or fetch it again"
        ) from error
    features = arrays.get("features")
    try:
        if features is not None and not np.isfinite(features).all():
            raise ValueError("its features are not finite")
        _check_width(arrays["mu"], extractor.feature_size)
        gaussian = _gaussian(arrays["mu"], arrays["sigma"], features, provenance.get("images"))
        spatial = None
        if extractor.spatial_size and "mu_s" in arrays and "sigma_s" in arrays:
            _check_width(arrays["mu_s"], extractor.spatial_size)
            spatial = gaussian_of_moments(
                arrays["mu_s"].astype(np.float64), arrays["sigma_s"].astype(np.float64)
            )
        if features is not None:
            _check_width(features.mean(axis=0), extractor.feature_size)
    except (ValueError, KeyError) as error:
        raise UserError(f"the reference {path} holds no statistics to use: {error}") from error
    if features is None and has_images and single_images:
        features = extract_features(
            open_array_images(path),
            extractor,
            batch_size=batch_size,
            device=device,
            group=group,
            on_progress=on_progress,
        ).features
    fingerprint = provenance.setdefault("fingerprint", file_sha256(path))
    statistics = ReferenceStatistics(
        extractor=str(provenance["extractor"]),
        weights_sha256=provenance.get("weights_sha256"),
        resize=provenance.get("resize"),
        fingerprint=str(fingerprint),
        images=provenance.get("images"),
        gaussian=gaussian,
        spatial=spatial,
        features=features,
    )
    return statistics, provenance


def reference_of_features(
    features: Features, extractor: FeatureExtractor, fingerprint: str
) -> ReferenceStatistics:
    """The same from images that were just looked at."""
    return ReferenceStatistics(
        extractor=extractor.name,
        weights_sha256=extractor.weights_sha256,
        resize=extractor.resize,
        fingerprint=fingerprint,
        images=len(features),
        gaussian=fitted_gaussian(features.features),
        spatial=features.spatial_gaussian,
        features=features.features,
    )


def _provenance(stored: Mapping[str, Any], path: Path) -> dict[str, Any]:
    if PROVENANCE not in stored:
        return {
            "extractor": _STANDARD,
            "source": str(path),
            "assumed": True,
            "arrays": sorted(stored),
        }
    found = json.loads(str(stored[PROVENANCE]))
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"its provenance is not of format {FORMAT}")
    if "extractor" not in found:
        raise ValueError("its provenance names no extractor")
    return found


def _check_extractor(
    provenance: Mapping[str, Any], extractor: FeatureExtractor, path: Path
) -> None:
    theirs = [provenance.get(key) for key in ("extractor", "weights_sha256", "resize")]
    ours = [extractor.name, extractor.weights_sha256, extractor.resize]
    for what, their, our in zip(("extractor", "weights", "resize"), theirs, ours, strict=True):
        if their not in (None, our):
            assumed = ", as all files without provenance are," if provenance.get("assumed") else ""
            raise UserError(
                f"the reference {path} is{assumed} of {what} {their!r}, but the samples are "
                f"measured with {what} {our!r}: name the same one, or build a reference of its own"
            )


def _check_width(mean: NDArray[Any], expected: int) -> None:
    if mean.shape != (expected,):
        raise ValueError(f"features of {mean.shape} instead of {expected} dimensions")


def _gaussian(
    mean: NDArray[Any],
    covariance: NDArray[Any],
    features: NDArray[np.float32] | None,
    images: int | None,
) -> Gaussian:
    """From the features where all of them are there and few: a singular covariance is less exact
    than they are."""
    if features is not None and len(features) == images and images < 2 * len(mean):
        return fitted_gaussian(features)
    return gaussian_of_moments(mean.astype(np.float64), covariance.astype(np.float64))


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
    moments = FeatureMoments(extractor.feature_size)
    spatial = FeatureMoments(extractor.spatial_size)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            begin_array(file, (len(chosen), *row), np.dtype(kind))
            for batch in batches:
                moments.update(batch.features)
                if batch.spatial is not None:
                    spatial.update(batch.spatial)
                file.write(_chosen_rows(batch, chosen, layout).tobytes())
        provenance["fingerprint"] = hashed.sha256(group)
        arrays: dict[str, NDArray[Any]] = {"mu": moments.mean, "sigma": moments.covariance}
        if extractor.spatial_size:
            arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
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
