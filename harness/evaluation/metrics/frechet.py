"""The squared Frechet distance of two Gaussians, in float64.

It is `|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2))` (Dowson and Landau 1982; Heusel et al.
2017). With factors `F^T F = C` the last trace is the sum of the singular values of `F_a F_b^T`,
whose squares are the eigenvalues of `C_a C_b`. So no root is taken of an eigenvalue of the product
that is zero up to rounding, nothing is complex, and the result stays exact where covariances are
singular, that is for fewer images than feature dimensions. torchmetrics, torch-fidelity and
pytorch-fid take those roots and lose up to half of their digits there.

What all figures ask of the features they are given, and in which words they refuse.

Mean and covariance of features that come batch by batch, on one process or on several.

Counts, means and scatter matrices of two parts give those of the whole (Chan, Golub and LeVeque
1983). Each batch is centred by its own mean before anything is squared, so features far from zero
lose no digits.

Moments of features that come in small batches: few updates, since each costs as much as D rows.

A set of many features is fitted in the same way, without a copy of it in float64.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.machine.files import atomic_path

Matrix = NDArray[np.floating[Any]]

_ROWS_AT_ONCE = 4096
"""Whose finiteness is looked at in one go, so that no mask of all of them is made."""


def check_features(features: Matrix, name: str, *, least: int) -> None:
    """See that features can be measured, without a copy of them.

    Args:
        features: (N, D), a row an image.
        name: of the features, for the message.
        least: images needed, N at the least.

    Raises:
        ValueError: another shape, too few rows or one that is not finite, which is named.
    """
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"{name}: (N >= {least}, D) values are needed, not {features.shape}")
    _check_finite(features, name)


def finite_features(features: Matrix, name: str, *, least: int) -> NDArray[np.float64]:
    """The features in float64; those that are so already are not copied.

    Args:
        features: (N, D), a row an image.
        name: of the features, for the message.
        least: images needed, N at the least.

    Raises:
        ValueError: another shape, too few rows or one that is not finite, which is named.
    """
    check_features(features, name, least=least)
    return np.ascontiguousarray(features, dtype=np.float64)


def finite_rows(values: Matrix, name: str) -> NDArray[np.float64]:
    """An array of any shape in float64, contiguous.

    Raises:
        ValueError: a row that is not finite, which is named.
    """
    _check_finite(values, name)
    return np.ascontiguousarray(values, dtype=np.float64)


def check_widths(a: int, b: int) -> None:
    """Compare the dimensions of two sets.

    Raises:
        ValueError: they differ.
    """
    if a != b:
        raise ValueError(f"features of {a} and {b} dimensions do not compare")


def _check_finite(values: Matrix, name: str) -> None:
    bad: list[int] = []
    for start in range(0, len(values), _ROWS_AT_ONCE):
        finite = np.isfinite(values[start : start + _ROWS_AT_ONCE])
        if not finite.all():
            rows = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
            bad += (start + rows).tolist()
    if bad:
        raise ValueError(f"{name}: row {bad[0]} is not finite, the first of {len(bad)} such rows")


_SAFE_PIVOT = 1e-10
"""The smallest pivot over the largest from which a Cholesky factor is as exact as the matrix: the
rounding of a covariance is 1e-12 of its largest entries at 2,048 dimensions."""


class Gaussian(NamedTuple):
    """Mean and covariance, in the form from which distances are taken."""

    mean: Tensor
    """(D,)"""
    factor: Tensor
    """(R, D) with `factor^T factor` the covariance; R at least its rank."""


def frechet_distance(
    mean_a: Matrix, covariance_a: Matrix, mean_b: Matrix, covariance_b: Matrix
) -> float:
    """The distance from stored statistics, such as those of `FeatureMoments` or of an ADM file.

    Args:
        mean_a: (D,).
        covariance_a: (D, D).
        mean_b: (D,).
        covariance_b: (D, D).

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    return gaussian_distance(
        gaussian_of_moments(mean_a, covariance_a), gaussian_of_moments(mean_b, covariance_b)
    )


