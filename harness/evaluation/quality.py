"""The quality of a set of samples: every figure from the same features, and what it depends on.

Each measurement of `harness.vocabulary.metrics` has one function here, which gives the figures of
its metrics or says why they are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Extraction, Features, extract_features
from harness.evaluation.metrics.frechet import fitted_gaussian, gaussian_distance
from harness.evaluation.metrics.inception_score import inception_score
from harness.evaluation.metrics.kernel_distance import kernel_distance, squared_discrepancy
from harness.evaluation.metrics.neighbours import neighbour_scores
from harness.evaluation.reference import Reference, ReferenceStatistics, drawn_without_order
from harness.machine.npz import ImageRows
from harness.processes.progress import ProgressListener, ignore_progress
from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY, Measurement, MetricKey
from models.randomness import generator

SHUFFLE_SEED = 0
"""Of the splits of the Inception-style score; the same for every trial."""

KERNEL_SUBSETS = 100
"""Of the command, as in torch-fidelity; trials compare all pairs, which scatters less."""

KERNEL_SUBSET_SIZE = 1000
"""Images of each side in a subset; fewer where a side has fewer."""

KERNEL_IMAGES = 10_000
"""Images of each side that a trial compares in all pairs; of more, a fixed random choice."""

NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
MOST_NEIGHBOURHOODS = 10_000
"""Real images whose neighbourhoods count, as in ADM's evaluator; of more, a fixed random choice."""


@dataclass(frozen=True)
class Figure:
    """The value of one metric."""

    value: float
    std: float | None = None
    """Standard deviation over splits or subsets; None for a metric that has neither."""
    basis: str = ""
    """What the value was taken over, in words: `over 10 splits`."""


@dataclass(frozen=True)
class Quality:
    """Figures of one set of images. Those of different identities must not be compared."""

    identity: dict[str, Any]
    """Extractor, hash of its weights, resizing, counts, resolution, reference."""
    figures: dict[MetricKey, Figure]
    """What was measured, by the metric's key."""
    left_out: dict[Measurement, str] = field(default_factory=dict)
    """Why a measurement was not made that was asked for."""

    def values(self) -> dict[MetricKey, float]:
        """The figures without their deviations."""
        return {key: figure.value for key, figure in self.figures.items()}

    def recorded(self) -> dict[str, float]:
        """Figures and deviations by their names in MLflow, which have the extractor in them."""
        found = {}
        for key, figure in self.figures.items():
            name = BY_KEY[key].recorded(str(self.identity["extractor"]))
            found[name] = figure.value
            if figure.std is not None:
                found[names.spread(name)] = figure.std
        return found


class _LeftOutError(Exception):
    pass


@dataclass(frozen=True)
class _Compared:
    """What a measurement starts from."""

    features: Features
    reference: ReferenceStatistics
    inception_splits: int
    kernel_subsets: int | None
    on_progress: ProgressListener

    def real_features(self) -> NDArray[Any]:
        """(M, D) features of single real images."""
        if self.reference.features is None or len(self.reference.features) < 2:
            raise _LeftOutError("the reference holds no features of single images")
        return self.reference.features


def _frechet(compared: _Compared) -> dict[MetricKey, Figure]:
    ours = fitted_gaussian(compared.features.features)
    return {"fd": Figure(gaussian_distance(ours, compared.reference.gaussian))}


def _spatial(compared: _Compared) -> dict[MetricKey, Figure]:
    ours, real = compared.features.spatial, compared.reference.spatial
    if ours is None:
        raise _LeftOutError("the extractor has no spatial features")
    if real is None:
        raise _LeftOutError("the reference holds no statistics of spatial features")
    return {"sfd": Figure(gaussian_distance(ours.gaussian, real))}


def _kernel(compared: _Compared) -> dict[MetricKey, Figure]:
    ours, real = compared.features.features, compared.real_features()
    if compared.kernel_subsets is None:
        ours, real = (_at_most(KERNEL_IMAGES, one, "kernel-images") for one in (ours, real))
        return {"kd": Figure(squared_discrepancy(ours, real), basis="over all pairs of images")}
    found = kernel_distance(
        ours, real, subsets=compared.kernel_subsets, subset_size=KERNEL_SUBSET_SIZE
    )
    subsets = f"{found.subsets} subsets of {found.subset_size:,}"
    basis = f"over {'all pairs of images' if found.std is None else subsets}"
    return {"kd": Figure(found.mean, found.std, basis)}


def _at_most(count: int, features: NDArray[Any], stream: str) -> NDArray[Any]:
    """A fixed random choice of rows where there are more."""
    if len(features) <= count:
        return features
    order = torch.randperm(len(features), generator=generator(stream))
    return features[order[:count].numpy()]


def _score(compared: _Compared) -> dict[MetricKey, Figure]:
    splits = compared.inception_splits
    count, classes = compared.features.logits.shape
    if not classes:
        raise _LeftOutError("the extractor has no classifier")
    if count < splits:
        raise _LeftOutError(f"{count} samples cannot be cut into {splits} splits")
    mean, std = inception_score(compared.features.logits, splits, SHUFFLE_SEED)
    return {"is": Figure(mean, std, f"over {splits} splits")}


