"""The Frechet distance of each class alone, which shows what the distance of all images hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.feature_matrix import Matrix, check_widths, finite_features
from harness.evaluation.frechet import frechet_distance_of_features


@dataclass(frozen=True)
class PerClassDistance:
    """Distances of equal counts compare, so also classes of one set among themselves only then."""

    mean: float | None
    """Over the classes, each counting the same; None where a class has too few images."""
    by_class: dict[int, float]
    """Empty where there is no mean."""
    reason: str | None
    """Why there is none."""


def per_class_frechet(
    features_a: Matrix,
    labels_a: NDArray[np.integer],
    features_b: Matrix,
    labels_b: NDArray[np.integer],
    *,
    least: int,
) -> PerClassDistance:
    """Measure each class that occurs in either set.

    Args:
        features_a: (N, D).
        labels_a: (N,), the class of each.
        features_b: (M, D).
        labels_b: (M,).
        least: images that every class needs in both sets, at least 2.

    Raises:
        ValueError: shapes that do not fit, a row that is not finite, or a `least` below 2.
    """
    if least < 2:
        raise ValueError(f"a distance needs at least 2 images a class, not {least}")
    sides = [_checked(features_a, labels_a, "a"), _checked(features_b, labels_b, "b")]
    check_widths(features_a.shape[1], features_b.shape[1])
    classes = np.union1d(labels_a, labels_b)
    counts = np.array([[(labels == one).sum() for one in classes] for _, labels in sides])
    short = np.flatnonzero(counts.min(axis=0) < least)
    if len(short):
        worst = counts[:, short].min(axis=0).argmin()
        a, b = counts[:, short[worst]]
        reason = (
            f"{len(short)} of {len(classes)} classes have fewer than {least} images: "
            f"class {classes[short[worst]]} has {a} and {b}"
        )
        return PerClassDistance(None, {}, reason)
    by_class = {
        int(one): frechet_distance_of_features(
            *(features[labels == one] for features, labels in sides)
        )
        for one in classes
    }
    return PerClassDistance(float(np.mean(list(by_class.values()))), by_class, None)


def _checked(
    features: Matrix, labels: NDArray[np.integer], name: str
) -> tuple[Matrix, NDArray[np.integer]]:
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels_{name} {labels.shape} do not fit features {features.shape}")
    return finite_features(features, f"features_{name}", least=1), labels
