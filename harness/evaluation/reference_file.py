"""References on disk: `.npz` files that pytorch-fid reads as well, and ADM's evaluator in part.

`mu` and `sigma` are mean and covariance of the features of all images, `mu_s` and `sigma_s` those
of the spatial features where the extractor has them, and `provenance` is a JSON of all that they
depend on. Single images, for KID, precision and recall, are there as `features` (M, D) float32; or,
in ADM's own layout, as `arr_0` (M, H, W, 3) uint8, from which features are extracted when they are
needed, and without which ADM's evaluator reads no file. A file without provenance, such as ADM's,
is taken for one of the standard Inception network, which is what the field means by it.
"""

from __future__ import annotations

import json
import zipfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.extractors.weights_file import file_sha256
from harness.evaluation.features import (
    Extraction,
    FeatureBatch,
    extract_features,
    feature_batches,
)
from harness.evaluation.image_inputs import (
    HashedRows,
    ImageInput,
    open_array_images,
    open_images,
    reading_arrays,
)
from harness.evaluation.metrics.frechet import (
    FeatureMoments,
    Gaussian,
    check_features,
    fitted_gaussian,
    gaussian_of_moments,
)
from harness.evaluation.reference import ReferenceStatistics
from harness.machine.environment import installed_versions
from harness.machine.files import atomic_path, shown_names
from harness.machine.npz import array_shape, begin_array, load_arrays
from harness.vocabulary.metrics import INCEPTION
from models.errors import UserError, first_line
from models.randomness import generator

FORMAT = 1
"""Of the provenance; raise it when a key changes."""

PROVENANCE = "provenance"

Layout = Literal["features", "adm"]

_SAME_MEAN = 1e-3
"""Of their size: what float32 and another order of summing can differ by, and more."""

_PACKAGES = ("numpy", "pillow", "timm", "torch", "torch-fidelity")

_STORED_CHANNELS = 3


