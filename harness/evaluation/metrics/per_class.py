"""The Frechet distance of each class alone, which shows what the distance of all images hides."""

from __future__ import annotations

from collections.abc import Sequence
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

    by_class: dict[str, float]
    """By the name of the class."""
    samples: int
    """Of each class that was measured; 0 where there is none."""
    reference: int
    """Real images of each."""
    left_out: dict[str, str]
    """Classes that were not measured, and why."""
    mapping: str = ""
    """Which label or folder is which class, where names alone do not say it."""

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
    names: Sequence[str],
    least: int,
    seed: int = 0,
) -> PerClassDistance:
    """Measure each class that occurs in either set and has enough images in both.

    The distance depends on the number of images, so every class is cut to as many as the smallest
    one that is measured has, of each side; which ones is random but fixed.

    Args:
        samples: (N, D) features.
        sample_labels: (N,), the class of each.
        reference: (M, D) features.
        reference_labels: (M,).
        names: of the classes, by their labels.
        least: images that a class needs in both sets, at least 2.
        seed: of the choice.

    Raises:
        ValueError: shapes that do not fit, a row that is not finite, or a `least` below 2.
    """
    if least < 2:
        raise ValueError(f"a distance needs at least 2 images a class, not {least}")
    sides = (("samples", samples, sample_labels), ("reference", reference, reference_labels))
    for side, features, labels in sides:
        if labels.shape != features.shape[:1]:
            raise ValueError(
                f"labels {labels.shape} of {side} do not fit features {features.shape}"
            )
        check_features(features, f"{side} features", least=1)
    check_widths(samples.shape[1], reference.shape[1])
    places = {
        names[one]: [np.flatnonzero(labels == one) for _, _, labels in sides]
        for one in np.union1d(sample_labels, reference_labels)
    }
    left_out = {
        name: f"{len(ours)} samples and {len(theirs)} reference images, but {least} of each are "
        "needed"
        for name, (ours, theirs) in places.items()
        if min(len(ours), len(theirs)) < least
    }
    kept = {name: rows for name, rows in places.items() if name not in left_out}
    if not kept:
        return PerClassDistance({}, 0, 0, left_out)
    sizes = [min(map(len, rows)) for rows in zip(*kept.values(), strict=True)]
    by_class = {}
    for name, rows in kept.items():
        one, parts = names.index(name), []
        for (side, features, _), own, size in zip(sides, rows, sizes, strict=True):
            order = torch.randperm(len(own), generator=generator(f"per-class-{side}", seed, one))
            parts.append(fitted_gaussian(features[np.sort(own[order[:size].numpy()])]))
        by_class[name] = gaussian_distance(*parts)
    return PerClassDistance(by_class, sizes[0], sizes[1], left_out)
