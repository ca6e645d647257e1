"""The squared Frechet distance of two Gaussians, in float64, and the moments that it needs.

It is `|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2))` (Dowson and Landau 1982; Heusel et al.
2017). With factors `F^T F = C` the last trace is the sum of the singular values of `F_a F_b^T`,
whose squares are the eigenvalues of `C_a C_b`. So no root is taken of an eigenvalue of the product
that is zero up to rounding, nothing is complex, and the result stays exact where covariances are
singular, that is for fewer images than feature dimensions. torchmetrics, torch-fidelity and
pytorch-fid take those roots and lose up to half of their digits there.

The checks here are those that every metric makes of the features it is given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix = NDArray[np.floating[Any]]

_CHECKED_AT_ONCE = 4096
"""Rows whose finiteness is looked at in one go, so that no mask of all of them is made."""

_SAFE_PIVOT = 1e-10
"""The smallest pivot over the largest from which a Cholesky factor is as exact as the matrix: the
rounding of a covariance is 1e-12 of its largest entries at 2,048 dimensions."""

_ROUNDING = 1e-5
"""Of the largest entry: more than a covariance that was stored in float32 is off by."""

ROWS_AT_ONCE = 1024
"""Features that moments wait for: an update costs as much as D rows."""


def check_features(features: Matrix, name: str, *, least: int) -> None:
    """See that features (N, D) can be measured, without a copy of them.

    Raises:
        ValueError: another shape, fewer rows than `least` or one that is not finite, which is
            named.
    """
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"{name}: (N >= {least}, D) values are needed, not {features.shape}")
    _check_finite(features, name)


def finite_features(features: Matrix, name: str, *, least: int) -> NDArray[np.float64]:
    """The features in float64, checked by `check_features`; float64 ones are not copied."""
    check_features(features, name, least=least)
    return np.ascontiguousarray(features, dtype=np.float64)


def check_widths(a: int, b: int) -> None:
    """Compare the dimensions of two sets.

    Raises:
        ValueError: they differ.
    """
    if a != b:
        raise ValueError(f"features of {a} and {b} dimensions do not compare")


def _check_finite(values: Matrix, name: str) -> None:
    bad: list[int] = []
    for start in range(0, len(values), _CHECKED_AT_ONCE):
        finite = np.isfinite(values[start : start + _CHECKED_AT_ONCE])
        if not finite.all():
            rows = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
            bad += (start + rows).tolist()
    if bad:
        raise ValueError(f"{name}: row {bad[0]} is not finite, the first of {len(bad)} such rows")


class Gaussian(NamedTuple):
    """Mean and covariance, in the form from which distances are taken."""

    mean: Tensor
    """(D,)"""
    factor: Tensor
    """(R, D) with `factor^T factor` the covariance; R at least its rank."""


def frechet_distance(
    mean_a: Matrix, covariance_a: Matrix, mean_b: Matrix, covariance_b: Matrix
) -> float:
    """The distance from stored statistics: means (D,) and covariances (D, D).

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    return gaussian_distance(
        gaussian_of_moments(mean_a, covariance_a), gaussian_of_moments(mean_b, covariance_b)
    )


def gaussian_of_features(features: Matrix) -> Gaussian:
    """Fit to (N, D) features, N at least 2; a reference that is used again is fitted once.

    Raises:
        ValueError: too few features, or a row that is not finite.
    """
    values = torch.from_numpy(finite_features(features, "features", least=2))
    mean = values.mean(dim=0)
    factor = (values - mean) / (len(values) - 1) ** 0.5
    if len(factor) > factor.shape[1]:
        factor = torch.linalg.qr(factor, mode="r").R
    return Gaussian(mean, factor)


def gaussian_of_moments(mean: Matrix, covariance: Matrix) -> Gaussian:
    """From a mean (D,) and a covariance (D, D), which may be singular.

    Directions in which the covariance is zero up to its rounding are left out: their roots would
    add up to more than the rounding.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or a matrix that is no
            covariance, since it is asymmetric or has a negative eigenvalue.
    """
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} do not fit")
    _check_finite(covariance, "covariance")
    _check_finite(mean, "mean")
    matrix = torch.from_numpy(np.ascontiguousarray(covariance, dtype=np.float64))
    if not torch.allclose(matrix, matrix.T, rtol=0, atol=_ROUNDING * float(matrix.abs().max())):
        raise ValueError("the covariance is not symmetric")
    centre = torch.from_numpy(np.ascontiguousarray(mean, dtype=np.float64))
    return Gaussian(centre, _factor(matrix))


def _factor(covariance: Tensor) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(covariance)
    pivots = lower.diagonal().square()
    if not failed and pivots.min() > _SAFE_PIVOT * pivots.max():
        return lower.T
    values, vectors = torch.linalg.eigh(covariance)
    if values[0] < -_ROUNDING * values.abs().max():
        raise ValueError(f"the covariance has the negative eigenvalue {float(values[0]):.3g}")
    rounding = len(values) * np.finfo(np.float64).eps * values.abs().max()
    kept = values > rounding
    return values[kept].sqrt().unsqueeze(1) * vectors[:, kept].T


def gaussian_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Frechet distance, never negative.

    Raises:
        ValueError: different widths, or values whose squares are too large for float64.
    """
    check_widths(len(a.mean), len(b.mean))
    shift = (a.mean - b.mean).square().sum()
    traces = a.factor.square().sum() + b.factor.square().sum()
    if not torch.isfinite(shift + traces):
        raise ValueError("the features are so large that their squares overflow")
    overlap = torch.linalg.svdvals(a.factor @ b.factor.T).sum()
    # Rounding can leave a tiny negative number where the two sets are the same.
    return max(0.0, float(shift + traces - 2 * overlap))


class FeatureMoments:
    """Mean and covariance of any number of features that come batch by batch, in 8 D^2 bytes.

    Counts, means and scatter matrices of two parts give those of the whole (Chan, Golub and LeVeque
    1983). Each part is centred by its own mean before anything is squared, so features far from
    zero lose no digits.
    """

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
        """(D, D), unbiased; a ValueError of fewer than two features."""
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 features, not {self.count}")
        return self.scatter / (self.count - 1)

    @property
    def gaussian(self) -> Gaussian:
        """With this mean and covariance; a ValueError of fewer than two features."""
        return gaussian_of_moments(self.mean, self.covariance)

    def update(self, batch: Matrix) -> None:
        """Take in (B, D) features, B of any size, which are not copied and must stay as they are.

        Raises:
            ValueError: another width, or a row that is not finite; nothing is taken in then.
        """
        check_features(batch, "batch", least=0)
        check_widths(len(self._mean), batch.shape[1])
        self._waiting.append(batch)
        if sum(map(len, self._waiting)) >= ROWS_AT_ONCE:
            self._take_waiting()

    def merge(self, other: FeatureMoments) -> None:
        """Take in what another one of this width saw, which is left as it is."""
        check_widths(len(self._mean), len(other.mean))
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
