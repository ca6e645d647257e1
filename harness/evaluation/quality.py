"""All figures of one set of samples, each from the same features.

The quality of a set of samples, and what that figure depends on.

The figures of a set of samples under the names that MLflow, tables and JSON know them by.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Features, extract_features
from harness.evaluation.metrics.frechet import fitted_gaussian, gaussian_distance, spatial_gaussian
from harness.evaluation.metrics.inception_score import InceptionScore, inception_score
from harness.evaluation.metrics.kernel_distance import KernelDistance, kernel_distance
from harness.evaluation.metrics.neighbours import NeighbourScores, neighbour_scores
from harness.evaluation.reference import Reference, ReferenceStatistics, drawn_without_order
from harness.machine.npz import ImageRows
from harness.processes.group import ALONE, ProcessGroup
from harness.processes.progress import ProgressListener, ignore_progress
from harness.vocabulary import names
from models.randomness import generator

SHUFFLE_SEED = 0
"""Of the splits of the Inception-style score; the same for every trial."""

KERNEL_SUBSETS = 100

KERNEL_SUBSET_SIZE = 1000
"""At most, of each side; see `KernelDistance.subset_size`."""

NEIGHBOURS = 3

DENSITY_NEIGHBOURS = 5

MOST_NEIGHBOURHOODS = 10_000
"""Real images whose neighbourhoods count, as in ADM's evaluator; of more, a fixed random choice."""


class Metric(Enum):
    """What can be measured. On Inception features the first three are called FID, sFID and KID."""

    FRECHET = "fd"
    SPATIAL = "sfd"
    KERNEL = "kd"
    SCORE = "is"
    NEIGHBOURS = "pr"


@dataclass(frozen=True)
class Quality:
    """Figures of one set of images. Those of different identities must not be compared."""

    identity: dict[str, Any]
    """Extractor, hash of its weights, resizing, counts, resolution, reference."""
    frechet_distance: float | None = None
    """To the reference; smaller is better."""
    spatial_frechet_distance: float | None = None
    """The same on spatial features."""
    kernel_distance: KernelDistance | None = None
    """To the reference; smaller is better."""
    inception_score: InceptionScore | None = None
    """Over splits; larger is better."""
    neighbours: NeighbourScores | None = None
    """Precision, recall, density and coverage; larger is better."""
    left_out: dict[Metric, str] = field(default_factory=dict)
    """Why a figure is None that was asked for."""


class _LeftOutError(Exception):
    pass


def measure_quality(
    features: Features,
    reference: ReferenceStatistics,
    identity: dict[str, Any],
    *,
    inception_splits: int,
    metrics: Collection[Metric] = tuple(Metric),
    on_progress: ProgressListener = ignore_progress,
) -> Quality:
    """Measure what the numbers of images allow.

    Args:
        features: of at least two samples.
        reference: from the same extractor.
        identity: all that the figures depend on.
        inception_splits: of the Inception-style score.
        metrics: which ones.
        on_progress: told how far precision and recall are.

    Raises:
        ValueError: a feature that is not finite.
    """

    def frechet() -> float:
        return gaussian_distance(fitted_gaussian(features.features), reference.gaussian)

    def spatial() -> float:
        ours = spatial_gaussian(features.spatial)
        if ours is None:
            raise _LeftOutError("the extractor has no spatial features")
        if reference.spatial is None:
            raise _LeftOutError("the reference holds no statistics of spatial features")
        return gaussian_distance(ours, reference.spatial)

    def kernel() -> KernelDistance:
        if reference.features is None or len(reference.features) < 2:
            raise _LeftOutError("the reference holds no features of single images")
        return kernel_distance(
            features.features,
            reference.features,
            subsets=KERNEL_SUBSETS,
            subset_size=KERNEL_SUBSET_SIZE,
        )

    def score() -> InceptionScore:
        count, classes = features.logits.shape
        if not classes:
            raise _LeftOutError("the extractor has no classifier")
        if count < inception_splits:
            raise _LeftOutError(f"{count} samples cannot be cut into {inception_splits} splits")
        return inception_score(features.logits, inception_splits, SHUFFLE_SEED)

    def neighbours() -> NeighbourScores:
        real = reference.features
        if real is None:
            raise _LeftOutError("the reference holds no features of single images")
        fewest = min(len(real), len(features))
        if fewest <= max(NEIGHBOURS, DENSITY_NEIGHBOURS):
            raise _LeftOutError(f"{fewest} images have too few neighbours")
        if len(real) > MOST_NEIGHBOURHOODS:
            order = torch.randperm(len(real), generator=generator("neighbourhoods"))
            real = real[order[:MOST_NEIGHBOURHOODS].numpy()]
        return neighbour_scores(
            features.features,
            real,
            neighbours=NEIGHBOURS,
            density_neighbours=DENSITY_NEIGHBOURS,
            on_progress=on_progress,
        )

    compute = {
        Metric.FRECHET: ("frechet_distance", frechet),
        Metric.SPATIAL: ("spatial_frechet_distance", spatial),
        Metric.KERNEL: ("kernel_distance", kernel),
        Metric.SCORE: ("inception_score", score),
        Metric.NEIGHBOURS: ("neighbours", neighbours),
    }
    found: dict[str, Any] = {}
    left_out = {}
    for metric in metrics:
        name, function = compute[metric]
        try:
            found[name] = function()
        except _LeftOutError as reason:
            left_out[metric] = str(reason)
    return Quality(identity=identity, left_out=left_out, **found)


