"""Moments of features that come in small batches: few updates, since each costs as much as D rows.

A set of many features is fitted in the same way, without a copy of it in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metrics.frechet import Gaussian, gaussian_of_features, gaussian_of_moments
from harness.evaluation.moments import FeatureMoments

ROWS_AT_ONCE = 1024


class GatheredMoments:
    """Batches that wait until there are enough of them."""

    def __init__(self, dimensions: int) -> None:
        self._moments = FeatureMoments(dimensions)
        self._waiting: list[NDArray[np.float32]] = []

    def take(self, batch: NDArray[np.float32]) -> None:
        """Take in (B, D) features; what is refused raises here or later.

        Raises:
            ValueError: another width, or a row that is not finite.
        """
        self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= ROWS_AT_ONCE:
            self._update()

    def moments(self) -> FeatureMoments:
        """Of all that was taken."""
        self._update()
        return self._moments

    def _update(self) -> None:
        if self._waiting:
            self._moments.update(np.concatenate(self._waiting))
            self._waiting.clear()


def fitted_gaussian(features: NDArray[np.float32]) -> Gaussian:
    """Fit to (N, D) features, N at least 2, in memory that does not grow with N.

    Raises:
        ValueError: too few features, or a row that is not finite.
    """
    count, dimensions = features.shape
    if count < 2 * dimensions:
        return gaussian_of_features(features)
    moments = FeatureMoments(dimensions)
    for start in range(0, count, ROWS_AT_ONCE):
        moments.update(features[start : start + ROWS_AT_ONCE])
    return gaussian_of_moments(moments.mean, moments.covariance)


def spatial_gaussian(moments: FeatureMoments | None) -> Gaussian | None:
    """Of moments of at least two features; None where there are none."""
    if moments is None:
        return None
    return gaussian_of_moments(moments.mean, moments.covariance)
