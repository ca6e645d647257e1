"""Many subsets and resamples of one set of features, measured against one reference."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.evaluation.feature_matrix import Matrix, check_widths, finite_features
from harness.evaluation.frechet import Gaussian


class WeightedFrechet:
    """The Frechet distance of features, each counted a number of times, to a fixed Gaussian.

    The overlap needs no more of the features than their projections on the reference's factor, and
    a feature that is counted w times is one row times the root of w. So the projections are made
    once, and a resample neither copies features nor builds their covariance.
    """

    def __init__(self, features: Matrix, reference: Gaussian) -> None:
        """Prepare; this holds two float64 copies of the features.

        Args:
            features: (N, D), N at least 2.
            reference: of D dimensions.

        Raises:
            ValueError: too few features, another width or a row that is not finite.
        """
        values = torch.from_numpy(finite_features(features, "features", least=2))
        check_widths(values.shape[1], len(reference.mean))
        centre = values.mean(dim=0)
        self._centred = values - centre
        self._projected = self._centred @ reference.factor.T
        self._squares = self._centred.square().sum(dim=1)
        self._shift = centre - reference.mean
        self._reference_trace = float(reference.factor.square().sum())

    def __len__(self) -> int:
        return len(self._centred)

    def distance(self, counts: Tensor) -> float:
        """Measure.

        Args:
            counts: (N,), integers of at least 0: how often each feature counts. At least two are
                counted in all.
        """
        total = int(counts.sum())
        weights = counts.double()
        mean = weights @ self._centred / total
        trace = (weights @ self._squares - total * mean.square().sum()) / (total - 1)
        used = counts.nonzero()[:, 0]
        rows = self._projected[used] - weights @ self._projected / total
        rows *= (weights[used] / (total - 1)).sqrt().unsqueeze(1)
        overlap = torch.linalg.svdvals(rows).sum()
        shift = (self._shift + mean).square().sum()
        return max(0.0, float(shift + trace + self._reference_trace - 2 * overlap))
