from __future__ import annotations

import numpy as np
import pytest

from harness.evaluation.metrics.frechet import frechet_distance
from harness.evaluation.metrics.moments import FeatureMoments
from tests.support.figures import frechet_distance_of_features


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
