from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import linregress

from harness.evaluation.metrics.frechet import (
    Gaussian,
    frechet_distance_of_features,
    gaussian_of_features,
)
from harness.evaluation.metrics.uncertainty import extrapolated_frechet
from models.randomness import generator

WIDTH = 12


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return 1.1 * np.random.default_rng(0).normal(size=(1500, WIDTH)) + 0.05


def test_meets_the_distance_of_unlimited_samples_on_average() -> None:
    """It is known for Gaussians; that of 400 samples is much larger."""
    random = np.random.default_rng(0)
    reference = Gaussian(torch.zeros(WIDTH).double(), torch.eye(WIDTH).double())
    truth = WIDTH * (0.1**2 + 0.05**2)
    results = [
        extrapolated_frechet(1.1 * random.normal(size=(400, WIDTH)) + 0.05, reference)
        for _ in range(30)
    ]
    values = [result.value for result in results]
    bias = np.mean([result.distances[-1] for result in results]) - truth
    assert bias > 0.5 * truth
    assert abs(np.mean(values) - truth) < 0.15 * bias
    assert abs(np.mean(values) - truth) < 3 * np.std(values) / 30**0.5
    assert np.mean([result.slope for result in results]) == pytest.approx(400 * bias, rel=0.2)


def test_subsets_and_line_are_those_of_plain_formulas(samples: np.ndarray) -> None:
    real = np.random.default_rng(1).normal(size=(200, WIDTH))
    result = extrapolated_frechet(
        samples, gaussian_of_features(real), points=5, smallest=100, seed=4
    )
    assert result.sizes == (100, 450, 800, 1150, 1500)
    for index, (size, distance) in enumerate(zip(result.sizes, result.distances, strict=True)):
        order = torch.randperm(1500, generator=generator("extrapolation", 4, index))[:size]
        expected = frechet_distance_of_features(samples[order.numpy()], real)
        assert distance == pytest.approx(expected, rel=1e-9)
    line = linregress([1 / size for size in result.sizes], result.distances)
    assert result.value == pytest.approx(line.intercept, rel=1e-9)
    assert result.slope == pytest.approx(line.slope, rel=1e-9)
    assert result.standard_error == pytest.approx(line.intercept_stderr, rel=1e-6)


def test_the_first_subset_is_a_tenth_unless_told_and_seeds_decide(samples: np.ndarray) -> None:
    reference = gaussian_of_features(samples[::-3])
    one, again, other = (
        extrapolated_frechet(samples, reference, points=4, seed=seed) for seed in (0, 0, 1)
    )
    assert one.sizes == (150, 600, 1050, 1500)
    assert one == again
    assert one.distances[:3] != other.distances[:3]
    assert one.distances[3] == other.distances[3]


def test_too_few_points_or_samples_are_refused(samples: np.ndarray) -> None:
    reference = gaussian_of_features(samples)
    with pytest.raises(ValueError, match="no 2 different sizes"):
        extrapolated_frechet(samples, reference, points=2)
    with pytest.raises(ValueError, match="no 15 different sizes of 2 to 15 samples"):
        extrapolated_frechet(samples[:15], reference)
    with pytest.raises(ValueError, match="of 1 to 1500"):
        extrapolated_frechet(samples, reference, smallest=1)
    broken = samples.copy()
    broken[1200] = np.nan
    with pytest.raises(ValueError, match="row 1200 is not finite"):
        extrapolated_frechet(broken, reference)