def evaluate_samples(
    images: ImageRows,
    reference: Reference,
    extractor: FeatureExtractor,
    *,
    inception_splits: int,
    batch_size: int,
    device: torch.device | str,
    group: ProcessGroup = ALONE,
    on_progress: ProgressListener = ignore_progress,
) -> Quality | None:
    """Measure samples against real images.

    Args:
        images: (N, H, W, C) uint8 with 1 or 3 channels.
        reference: features of real images, from the same extractor.
        extractor: in eval mode.
        inception_splits: at most N.
        batch_size: of the extraction.
        device: of the extraction.
        group: of processes that call this together and share out the extraction. The leading one
            does the rest, and needs the reference's features.
        on_progress: told after each batch of the extraction, on the leading process.

    Returns:
        None on a process that another one leads.

    Raises:
        ValueError: too few images, or the reference is from another extractor.
    """
    if len(images) < max(2, inception_splits):
        raise ValueError(f"{len(images)} images are too few for {inception_splits} splits")
    _check_same_extractor(reference, extractor)
    features = extract_features(
        images,
        extractor,
        batch_size=batch_size,
        device=device,
        group=group,
        on_progress=on_progress,
    )
    if not group.leads:
        return None
    return _quality(
        features, images.shape[1:3], reference, extractor, inception_splits, on_progress
    )


def real_against_real(
    held_out: Reference,
    resolution: tuple[int, int],
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
    _check_same_extractor(held_out, extractor)
    features = drawn_without_order(held_out, samples)
    return _quality(features, resolution, reference, extractor, inception_splits)


def _quality(
    features: Features,
    resolution: tuple[int, ...],
    reference: Reference,
    extractor: FeatureExtractor,
    splits: int,
    on_progress: ProgressListener = ignore_progress,
) -> Quality:
    _check_same_extractor(reference, extractor)
    identity = quality_identity(len(features), resolution, reference, extractor, splits)
    return measure_quality(
        features,
        reference.statistics(),
        identity,
        inception_splits=splits,
        on_progress=on_progress,
    )


def quality_identity(
    samples: int,
    resolution: tuple[int, ...],
    reference: Reference,
    extractor: FeatureExtractor,
    splits: int,
) -> dict[str, Any]:
    """All that the figures of `samples` images of `resolution` (rows, columns) depend on."""
    return {
        "extractor": extractor.name,
        "extractor_weights_sha256": extractor.weights_sha256,
        "resize": extractor.resize,
        "samples": samples,
        "resolution": "x".join(str(size) for size in resolution),
        "reference_fingerprint": reference.fingerprint,
        "reference_images": len(reference.features),
        "inception_splits": splits,
    }


def _check_same_extractor(reference: Reference, extractor: FeatureExtractor) -> None:
    theirs = (reference.extractor, reference.weights_sha256)
    ours = (extractor.name, extractor.weights_sha256)
    if theirs != ours:
        raise ValueError(f"the reference is from {theirs}, the samples are measured with {ours}")


def quality_metrics(quality: Quality) -> dict[str, float]:
    """Every figure that was measured, by its name, with the extractor in it."""
    extractor = str(quality.identity["extractor"])
    found: dict[str, float | None] = {
        names.frechet_distance(extractor): quality.frechet_distance,
        names.spatial_frechet_distance(extractor): quality.spatial_frechet_distance,
    }
    for key, spread in (
        (names.kernel_distance(extractor), quality.kernel_distance),
        (names.inception_score(extractor), quality.inception_score),
    ):
        if spread is not None:
            found |= {key: spread.mean, names.spread(key): spread.std}
    if quality.neighbours is not None:
        scores = quality.neighbours
        found |= {
            names.precision(extractor): scores.precision,
            names.recall(extractor): scores.recall,
            names.density(extractor): scores.density,
            names.coverage(extractor): scores.coverage,
        }
    return {key: value for key, value in found.items() if value is not None}
