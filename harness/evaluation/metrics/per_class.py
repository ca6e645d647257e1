"""The Frechet distance of each class alone, which shows what the distance of all images hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from harness.evaluation.metrics.frechet import (
    check_features,
    check_widths,
    fitted_gaussian,
    gaussian_distance,
)
from models.randomness import generator


@dataclass(frozen=True)
class PerClassDistance:
    """Distances of classes, all from the same numbers of images, so that they compare."""

    by_class: dict[int, float]
    samples: int
    """Of each class that was measured; 0 where there is none."""
    reference: int
    """Real images of each."""
    left_out: dict[int, str]
    """Classes that were not measured, and why."""

    @property
    def mean(self) -> float | None:
        """Over the classes, each counting the same; None where there is none."""
        return float(np.mean(list(self.by_class.values()))) if self.by_class else None


def per_class_frechet(
    samples: NDArray[np.float32],
    sample_labels: NDArray[np.integer],
    reference: NDArray[np.float32],
    reference_labels: NDArray[np.integer],
    *,
    least: int,
    seed: int = 0,
) -> PerClassDistance:
    """Measure each class that occurs in either set and has enough images in both.

    The distance depends on the number of images, so every class is cut to as many as the smallest
    one that is measured has, of each side; which ones is random but fixed.

    Args:
        samples: (N, D) features.
        sample_labels: (N,), the class of each.
        reference: (M, D).
        reference_labels: (M,).
        least: images that a class needs in both sets, at least 2.
        seed: of the choice.

    Raises:
        ValueError: shapes that do not fit, a row that is not finite, or a `least` below 2.
    """
    if least < 2:
        raise ValueError(f"a distance needs at least 2 images a class, not {least}")
    _check(samples, sample_labels, "samples")
    _check(reference, reference_labels, "reference")
    check_widths(samples.shape[1], reference.shape[1])
    places = {
        int(one): (np.flatnonzero(sample_labels == one), np.flatnonzero(reference_labels == one))
        for one in np.union1d(sample_labels, reference_labels)
    }
    left_out = {
        one: f"{len(ours)} samples and {len(real)} reference images, but {least} of each are needed"
        for one, (ours, real) in places.items()
        if min(len(ours), len(real)) < least
    }
    kept = {one: sides for one, sides in places.items() if one not in left_out}
    if not kept:
        return PerClassDistance({}, 0, 0, left_out)
    sizes = [min(len(sides[side]) for sides in kept.values()) for side in (0, 1)]

    def chosen(rows: NDArray[np.intp], size: int, one: int, side: str) -> NDArray[np.intp]:
        order = torch.randperm(len(rows), generator=generator(f"per-class-{side}", seed, one))
        return np.sort(rows[order[:size].numpy()])

    by_class = {}
    for one, (ours, real) in kept.items():
        by_class[one] = gaussian_distance(
            fitted_gaussian(samples[chosen(ours, sizes[0], one, "samples")]),
            fitted_gaussian(reference[chosen(real, sizes[1], one, "reference")]),
        )
    return PerClassDistance(by_class, sizes[0], sizes[1], left_out)


def _check(features: NDArray[np.float32], labels: NDArray[np.integer], name: str) -> None:
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels {labels.shape} of {name} do not fit features {features.shape}")
    check_features(features, f"{name} features", least=1)
