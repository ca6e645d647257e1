from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.metrics.frechet import frechet_distance_of_features, gaussian_of_features
from harness.evaluation.metrics.uncertainty import WeightedFrechet


@pytest.mark.parametrize("count", [40, 300])
@pytest.mark.parametrize("others", [50, 400])
def test_counted_features_measure_as_copies_do(digits: np.ndarray, count: int, others: int) -> None:
    """With fewer and with more images than dimensions, on both sides."""
    pixels = digits.reshape(-1, 64) / 255
    samples, reference = 0.8 * pixels[:count] + 0.3, pixels[900 : 900 + others]
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


@pytest.mark.parametrize("count", [560, 900])
def test_many_features_in_many_dimensions_measure_as_copies_do(count: int) -> None:
    """Where the Gram matrix is taken, of features with singular covariances too."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(580, 580)) * np.arange(1, 581)[:, None] ** -1.0
    samples = np.maximum(random.normal(size=(count, 580)) @ mixing, 0)
    reference = np.maximum(random.normal(size=(800, 580)) @ mixing + 0.1, 0)
    counts = random.integers(1, 3, count)
    expected = frechet_distance_of_features(samples.repeat(counts, axis=0), reference)
    weighted = WeightedFrechet(samples, gaussian_of_features(reference))
    assert weighted.distance(torch.from_numpy(counts)) == pytest.approx(expected, rel=1e-7)


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="4 and 5 dimensions"):
        WeightedFrechet(np.eye(4), gaussian_of_features(np.eye(5)))