def _neighbours(compared: _Compared) -> dict[MetricKey, Figure]:
    real = compared.real_features()
    fewest = min(len(real), len(compared.features))
    if fewest <= max(NEIGHBOURS, DENSITY_NEIGHBOURS):
        raise _LeftOutError(f"{fewest} images have too few neighbours")
    found = neighbour_scores(
        compared.features.features,
        _at_most(MOST_NEIGHBOURHOODS, real, "neighbourhoods"),
        neighbours=NEIGHBOURS,
        density_neighbours=DENSITY_NEIGHBOURS,
        on_progress=compared.on_progress,
    )
    near = {"precision": NEIGHBOURS, "recall": NEIGHBOURS}
    return {
        key: Figure(value, basis=f"k = {near.get(key, DENSITY_NEIGHBOURS)}")
        for key, value in found._asdict().items()
    }


_FUNCTIONS: Mapping[Measurement, Callable[[_Compared], dict[MetricKey, Figure]]] = {
    Measurement.FRECHET: _frechet,
    Measurement.SPATIAL: _spatial,
    Measurement.KERNEL: _kernel,
    Measurement.SCORE: _score,
    Measurement.NEIGHBOURS: _neighbours,
}


def measure_quality(
    features: Features,
    reference: ReferenceStatistics,
    identity: dict[str, Any],
    *,
    inception_splits: int,
    kernel_subsets: int | None = KERNEL_SUBSETS,
    measurements: Collection[Measurement] = tuple(Measurement),
    on_progress: ProgressListener = ignore_progress,
) -> Quality:
    """Measure what the numbers of images allow.

    Args:
        features: of at least two samples.
        reference: from the same extractor.
        identity: all that the figures depend on.
        inception_splits: of the Inception-style score.
        kernel_subsets: random ones that the kernel distance is averaged over; None compares all
            pairs of images.
        measurements: which ones.
        on_progress: told how far precision and recall are.

    Raises:
        ValueError: a feature that is not finite.
    """
    compared = _Compared(features, reference, inception_splits, kernel_subsets, on_progress)
    figures: dict[MetricKey, Figure] = {}
    left_out = {}
    for measurement in measurements:
        try:
            figures |= _FUNCTIONS[measurement](compared)
        except _LeftOutError as reason:
            left_out[measurement] = str(reason)
    return Quality(identity, figures, left_out)


def evaluate_samples(
    images: ImageRows, reference: Reference, extraction: Extraction, *, inception_splits: int
) -> Quality | None:
    """Measure samples (N, H, W, C), at least as many as splits, against real images.

    Returns:
        None on a process that another one leads.

    Raises:
        ValueError: too few images, or the reference is from another extractor.
    """
    if len(images) < max(2, inception_splits):
        raise ValueError(f"{len(images)} images are too few for {inception_splits} splits")
    reference.check(extraction.extractor)
    features = extract_features(images, extraction)
    if not extraction.group.leads:
        return None
    return measure_features(
        features,
        images.shape[1:3],
        reference.statistics(),
        extraction.extractor,
        inception_splits=inception_splits,
        on_progress=extraction.on_progress,
    )


def real_against_real(
    held_out: Reference,
    resolution: tuple[int, ...],
    reference: Reference,
    extractor: FeatureExtractor,
    *,
    samples: int,
    inception_splits: int,
) -> Quality:
    """The floor: what held-out real images score, the best that samples can hope for.

    The distance falls with the number of images, so the held-out ones are cut to the number of
    samples; where there are fewer, the floor is somewhat too high. `identity["samples"]` is the
    number measured.

    Args:
        held_out: real images that are not in the reference.
        resolution: rows and columns of the held-out images.
        reference: what samples are compared with.
        extractor: that both come from.
        samples: how many samples the figure is to be compared with.
        inception_splits: at most the number of images measured.

    Raises:
        ValueError: too few images, or the references are from another extractor.
    """
    held_out.check(extractor)
    reference.check(extractor)
    found = drawn_without_order(held_out, samples)
    return measure_features(
        found, resolution, reference.statistics(), extractor, inception_splits=inception_splits
    )


def measure_features(
    features: Features,
    resolution: tuple[int, ...],
    reference: ReferenceStatistics,
    extractor: FeatureExtractor,
    *,
    inception_splits: int,
    on_progress: ProgressListener = ignore_progress,
) -> Quality:
    """Measure a trial's samples, two or more of `resolution` (rows, columns), with the identity
    that its figures have."""
    identity = quality_identity(len(features), resolution, reference, extractor, inception_splits)
    return measure_quality(
        features,
        reference,
        identity | {"kernel_images": KERNEL_IMAGES},
        inception_splits=inception_splits,
        kernel_subsets=None,
        on_progress=on_progress,
    )


def quality_identity(
    samples: int,
    resolution: tuple[int, ...],
    reference: ReferenceStatistics,
    extractor: FeatureExtractor,
    splits: int,
) -> dict[str, Any]:
    """What the figures of a number of samples depend on, whoever measures them."""
    return {
        "extractor": extractor.name,
        "extractor_weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "samples": samples,
        "resolution": "x".join(map(str, resolution)),
        "reference_fingerprint": reference.fingerprint,
        "reference_images": reference.images,
        "inception_splits": splits,
        "inception_shuffle_seed": SHUFFLE_SEED,
        "neighbours": NEIGHBOURS,
        "density_neighbours": DENSITY_NEIGHBOURS,
        "neighbourhoods": MOST_NEIGHBOURHOODS,
    }
