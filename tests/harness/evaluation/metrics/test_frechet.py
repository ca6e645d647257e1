"""The Frechet distance against closed forms, a plain matrix square root, and three libraries.

Moments of batches against those of all features at once.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from harness.evaluation.metrics.frechet import FeatureMoments, frechet_distance, gaussian_of_moments
from tests.support.figures import frechet_distance_of_features

Pair = tuple[np.ndarray, np.ndarray]


def mixed(count: int, width: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / width**0.5
    return random.gamma(1.0 + 0.1 * seed, size=(count, width)) @ mixing + 0.05 * seed


@pytest.fixture(params=["gamma", "gamma in float32", "cifar"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Two sets with covariances of full rank."""
    if request.param == "cifar":
        features = request.getfixturevalue("cifar").features
        return features[::2], features[1::2]
    dtype = np.float32 if "float32" in request.param else np.float64
    return mixed(500, 64, 0).astype(dtype), mixed(400, 64, 1).astype(dtype)


def moments(features: np.ndarray) -> Pair:
    features = features.astype(np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def from_moments(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(*moments(a), *moments(b))


def plain_formula(a: np.ndarray, b: np.ndarray) -> float:
    (mean_a, covariance_a), (mean_b, covariance_b) = moments(a), moments(b)
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b).real
    shift = mean_a - mean_b
    return float(shift @ shift + np.trace(covariance_a + covariance_b - 2 * root))


WAYS = pytest.mark.parametrize("distance", [frechet_distance_of_features, from_moments])


@WAYS
def test_equals_the_plain_formula(distance, pair: Pair) -> None:
    assert distance(*pair) == pytest.approx(plain_formula(*pair), rel=1e-6)


@WAYS
def test_equals_torch_fidelity(distance, pair: Pair) -> None:
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    statistics = [fid_features_to_statistics(torch.from_numpy(part).double()) for part in pair]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
    assert distance(*pair) == pytest.approx(theirs, rel=1e-6)


@WAYS
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_equals_pytorch_fid(distance, pair: Pair) -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    theirs = calculate_frechet_distance(*moments(pair[0]), *moments(pair[1]))
    assert distance(*pair) == pytest.approx(theirs, rel=1e-6)


@WAYS
def test_equals_torchmetrics(distance, pair: Pair) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Precomputed(nn.Module):
        num_features = pair[0].shape[1]

        def forward(self, features: Tensor) -> Tensor:
            return features

    metric = FrechetInceptionDistance(feature=Precomputed())
    # Otherwise the sums from which it takes covariances are in float32.
    metric.set_dtype(torch.float64)
    for features, real in zip(pair, (True, False), strict=True):
        metric.update(torch.from_numpy(features).double(), real=real)
    assert distance(*pair) == pytest.approx(metric.compute().item(), rel=1e-6)


def test_gaussians_of_known_distance() -> None:
    """For covariances that commute the distance is that of the standard deviations."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(30, 30)))[0]
    variances = random.uniform(0.1, 4, size=(2, 30))
    means = random.normal(size=(2, 30))
    covariances = [basis * variance @ basis.T for variance in variances]
    expected = ((means[0] - means[1]) ** 2).sum() + (
        (variances[0] ** 0.5 - variances[1] ** 0.5) ** 2
    ).sum()
    distance = frechet_distance(means[0], covariances[0], means[1], covariances[1])
    assert distance == pytest.approx(expected, rel=1e-10)


def test_moments_and_features_give_the_same(pair: Pair) -> None:
    assert from_moments(*pair) == pytest.approx(frechet_distance_of_features(*pair), rel=1e-9)


@WAYS
@pytest.mark.parametrize("width", [64, 200, 640])
def test_stays_exact_where_covariances_are_singular(distance, width: int) -> None:
    """Turning 20 dimensions into a subspace of many changes no distance."""
    a, b = mixed(100, 20, 0), mixed(90, 20, 1)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(width, 20)))[0].T
    assert distance(a @ turn, b @ turn) == pytest.approx(plain_formula(a, b), rel=1e-8)


@WAYS
def test_real_digits_with_pixels_that_are_always_black(distance, digits: np.ndarray) -> None:
    """Several pixels are zero in all images; leaving them out changes nothing."""
    pixels = digits.reshape(-1, 64) / 255
    a, b = pixels[:900], pixels[900:]
    used = (a.std(axis=0) > 1e-3) & (b.std(axis=0) > 1e-3)
    assert 40 < used.sum() < 64
    rest = (a.mean(axis=0) - b.mean(axis=0))[~used]
    rest_variance = (a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1))[~used].sum()
    expected = plain_formula(a[:, used], b[:, used]) + rest @ rest + rest_variance
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "distance",
    [frechet_distance_of_features, pytest.param(from_moments, marks=pytest.mark.slow)],
)
def test_500_images_of_2048_dimensions(distance) -> None:
    """A scaled and shifted copy: covariances C and s^2 C, for which the distance is known."""
    a = np.random.default_rng(0).gamma(0.5, size=(500, 2048))
    shift = 0.1
    b = 1.3 * a + shift
    means = a.mean(axis=0) - b.mean(axis=0)
    expected = means @ means + 0.3**2 * a.var(axis=0, ddof=1).sum()
    assert distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert distance(a, a[::-1]) == pytest.approx(0, abs=1e-6)


@WAYS
def test_a_set_has_no_distance_to_itself_and_a_shift_counts_squared(distance) -> None:
    a = mixed(60, 200, 0)
    assert distance(a, a) == pytest.approx(0, abs=1e-6)
    assert distance(a, a + 0.5) == pytest.approx(200 * 0.25, rel=1e-9)


@WAYS
def test_a_set_of_equal_images_is_a_point(distance) -> None:
    a = mixed(60, 8, 0)
    point = np.repeat(a[:1], 5, axis=0)
    expected = ((a.mean(axis=0) - a[0]) ** 2).sum() + a.var(axis=0, ddof=1).sum()
    assert distance(a, point) == pytest.approx(expected, rel=1e-12)
    assert distance(point, point) == pytest.approx(0, abs=1e-12)


@WAYS
def test_is_symmetric(distance, pair: Pair) -> None:
    assert distance(*pair) == pytest.approx(distance(*pair[::-1]), rel=1e-10)


def test_the_rounding_of_a_singular_covariance_is_not_taken_for_variance() -> None:
    """By chance it leaves some such covariances positive definite; their roots would add up."""
    definite = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        singular = random.gamma(1, size=(100, 12)) @ random.normal(size=(12, 14))
        full = random.gamma(1, size=(100, 14)) @ random.normal(size=(14, 14))
        definite += np.linalg.eigvalsh(moments(singular)[1]).min() > 0
        expected = frechet_distance_of_features(singular, full)
        assert from_moments(singular, full) == pytest.approx(expected, rel=1e-12)
    assert definite > 5


def test_a_covariance_with_an_eigenvalue_below_zero_by_rounding_is_taken() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    values = np.array([4.0, 1.0, 1.0, 1.0, 0.0, -1e-16])
    gaussian = gaussian_of_moments(np.zeros(6), (basis * values) @ basis.T)
    rebuilt = gaussian.factor.T @ gaussian.factor
    np.testing.assert_allclose(rebuilt, (basis * values.clip(0)) @ basis.T, atol=1e-14)
    assert gaussian.factor.shape == (4, 6)


def test_features_that_cannot_be_compared_are_refused() -> None:
    good = mixed(10, 4, 0)
    with pytest.raises(ValueError, match="4 and 5 dimensions"):
        frechet_distance_of_features(good, mixed(10, 5, 0))
    with pytest.raises(ValueError, match="N >= 2"):
        frechet_distance_of_features(good[:1], good)
    broken = good.copy()
    broken[[6, 8], 1] = np.nan, np.inf
    with pytest.raises(ValueError, match="row 6 is not finite, the first of 2"):
        frechet_distance_of_features(good, broken)
    with pytest.raises(ValueError, match="squares overflow"):
        frechet_distance_of_features(good * 1e200, good)


def test_moments_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance(np.zeros(4), np.eye(3), np.zeros(4), np.eye(4))
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(4), np.eye(4))
    with pytest.raises(ValueError, match="covariance: row 2 is not finite"):
        frechet_distance(np.zeros(3), np.diag([1, 1, np.nan]), np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="mean: row 1 is not finite"):
        frechet_distance(np.array([0, np.inf, 0]), np.eye(3), np.zeros(3), np.eye(3))


def features(count: int = 301, width: int = 12, offset: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.gamma(1, size=(count, width)) @ random.normal(size=(width, width)) + offset


def moments_of(*batches: np.ndarray) -> FeatureMoments:
    moments = FeatureMoments(batches[0].shape[1])
    for batch in batches:
        moments.update(batch)
    return moments


def assert_same(moments: FeatureMoments, values: np.ndarray, rel: float = 1e-10) -> None:
    assert moments.count == len(values)
    np.testing.assert_allclose(moments.mean, values.mean(axis=0), rtol=rel)
    expected = np.cov(values.astype(np.longdouble) - values[0], rowvar=False)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(moments.covariance, expected, rtol=rel, atol=rel * scale)


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
def test_batches_of_any_size_give_numpy_s_figures(size: int) -> None:
    values = features()
    batches = [values[start : start + size] for start in range(0, len(values), size)]
    assert_same(moments_of(*batches), values)


@pytest.mark.parametrize("cuts", [(150,), (1, 2, 300), (100, 100, 200)])
def test_processes_merged_give_the_figures_of_one(cuts: tuple[int, ...]) -> None:
    """Also where one of them saw nothing, in any order."""
    values = features()
    parts = [moments_of(part) for part in np.split(values, cuts)]
    for order in (parts, parts[::-1]):
        merged = FeatureMoments(12)
        for part in order:
            merged.merge(part)
        assert_same(merged, values)
    assert [part.count for part in parts] == [len(part) for part in np.split(values, cuts)]


def test_features_far_from_zero_lose_no_digits() -> None:
    """The plain `E x x^T - m m^T` has no digit left here."""
    values = features(offset=1e7)
    naive = (values.T @ values - len(values) * np.outer(*[values.mean(axis=0)] * 2)) / 300
    assert np.abs(naive - np.cov(values, rowvar=False)).max() > 0.01
    parts = np.array_split(values, 9)
    merged = moments_of(*parts[:4])
    merged.merge(moments_of(*parts[4:]))
    assert_same(merged, values, rel=1e-8)


def test_float32_batches_are_summed_in_float64() -> None:
    values = features(offset=100).astype(np.float32)
    moments = moments_of(values[:100], values[100:])
    assert moments.covariance.dtype == np.float64
    assert_same(moments, values.astype(np.float64))


def test_the_distance_of_streamed_digits_is_that_of_all_at_once(digits: np.ndarray) -> None:
    a, b = np.split(digits.reshape(-1, 64) / 255, [800])
    streamed = [moments_of(*np.array_split(part, 5)) for part in (a, b)]
    distance = frechet_distance(*(value for m in streamed for value in (m.mean, m.covariance)))
    assert distance == pytest.approx(frechet_distance_of_features(a, b), rel=1e-8)


def test_what_is_held_does_not_grow() -> None:
    sizes = {
        sum(array.nbytes for array in moments_of(*[features(50)] * batches).arrays().values())
        for batches in (1, 20)
    }
    assert sizes == {8 * (1 + 12 + 12 * 12)}


def test_stored_moments_go_on_as_if_they_had_never_been_stored() -> None:
    values = features()
    stored = moments_of(values[:100]).arrays()
    again = FeatureMoments.of(int(stored["count"]), stored["mean"], stored["scatter"])
    again.update(values[100:])
    assert_same(again, values)


def test_bad_batches_are_refused_and_leave_no_trace() -> None:
    values = features()
    moments = moments_of(values)
    broken = values.copy()
    broken[17, 3] = np.nan
    with pytest.raises(ValueError, match="batch: row 17 is not finite"):
        moments.update(broken)
    with pytest.raises(ValueError, match="12 and 5 dimensions"):
        moments.update(values[:, :5])
    with pytest.raises(ValueError, match="12 and 5 dimensions"):
        moments.merge(FeatureMoments(5))
    assert_same(moments, values)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_features_have_no_covariance(count: int) -> None:
    with pytest.raises(ValueError, match=f"at least 2 features, not {count}"):
        _ = moments_of(features()[:count]).covariance