def is_reference(path: Path) -> bool:
    """Whether a file holds statistics, and not images alone; a damaged one counts as one."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        return "mu" in _members(path)
    except (OSError, zipfile.BadZipFile):
        return True


def open_reference_images(path: Path) -> ImageInput | None:
    """The images of what is no reference; None for one whose archive can be opened.

    Raises:
        UserError: it is missing, damaged, or neither a reference nor images.
    """
    if not is_reference(path):
        return open_images(path)
    with reading_arrays(path):
        _members(path)
    return None


def reference_extractor(path: Path) -> str:
    """The extractor of a reference, as configurations name it; Inception where nothing says so."""
    if not is_reference(path):
        return INCEPTION
    name = str(_read_provenance(path)["extractor"])
    # The same network with other weights.
    return INCEPTION if name.startswith(f"{INCEPTION}_") else name


def read_reference(
    path: Path, extraction: Extraction, *, single_images: bool
) -> tuple[ReferenceStatistics, dict[str, Any]]:
    """Read a reference, and what it is from.

    Args:
        path: of the `.npz`.
        extraction: how the samples are measured.
        single_images: whether features of single images are needed; the images of an ADM file are
            shown to the extractor for them, which the leading process alone has then.

    Raises:
        UserError: it is missing, damaged, no reference, or from another extractor.
    """
    extractor = extraction.extractor
    provenance = _read_provenance(path)
    _check_extractor(provenance, extractor, path)
    names = ["mu", "sigma", "features", *(("mu_s", "sigma_s") if extractor.spatial_size else ())]
    with reading_arrays(path):
        arrays, members = load_arrays(path, names), _members(path)
        shape = array_shape(path, "arr_0") if "arr_0" in members else None
    # Other arrays of that name are refused where they are needed.
    if shape is not None and len(shape) == 4:
        provenance.setdefault("resolution", f"{shape[1]}x{shape[2]}")
    images = provenance.get("images")
    try:
        gaussian = _stored_gaussian(arrays, "", extractor.feature_size, members)
        features = _stored_features(arrays, images)
        spatial = None
        if "mu_s" in arrays or "sigma_s" in arrays:
            spatial = _stored_gaussian(arrays, "_s", extractor.spatial_size, members)
    except ValueError as error:
        raise UserError(
            f"the reference {path} holds no statistics to use: {error}; make or fetch it again"
        ) from error
    if features is not None and len(features) == images and images < 2 * extractor.feature_size:
        # A singular covariance is less exact than the features that it was made from.
        gaussian = fitted_gaussian(features)
    if features is None and shape is not None and single_images:
        features = extract_features(open_array_images(path), extraction).features
    fingerprint = str(provenance.setdefault("fingerprint", file_sha256(path)))
    return ReferenceStatistics(fingerprint, images, gaussian, spatial, features), provenance


class _Provenance(TypedDict):
    """What `build_reference` writes of where a reference comes from."""

    format: Literal[1]
    extractor: str
    extractor_display: NotRequired[str]
    weights_sha256: str
    resize: str
    images: Annotated[int, Field(ge=2)]
    single_images: Annotated[int, Field(ge=0)]
    resolution: Annotated[str, Field(pattern=r"^\d+x\d+$")]
    classes: NotRequired[Annotated[int, Field(ge=1)]]
    source: str
    fingerprint: str
    versions: dict[str, str]


_STORED = TypeAdapter(_Provenance)


def _members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return sorted(name.removesuffix(".npy") for name in archive.namelist())


def _read_provenance(path: Path) -> dict[str, Any]:
    """Where a reference comes from; what is taken for granted of one that does not say it."""
    if not path.exists():
        raise UserError(
            f"there is no reference {path}: make it with: python -m harness evaluate "
            f"build-reference IMAGES {path}"
        )
    with reading_arrays(path):
        members = _members(path)
        if PROVENANCE not in members:
            standard = {"extractor": INCEPTION, "source": str(path), "assumed": True}
            return {**standard, "arrays": members}
        text = str(load_arrays(path, [PROVENANCE])[PROVENANCE])
    try:
        return dict(_STORED.validate_python(json.loads(text), strict=True))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        reason = f"{where}: {first['msg']}"
    except (ValueError, RecursionError) as error:
        reason = first_line(error)
    raise UserError(
        f"the reference {path} says of where it comes from what no reference says ({reason}): "
        "build it again with `evaluate build-reference`"
    )


def _check_extractor(
    provenance: Mapping[str, Any], extractor: FeatureExtractor, path: Path
) -> None:
    for what, key, ours in (
        ("extractor", "extractor", extractor.name),
        ("weights", "weights_sha256", extractor.weights_sha256),
        ("resize", "resize", extractor.resize),
    ):
        theirs = provenance.get(key)
        if theirs not in (None, ours):
            assumed = ", as all files without provenance are," if provenance.get("assumed") else ""
            raise UserError(
                f"the reference {path} is{assumed} of {what} {theirs!r}, but the samples are "
                f"measured with {what} {ours!r}: name the same one, or build a reference of its own"
            )


def _stored_gaussian(
    arrays: Mapping[str, NDArray[Any]], suffix: str, size: int, members: list[str]
) -> Gaussian:
    """From `mu` and `sigma`, which are looked at whether they are used or not."""
    found = []
    for name, shape in ((f"mu{suffix}", (size,)), (f"sigma{suffix}", (size, size))):
        array = arrays.get(name)
        if array is None:
            raise ValueError(f"it has no {name}, but {shown_names(members)}")
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name} is {array.dtype}, expected numbers")
        if array.shape != shape:
            raise ValueError(
                f"{name} is of shape {array.shape}, expected {shape} for {size} dimensions"
            )
        found.append(array.astype(np.float64))
    return gaussian_of_moments(*found)


def _stored_features(
    arrays: Mapping[str, NDArray[Any]], images: int | None
) -> NDArray[np.float32] | None:
    """The features of single images, which must belong to the mean beside them."""
    features = arrays.get("features")
    if features is None:
        return None
    mean = arrays["mu"].astype(np.float64)
    if features.dtype.kind != "f" or features.ndim != 2 or features.shape[1] != len(mean):
        raise ValueError(
            f"features is {features.dtype} {features.shape}, expected (images, {len(mean)}) numbers"
        )
    check_features(features, "features", least=1)
    if images is None or len(features) > images:
        raise ValueError(f"{len(features)} features of {images or 'an unknown number of'} images")
    if len(features) == images:
        scale = np.abs(features).mean() + np.abs(mean).mean()
        if np.abs(features.mean(axis=0, dtype=np.float64) - mean).max() > _SAME_MEAN * scale:
            raise ValueError("mu is not the mean of its features")
    return features


def build_reference(
    images: ImageInput,
    extraction: Extraction,
    path: Path,
    *,
    layout: Layout = "features",
    single_images: int = 10_000,
) -> dict[str, Any]:
    """Write the file that `read_reference` reads, the same one by however many processes.

    Args:
        images: at least 2.
        extraction: how; the leading process of its group writes.
        path: of the `.npz`.
        layout: `features` keeps features of single images, `adm` the images themselves.
        single_images: how many of them at most, a fixed random choice.

    Returns:
        The provenance.

    Raises:
        UserError: the layout does not fit the extractor, or there are too few images.
    """
    extractor, rows = extraction.extractor, images.images
    if layout == "adm" and not extractor.spatial_size:
        raise UserError(
            f"ADM's layout is for Inception features, not for {extractor.name}: leave --layout out"
        )
    if len(rows) < 2:
        raise UserError(f"{images.source}: {len(rows)} images, but at least 2 are needed")
    hashed = HashedRows(rows)
    order = torch.randperm(len(rows), generator=generator("reference-single-images"))
    chosen = np.sort(order[:single_images].numpy())
    provenance = {
        "format": FORMAT,
        "extractor": extractor.name,
        "extractor_display": extractor.display,
        "weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "images": len(rows),
        "single_images": len(chosen),
        "resolution": images.resolution,
        "source": images.source,
        **({} if images.classes is None else {"classes": images.classes}),
        "versions": installed_versions(_PACKAGES),
    }
    batches = feature_batches(hashed, extraction, chosen if layout == "adm" else ())
    if not extraction.group.leads:
        deque(batches, maxlen=0)
        return {**provenance, "fingerprint": hashed.sha256(extraction.group)}
    moments = FeatureMoments(extractor.feature_size)
    spatial = FeatureMoments(extractor.spatial_size)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        one: NDArray[Any]
        name, one = "features", np.empty(extractor.feature_size, dtype=np.float32)
        if layout == "adm":
            name, one = "arr_0", np.empty((*rows.shape[1:3], _STORED_CHANNELS), dtype=np.uint8)
        with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
            begin_array(file, (len(chosen), *one.shape), one.dtype)
            for batch in batches:
                moments.update(batch.features)
                if batch.spatial is not None:
                    spatial.update(batch.spatial)
                file.write(_chosen_rows(batch, chosen, layout).tobytes())
        provenance["fingerprint"] = hashed.sha256(extraction.group)
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
    """As they are stored."""
    if layout == "features":
        first, last = np.searchsorted(chosen, (batch.rows.start, batch.rows.stop))
        return batch.features[chosen[first:last] - batch.rows.start]
    return np.broadcast_to(batch.images, (*batch.images.shape[:3], _STORED_CHANNELS))
