"""All figures of one set of samples, each from the same features."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import torch

from harness.evaluation.features import Features
from harness.evaluation.metrics.frechet import fitted_gaussian, gaussian_distance, spatial_gaussian
from harness.evaluation.metrics.inception_score import InceptionScore, inception_score
from harness.evaluation.metrics.kernel_distance import KernelDistance, kernel_distance
from harness.evaluation.metrics.neighbours import NeighbourScores, neighbour_scores
from harness.evaluation.reference_statistics import ReferenceStatistics
from harness.processes.progress import ProgressListener, ignore_progress
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
