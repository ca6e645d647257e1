"""Mean and covariance of features that come batch by batch.

Counts, means and scatter matrices of two parts give those of the whole (Chan, Golub and LeVeque
1983). Each part is centred by its own mean before anything is squared, so features far from zero
lose no digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.metrics.frechet import (
    Gaussian,
    Matrix,
    check_features,
    check_widths,
    gaussian_of_features,
    gaussian_of_moments,
)

ROWS_AT_ONCE = 1024
"""Features that wait until there are as many: an update costs as much as D rows."""


class FeatureMoments:
    """What a Frechet distance needs of any number of features, in 8 D^2 bytes."""

    def __init__(self, dimensions: int) -> None:
        self._count = 0
        self._mean = np.zeros(dimensions)
        self._scatter = np.zeros((dimensions, dimensions))
        self._waiting: list[Matrix] = []

    @classmethod
    def of(
        cls, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]
    ) -> FeatureMoments:
        """Moments that were computed before: what `arrays` gives."""
        found = cls(len(mean))
        found._count, found._mean, found._scatter = count, mean, scatter
        return found

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self._mean)

    @property
    def count(self) -> int:
        """Features seen, exactly."""
        return self._count + sum(map(len, self._waiting))

    @property
    def mean(self) -> NDArray[np.float64]:
        """(D,); zeros where nothing was seen."""
        self._take_waiting()
        return self._mean

    @property
    def scatter(self) -> NDArray[np.float64]:
        """(D, D): the sum of `(x - mean) (x - mean)^T`."""
        self._take_waiting()
        return self._scatter

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), unbiased.

        Raises:
            ValueError: fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 features, not {self.count}")
        return self.scatter / (self.count - 1)

    @property
    def gaussian(self) -> Gaussian:
        """With this mean and covariance.

        Raises:
            ValueError: fewer than two features.
        """
        return gaussian_of_moments(self.mean, self.covariance)

    def update(self, batch: Matrix) -> None:
        """Take in (B, D) features, B of any size, which are not copied and must stay as they are.

        Raises:
            ValueError: another width, or a row that is not finite; nothing is taken in then.
        """
        check_features(batch, "batch", least=0)
        check_widths(self.dimensions, batch.shape[1])
        self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= ROWS_AT_ONCE:
            self._take_waiting()

    def merge(self, other: FeatureMoments) -> None:
        """Take in what another one saw, which is left as it is.

        Raises:
            ValueError: another width.
        """
        check_widths(self.dimensions, other.dimensions)
        self._take_waiting()
        self._add(other.count, other.mean, other.scatter)

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """All of it as plain arrays: `count` (), `mean` (D,) and `scatter` (D, D)."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    def _take_waiting(self) -> None:
        if not self._waiting:
            return
        values = np.concatenate(self._waiting).astype(np.float64)
        self._waiting.clear()
        if len(values):
            mean = values.mean(axis=0)
            centred = values - mean
            self._add(len(values), mean, centred.T @ centred)

    def _add(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        if not count:
            return
        total = self._count + count
        shift = mean - self._mean
        self._scatter += scatter
        self._scatter += np.outer(shift, shift * (self._count * count / total))
        self._mean = self._mean + shift * (count / total)
        self._count = total


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
    return moments.gaussian
