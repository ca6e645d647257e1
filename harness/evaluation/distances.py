"""Distances and scores of features and logits, in float64 throughout.

The Frechet distance of two Gaussians is `|m_a - m_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2))`
(Dowson and Landau 1982; Heusel et al. 2017). With factors `F^T F = C` the last trace is the sum of
the singular values of `F_a F_b^T`, whose squares are the eigenvalues of `C_a C_b`. So no root is
taken of an eigenvalue that is zero up to rounding, and the result stays exact where covariances are
singular, that is for fewer images than feature dimensions. torchmetrics and torch-fidelity take
those roots and lose half of their digits there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray


class InceptionStyleScore(NamedTuple):
    """Mean and population standard deviation over the splits."""

    mean: float
    std: float


class _Gaussian(NamedTuple):
    mean: torch.Tensor
    """(D,)"""
    factor: torch.Tensor
    """(R, D) with `factor^T factor` the covariance."""


def frechet_distance(features_a: NDArray[np.floating], features_b: NDArray[np.floating]) -> float:
    """The squared Frechet distance between Gaussians fitted to two sets of features.

    Covariances are unbiased, as in the TTUR and ADM code. The distance falls with the number of
    images, so only figures of equal counts compare.

    Args:
        features_a: (N, D), N at least 2.
        features_b: (M, D), M at least 2.

    Raises:
        ValueError: too few features, different widths or values that are not finite.
    """
    return _distance(_fit(features_a), _fit(features_b))


def frechet_distance_of_gaussians(
    mean_a: NDArray[np.floating],
    covariance_a: NDArray[np.floating],
    mean_b: NDArray[np.floating],
    covariance_b: NDArray[np.floating],
) -> float:
    """The same distance from stored statistics, means (D,) and covariances (D, D).

    Raises:
        ValueError: shapes that do not fit, or values that are not finite.
    """
    return _distance(_known(mean_a, covariance_a), _known(mean_b, covariance_b))


def inception_style_score(
    logits: NDArray[np.floating], splits: int, seed: int
) -> InceptionStyleScore:
    """`exp(E_x KL(p(y|x) | p(y)))` (Salimans et al. 2016), over random splits of the images.

    Computed by torch-fidelity, which does it in float64 and with a seeded shuffle.

    Args:
        logits: (N, K).
        splits: at most N.
        seed: of the shuffle.

    Raises:
        ValueError: more splits than images, for which torch-fidelity gives NaN.
    """
    from torch_fidelity.metric_isc import (
        KEY_METRIC_ISC_MEAN,
        KEY_METRIC_ISC_STD,
        isc_features_to_metric,
    )

    if not 1 <= splits <= len(logits):
        raise ValueError(f"{len(logits)} images cannot be cut into {splits} splits")
    values = torch.from_numpy(np.ascontiguousarray(logits, dtype=np.float64))
    score = isc_features_to_metric(values, splits=splits, shuffle=True, rng_seed=seed)
    return InceptionStyleScore(score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD])


def _fit(features: NDArray[np.floating]) -> _Gaussian:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"a covariance needs (N >= 2, D) features, not {features.shape}")
    values = _finite(features)
    mean = values.mean(dim=0)
    factor = (values - mean) / (len(values) - 1) ** 0.5
    if len(factor) > factor.shape[1]:
        factor = torch.linalg.qr(factor, mode="r").R
    return _Gaussian(mean, factor)


def _known(mean: NDArray[np.floating], covariance: NDArray[np.floating]) -> _Gaussian:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mean {mean.shape} and covariance {covariance.shape} do not fit")
    values, vectors = torch.linalg.eigh(_finite(covariance))
    factor = values.clamp_min(0).sqrt().unsqueeze(1) * vectors.T
    return _Gaussian(_finite(mean), factor)


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features of {len(a.mean)} and {len(b.mean)} dimensions do not compare")
    shift = (a.mean - b.mean).square().sum()
    traces = a.factor.square().sum() + b.factor.square().sum()
    overlap = torch.linalg.svdvals(a.factor @ b.factor.T).sum()
    # Rounding can leave a tiny negative number where the two sets are the same.
    return max(0.0, float(shift + traces - 2 * overlap))


def _finite(values: NDArray[np.floating]) -> torch.Tensor:
    if not np.isfinite(values).all():
        raise ValueError("features hold values that are not finite")
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
