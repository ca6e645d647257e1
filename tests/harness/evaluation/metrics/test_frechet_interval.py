from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.evaluation.metrics.frechet import (
    Gaussian,
    frechet_distance_of_features,
    gaussian_of_features,
)
from harness.evaluation.metrics.uncertainty import bootstrap_interval
from harness.processes.progress import Progress
from models.randomness import generator


def standard(width: int) -> Gaussian:
    return Gaussian(torch.zeros(width).double(), torch.eye(width).double())


def test_percentiles_are_those_of_resampled_features(digits: np.ndarray) -> None:
    pixels = digits.reshape(-1, 64) / 255
    samples, real = pixels[:90], pixels[900:]
    result = bootstrap_interval(
        samples, gaussian_of_features(real), resamples=25, confidence=0.8, seed=3
    )
    found = []
    for index in range(25):
        drawn = torch.randint(90, (90,), generator=generator("bootstrap", 3, index)).numpy()
        found.append(frechet_distance_of_features(samples[drawn], real))
    value = frechet_distance_of_features(samples, real)
    assert result.value == value
    assert result.low == pytest.approx(np.percentile(found, 10), rel=1e-9)
    assert result.high == pytest.approx(np.percentile(found, 90), rel=1e-9)
    assert result.standard_error == pytest.approx(np.std(found, ddof=1), rel=1e-6)
    assert result.shift == pytest.approx(np.mean(found) - value, rel=1e-6)
    assert (result.confidence, result.resamples) == (0.8, 25)


def test_seeds_decide_and_more_resamples_begin_with_the_same() -> None:
    samples = np.random.default_rng(0).normal(size=(30, 3))
    one, again, other = (
        bootstrap_interval(samples, standard(3), resamples=9, seed=seed) for seed in (0, 0, 1)
    )
    assert one == again
    assert one.low != other.low


def test_with_few_images_the_plain_percentiles_miss_the_value_and_the_centred_hold_it() -> None:
    samples = np.random.default_rng(0).normal(size=(60, 40))
    result = bootstrap_interval(samples, standard(40), resamples=60)
    assert result.low > result.value
    assert result.shift > 3 * result.standard_error
    low, high = result.centred
    assert low < result.value < high
    assert high - low == pytest.approx(result.high - result.low, rel=1e-9)


def test_the_centred_interval_holds_the_mean_figure_about_as_often_as_it_says() -> None:
    """Of new draws from the same network, simulated; 54 of 60, give or take."""
    random = np.random.default_rng(0)

    def draw() -> np.ndarray:
        return random.normal(size=(80, 3)) * [1.0, 0.7, 1.4] + [0.5, 0.0, -0.3]

    many = [bootstrap_interval(draw(), standard(3), resamples=2).value for _ in range(600)]
    truth = np.mean(many)
    held = 0
    for _ in range(60):
        low, high = bootstrap_interval(draw(), standard(3), resamples=80, confidence=0.9).centred
        held += low <= truth <= high
    assert 47 <= held <= 59


def test_progress_is_told_and_nonsense_refused() -> None:
    samples = np.random.default_rng(0).normal(size=(10, 3))
    reported: list[Progress] = []
    bootstrap_interval(samples, standard(3), resamples=4, on_progress=reported.append)
    assert [(p.done, p.total) for p in reported] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    with pytest.raises(ValueError, match="1 resamples"):
        bootstrap_interval(samples, standard(3), resamples=1)
    with pytest.raises(ValueError, match="at 95"):
        bootstrap_interval(samples, standard(3), confidence=95)
    with pytest.raises(ValueError, match="N >= 2"):
        bootstrap_interval(samples[:1], standard(3))
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        bootstrap_interval(samples, standard(4))