def frechet_distance_of_features(features_a: Matrix, features_b: Matrix) -> float:
    """The distance between Gaussians fitted to two sets of features.

    Covariances are unbiased, as in the TTUR and ADM code. The distance falls with the number of
    images, so only figures of equal counts compare. Nothing as large as a covariance is built where
    there are fewer images than dimensions.

    Args:
        features_a: (N, D), N at least 2.
        features_b: (M, D), M at least 2.

    Raises:
        ValueError: too few features, different widths or a row that is not finite.
    """
    return gaussian_distance(gaussian_of_features(features_a), gaussian_of_features(features_b))


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
        ValueError: shapes that do not fit, or values that are not finite.
    """
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} do not fit")
    matrix = torch.from_numpy(finite_rows(covariance, "covariance"))
    return Gaussian(torch.from_numpy(finite_rows(mean, "mean")), _factor(matrix))


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


def _factor(covariance: Tensor) -> Tensor:
    lower, failed = torch.linalg.cholesky_ex(covariance)
    pivots = lower.diagonal().square()
    if not failed and pivots.min() > _SAFE_PIVOT * pivots.max():
        return lower.T
    values, vectors = torch.linalg.eigh(covariance)
    rounding = len(values) * np.finfo(np.float64).eps * values.abs().max()
    kept = values > rounding
    return values[kept].sqrt().unsqueeze(1) * vectors[:, kept].T


class FeatureMoments:
    """What a Frechet distance needs of any number of features, in 8 D^2 bytes."""

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        """Features seen, exactly."""
        self.mean = np.zeros(dimensions)
        """(D,) float64."""
        self.scatter = np.zeros((dimensions, dimensions))
        """(D, D) float64: the sum of `(x - mean) (x - mean)^T`."""

    @property
    def covariance(self) -> NDArray[np.float64]:
        """(D, D), unbiased.

        Raises:
            ValueError: fewer than two features.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 features, not {self.count}")
        return self.scatter / (self.count - 1)

    def update(self, batch: Matrix) -> None:
        """Take in (B, D) features, B of any size.

        Raises:
            ValueError: another width, or a row that is not finite; nothing is taken in then.
        """
        values = finite_features(batch, "batch", least=0)
        check_widths(len(self.mean), values.shape[1])
        if len(values):
            mean = values.mean(axis=0)
            centred = values - mean
            self._add(len(values), mean, centred.T @ centred)

    def merge(self, other: FeatureMoments) -> None:
        """Take in what another one saw, which is left as it is.

        Raises:
            ValueError: another width.
        """
        check_widths(len(self.mean), len(other.mean))
        if other.count:
            self._add(other.count, other.mean, other.scatter)

    def arrays(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """All of it as plain arrays: `count` (), `mean` (D,) and `scatter` (D, D)."""
        return {"count": np.array(self.count), "mean": self.mean, "scatter": self.scatter}

    def save(self, path: Path) -> None:
        """Write the arrays as `.npz`, atomically."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **self.arrays())  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> FeatureMoments:
        """Read what `save` wrote, every bit the same.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or of something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                count, mean, scatter = stored["count"], stored["mean"], stored["scatter"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} does not hold moments of features: {error}") from error
        fits = count.shape == () and mean.ndim == 1 and scatter.shape == (len(mean), len(mean))
        finite = fits and np.isfinite(mean).all() and np.isfinite(scatter).all()
        if not finite or count.dtype.kind != "i" or count < 0:
            shapes = f"count {count}, mean {mean.shape}, scatter {scatter.shape}"
            raise ValueError(f"{path} does not hold moments of features: {shapes}")
        moments = cls(len(mean))
        moments.count, moments.mean, moments.scatter = int(count), mean, scatter
        return moments

    def _add(self, count: int, mean: NDArray[np.float64], scatter: NDArray[np.float64]) -> None:
        total = self.count + count
        shift = mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(shift, shift * (self.count * count / total))
        self.mean = self.mean + shift * (count / total)
        self.count = total


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
