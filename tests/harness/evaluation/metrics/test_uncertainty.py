from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import linregress

from harness.evaluation.metrics.frechet import Gaussian, frechet_distance, gaussian_of_features
from harness.evaluation.metrics.uncertainty import (
    WeightedFrechet,
    bootstrap_interval,
    extrapolated_frechet,
    frechet_uncertainty,
)
from harness.processes.progress import Progress
from models.randomness import generator
from tests.support.figures import frechet_distance_of_features


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


WIDTH = 12


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return 1.1 * np.random.default_rng(0).normal(size=(1500, WIDTH)) + 0.05


@pytest.mark.parametrize(
    ("samples", "real", "shift"),
    [(200, 200, 0.1), (400, 150, 0.1), (200, 200, 0.0)],
    ids=["equal", "unequal", "one distribution"],
)
def test_one_standard_error_holds_the_known_distance_about_two_times_in_three(
    samples: int, real: int, shift: float
) -> None:
    """Of two Gaussians, drawn sixty times; the distance of so many images is far too large."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    other = mixing + 2 * shift * random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
    truth = frechet_distance(
        np.zeros(WIDTH), mixing.T @ mixing, np.full(WIDTH, shift), other.T @ other
    )
    found = [
        extrapolated_frechet(
            random.normal(size=(samples, WIDTH)) @ mixing,
            random.normal(size=(real, WIDTH)) @ other + shift,
            resamples=25,
        )
        for _ in range(60)
    ]
    misses = np.array([one.value for one in found]) - truth
    errors = np.array([one.standard_error for one in found])
    bias = np.mean([one.distances[-1] for one in found]) - truth
    assert bias > misses.std()
    assert abs(misses.mean()) < 3 * misses.std() / len(found) ** 0.5
    # Two standard deviations of a share of 60 draws are 0.12.
    assert 0.54 <= np.mean(np.abs(misses) <= errors) <= 0.82
    assert np.mean(np.abs(misses) <= 2 * errors) >= 0.88


def test_parts_and_line_are_those_of_plain_formulas(samples: np.ndarray) -> None:
    real = np.random.default_rng(1).normal(size=(200, WIDTH))
    result = extrapolated_frechet(samples, real, points=5, seed=4, resamples=9)
    assert result.sizes == (750, 938, 1125, 1312, 1500)
    shares = np.linspace(0.5, 1, 5)
    for index, distance in enumerate(result.distances):
        parts = []
        for side, name in ((samples, "samples"), (real, "reference")):
            stream = generator(f"extrapolation-{name}", 4, index)
            order = torch.randperm(len(side), generator=stream).numpy()
            parts.append(side[order[: round(shares[index] * len(side))]])
        assert distance == pytest.approx(frechet_distance_of_features(*parts), rel=1e-9)
    line = linregress(1 / shares, result.distances)
    assert result.value == pytest.approx(line.intercept, rel=1e-9)
    draws = [
        bootstrap_interval(side, gaussian_of_features(other), resamples=9).standard_error
        for side, other in ((samples, real), (real, samples))
    ]
    errors = [line.intercept_stderr, *draws]
    assert result.standard_error == pytest.approx(np.sqrt(np.square(errors).sum()), rel=1e-6)


def test_fewer_images_than_twice_the_dimensions_have_no_line(samples: np.ndarray) -> None:
    enough, few = samples[:24], samples[:23]
    assert extrapolated_frechet(enough, samples, resamples=2).sizes[-1] == 24
    for sides in ((few, samples), (samples, few)):
        with pytest.raises(ValueError, match="24 images are needed"):
            extrapolated_frechet(*sides)
        reference = gaussian_of_features(sides[1])
        found = frechet_uncertainty(sides[0], reference, sides[1], resamples=2)
        assert found.extrapolation is None
    assert frechet_uncertainty(enough, reference, None, resamples=2).extrapolation is None
    broken = samples.copy()
    broken[1200] = np.nan
    with pytest.raises(ValueError, match="row 1200 is not finite"):
        extrapolated_frechet(broken, samples)


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
