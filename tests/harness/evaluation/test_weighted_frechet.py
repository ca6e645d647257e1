from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.frechet import frechet_distance_of_features, gaussian_of_features
from harness.evaluation.weighted_frechet import WeightedFrechet


@pytest.mark.parametrize("count", [40, 300])
@pytest.mark.parametrize("others", [50, 400])
def test_counted_features_measure_as_copies_do(cifar, count: int, others: int) -> None:
    """With fewer and with more images than dimensions, on both sides."""
    order = np.random.default_rng(0).permutation(400)
    samples = 0.8 * cifar.features[order[:count]] + 0.3
    reference = cifar.features[order[:others]]
    weighted = WeightedFrechet(samples, gaussian_of_features(reference))
    for counts in (
        np.random.default_rng(1).integers(0, 4, count),
        np.ones(count, dtype=np.int64),
        np.arange(count) < 30,
        3 * (np.arange(count) == 5) + (np.arange(count) == 6),
    ):
        copies = samples.repeat(counts.astype(np.int64), axis=0)
        expected = frechet_distance_of_features(copies, reference)
        found = weighted.distance(torch.from_numpy(counts.astype(np.int64)))
        assert found == pytest.approx(expected, rel=1e-9)


def test_another_width_is_refused(cifar) -> None:
    with pytest.raises(ValueError, match="47 and 48 dimensions"):
        WeightedFrechet(cifar.features[:, :47], gaussian_of_features(cifar.features))
