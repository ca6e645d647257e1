"""The squared Frechet distance of two Gaussians, in float64.

It is `|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2))` (Dowson and Landau 1982; Heusel et al.
2017). With factors `F^T F = C` the last trace is the sum of the singular values of `F_a F_b^T`,
whose squares are the eigenvalues of `C_a C_b`. So no root is taken of an eigenvalue of the product
that is zero up to rounding, nothing is complex, and the result stays exact where covariances are
singular, that is for fewer images than feature dimensions. torchmetrics, torch-fidelity and
pytorch-fid take those roots and lose up to half of their digits there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.feature_matrix import Matrix, check_widths, finite_features, finite_rows

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
